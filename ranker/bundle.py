"""What one ranking is computed with, frozen: weights and vectors of one version.

Swapped by one assignment, so no request mixes versions.

Threads: `install` and `swap_step` from one writer; `current` from any thread, once per request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from contracts.errors import CheckpointError

if TYPE_CHECKING:
    from contracts.records import ModelManifest
    from ranker.crm import CRM
    from ranker.vectors import VectorMatrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """A ranking model in eval mode, the vectors that belong to it, and where both come from.

    Raises:
        CheckpointError: If the parts are of different versions, or a weight is not finite.
    """

    crm: CRM
    vectors: VectorMatrix
    manifest: ModelManifest

    def __post_init__(self) -> None:
        todo = "publish the manifest of a sound version; the model in force stays"
        if self.vectors.version != self.manifest.version:
            raise CheckpointError(
                f"vectors of version {self.vectors.version}", wanted=f"version {self.manifest.version}", todo=todo
            )
        if self.crm.config.d_aug not in {0, self.vectors.dim}:
            raise CheckpointError(
                f"a model that reads vectors of {self.crm.config.d_aug}", wanted=f"{self.vectors.dim}", todo=todo
            )
        bad = [name for name, weights in self.crm.state_dict().items() if not bool(weights.isfinite().all())]
        if bad:
            raise CheckpointError(f"weights with NaN or infinity ({', '.join(bad[:3])})", wanted="finite weights", todo=todo)
        self.crm.eval().requires_grad_(requires_grad=False)

    @property
    def version(self) -> int:
        """The model version."""
        return self.manifest.version

    @property
    def step(self) -> int:
        """Online updates inside the version."""
        return self.manifest.step


class BundleHolder:
    """The bundle in force."""

    def __init__(self) -> None:
        self._current: Bundle | None = None

    @property
    def current(self) -> Bundle | None:
        """The bundle in force, or None before the first. Take it once per request. Any thread."""
        return self._current

    def install(self, bundle: Bundle) -> None:
        """Put a version in force: a new one, or an earlier one for a rollback. One writer thread."""
        self._current = bundle

    def swap_step(self, crm: CRM, manifest: ModelManifest) -> bool:
        """Put newer weights of the same version in force; its vectors stay. One writer thread.

        Returns:
            False where nothing changed: no version in force, another version, or a step that is not newer (redelivered).

        Raises:
            CheckpointError: If the weights do not fit; the ones in force stay.
        """
        now = self._current
        if now is None or manifest.version != now.version or manifest.step <= now.step:
            return False
        self._current = replace(now, crm=crm, manifest=manifest)
        return True
