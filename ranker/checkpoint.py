"""Checkpoints: safetensors and a manifest, written so that a reader never sees half of one. No pickle anywhere.

    CHECKPOINTS/v0001/hein.safetensors            HEIN, frozen inside a version
    CHECKPOINTS/v0001/step-000000.safetensors     the CRM as trained offline
    CHECKPOINTS/v0001/step-000042.safetensors     the CRM after 42 online updates were published
    CHECKPOINTS/v0001/manifest.json               the latest step's `ModelManifest`

The sizes of a network stand in its file's metadata, so loading needs no settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from contracts.errors import CheckpointError
from contracts.records import ModelManifest
from hein.network import HEIN, HeinConfig
from ranker.crm import CRM, CRMConfig
from ranker.features import FeatureConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from contracts.records import ModelState
    from ranker.crm import JointModel

HEIN_FILE = "hein.safetensors"
MANIFEST_FILE = "manifest.json"
_TODO = "restore the checkpoint folder, or train a new version with `reki train`"
N = TypeVar("N", bound=nn.Module)


def version_folder(version: int) -> str:
    """Where a version's files are, relative to the checkpoint folder: ``v0001``."""
    return f"v{version:04d}"


def save_version(  # noqa: PLR0913 - the fields of a manifest, by keyword
    folder: Path,
    joint: JointModel,
    *,
    version: int,
    encoder: str,
    d_text: int,
    collection: str,
    metrics: Mapping[str, float],
    n_samples: int,
    step: int = 0,
    state: ModelState = "trained",
    keep: int = 3,
) -> ModelManifest:
    """Write a new version: HEIN, CRM and manifest; the oldest versions beyond ``keep`` go.

    Args:
        folder: The checkpoint folder; made if missing.
        joint: What was trained; without HEIN (the base arm) only the CRM is written.
        version: Counts from 1; see `next_version`.
        encoder: Name of the text encoder.
        d_text: Size of its vectors.
        collection: Where this version's augmented vectors are, or will be.
        metrics: Of the validation.
        n_samples: What it was trained on.
        step: 0 for a version as trained.
        state: "trained" until every subject has its augmented vector.
        keep: Versions kept on disk.

    Returns:
        The manifest to publish; the same as in ``manifest.json``.
    """
    hein_sha256 = ""
    if joint.hein is not None:
        hein = _to_bytes(joint.hein, "hein", asdict(joint.hein.config))
        write_atomically(folder / version_folder(version) / HEIN_FILE, hein)
        hein_sha256 = hashlib.sha256(hein).hexdigest()
    manifest = _save_crm(
        folder,
        joint.crm,
        ModelManifest(
            version=version,
            step=step,
            state=state,
            backbone=joint.crm.config.backbone,
            weights="",
            sha256="",
            hein_sha256=hein_sha256,
            collection=collection,
            encoder=encoder,
            d_text=d_text,
            d_aug=joint.crm.config.d_aug,
            created_ms=0,
            n_samples=n_samples,
            metrics=dict(metrics),
        ),
    )
    for old in _versions(folder)[:-keep]:
        if old != version:
            shutil.rmtree(folder / version_folder(old))
    return manifest


def save_step(  # noqa: PLR0913 - the fields of a manifest that a step changes, by keyword
    folder: Path,
    crm: CRM,
    before: ModelManifest,
    *,
    step: int,
    metrics: Mapping[str, float],
    n_samples: int,
    keep: int = 3,
) -> ModelManifest:
    """Write the CRM after online updates; the version, its HEIN and its vectors stay as ``before`` says.

    Args:
        folder: The checkpoint folder.
        crm: The ranking model as it is now.
        before: The manifest of an earlier step of the same version.
        step: Counts published updates inside the version.
        metrics: Online metrics.
        n_samples: Learnt so far, in all.
        keep: Steps kept on disk, beside step 0, which the frozen twin is loaded from.
    """
    manifest = msgspec.structs.replace(before, step=step, n_samples=n_samples, metrics=dict(metrics))
    manifest = _save_crm(folder, crm, manifest)
    home = folder / version_folder(before.version)
    steps = sorted(int(path.stem.removeprefix("step-")) for path in home.glob("step-*.safetensors"))
    for old in [number for number in steps if 0 < number <= step][:-keep]:
        (home / _step_file(old)).unlink(missing_ok=True)
    for half in home.glob(".step-*.part"):  # left by a killed run: only one process writes steps
        half.unlink(missing_ok=True)
    return manifest


def as_trained(manifest: ModelManifest) -> ModelManifest:
    """The manifest of step 0 of the same version: what the frozen twin, and a trainer that starts, load."""
    weights = f"{version_folder(manifest.version)}/{_step_file(0)}"
    return msgspec.structs.replace(manifest, step=0, weights=weights, sha256=manifest.trained_sha256)


def load_crm(folder: Path, manifest: ModelManifest) -> CRM:
    """The CRM of a manifest, in eval mode.

    Raises:
        CheckpointError: If the file is missing, damaged (its hash differs) or of another shape.
    """

    def build(sizes: dict[str, Any]) -> CRM:
        features = FeatureConfig(**sizes.pop("features"))
        return CRM(CRMConfig(features=features, **sizes))

    return _from_file(folder / manifest.weights, manifest.sha256, "crm", build)


def load_hein(folder: Path, manifest: ModelManifest) -> HEIN:
    """The HEIN of a manifest's version, in eval mode.

    Raises:
        CheckpointError: If the file is missing, damaged or of another shape.
    """
    path = folder / version_folder(manifest.version) / HEIN_FILE
    return _from_file(path, manifest.hein_sha256, "hein", lambda sizes: HEIN(HeinConfig(**sizes)))


def read_manifest(folder: Path, version: int | None = None) -> ModelManifest | None:
    """The manifest of a version as last written, of the newest one if ``version`` is None; None if there is none.

    Raises:
        CheckpointError: If it is not a manifest.
    """
    wanted = version if version is not None else max(_versions(folder), default=0)
    path = folder / version_folder(wanted) / MANIFEST_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelManifest)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {error}", wanted="a ModelManifest", todo=_TODO) from error


def write_manifest(folder: Path, manifest: ModelManifest) -> None:
    """Write a manifest whose state changed; the weights stay."""
    path = folder / version_folder(manifest.version) / MANIFEST_FILE
    write_atomically(path, msgspec.json.format(msgspec.json.encode(manifest)))


def next_version(folder: Path) -> int:
    """The number of the version to be trained next, from 1. A folder that a killed save left without a manifest is used again."""
    return max((v for v in _versions(folder) if (folder / version_folder(v) / MANIFEST_FILE).exists()), default=0) + 1


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, also after a power cut, sees the old one or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _save_crm(folder: Path, crm: CRM, manifest: ModelManifest) -> ModelManifest:
    content = _to_bytes(crm, "crm", asdict(crm.config))
    weights = f"{version_folder(manifest.version)}/{_step_file(manifest.step)}"
    write_atomically(folder / weights, content)
    sha256 = hashlib.sha256(content).hexdigest()
    manifest = msgspec.structs.replace(
        manifest,
        weights=weights,
        sha256=sha256,
        trained_sha256=sha256 if manifest.step == 0 else manifest.trained_sha256,
        created_ms=time.time_ns() // 1_000_000,
    )
    write_manifest(folder, manifest)
    return manifest


def _to_bytes(network: nn.Module, kind: str, sizes: dict[str, Any]) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content: bytes = save(tensors, metadata={"kind": kind, "sizes": json.dumps(sizes)})
    return content


def _from_file(path: Path, sha256: str, kind: str, build: Callable[[dict[str, Any]], N]) -> N:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"no readable {path} ({error.strerror})", wanted=f"the weights of a {kind}", todo=_TODO) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CheckpointError(f"{path} with sha256 {found[:12]}", wanted=f"sha256 {sha256[:12]} as in the manifest", todo=_TODO)
    try:
        metadata = safetensors_metadata(content)
        if metadata.get("kind") != kind:
            raise CheckpointError(f"{path} of kind {metadata.get('kind')!r}", wanted=f"kind {kind!r}", todo=_TODO)
        network = build(json.loads(metadata["sizes"]))
        network.load_state_dict(load(content))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: {error}", wanted=f"the weights of a {kind} of this release", todo=_TODO) from error
    network.eval()
    return network


def safetensors_metadata(content: bytes) -> dict[str, str]:
    """The free metadata of a safetensors file: its JSON header stands behind eight bytes of length.

    Raises:
        ValueError: If there is no such header.
    """
    n_bytes = int.from_bytes(content[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(content[8 : 8 + n_bytes])
    return header.get("__metadata__", {})


def _step_file(step: int) -> str:
    return f"step-{step:06d}.safetensors"


def _versions(folder: Path) -> list[int]:
    return sorted(int(path.name[1:]) for path in folder.glob("v[0-9]*") if path.name[1:].isdigit())
