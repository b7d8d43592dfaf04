"""The ranking model (CRM): a backbone with two augmented vectors as extra fields; and, for training, HEIN and the CRM as one.

A subject without knowledge has the default vector: zeros. The records flag it (`default_vector`), no score hides it.

Shapes: B candidates or samples, U users (B or 1), R distinct rows, d_text encoder vector, d_aug augmented vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.errors import VectorError
from ranker.backbones import build_backbone

if TYPE_CHECKING:
    from contracts.settings import Settings
    from hein.network import HEIN
    from ranker.features import FeatureConfig, Features


@dataclass(frozen=True, slots=True, kw_only=True)
class CRMConfig:
    """Everything needed to build a CRM; stands in the checkpoint beside the weights.

    Args:
        backbone: A key of `ranker.backbones.BACKBONES`.
        features: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm, which reads no knowledge.
    """

    backbone: str
    features: FeatureConfig
    d_aug: int

    @classmethod
    def of(cls, settings: Settings, *, base: bool = False) -> CRMConfig:
        """What the settings ask for.

        Args:
            settings: The settings in force.
            base: Without knowledge: the arm that knowledge is compared with.
        """
        from ranker.features import FeatureConfig

        return cls(
            backbone=settings.model.backbone,
            features=FeatureConfig.of(settings.model),
            d_aug=0 if base else settings.hein.d_aug,
        )


class CRM(nn.Module):
    """A backbone and the sizes that it was built with. Missing vectors are zeros.

    Args:
        config: What to build.
    """

    def __init__(self, config: CRMConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.features, config.d_aug)

    def forward(self, features: Features, user_vectors: Tensor | None = None, item_vectors: Tensor | None = None) -> Tensor:
        """Logits, (B,).

        Args:
            features: One batch.
            user_vectors: (U, d_aug), or None: default vectors.
            item_vectors: (B, d_aug), or None: default vectors.

        Raises:
            VectorError: If a vector has another size than the model reads.
        """
        users = self._vectors(user_vectors, features.user.shape[0], features.user.device)  # (U, d_aug)
        items = self._vectors(item_vectors, features.item.shape[0], features.user.device)  # (B, d_aug)
        logits: Tensor = self.backbone(features, users, items)  # (B,)
        return logits

    def attention(self, features: Features) -> Tensor:
        """How much each history item counts for each candidate, (B, H), 0 at padding."""
        return self.backbone.attention(features)

    def _vectors(self, vectors: Tensor | None, n: int, device: torch.device) -> Tensor:
        if vectors is None or self.config.d_aug == 0:
            return torch.zeros(n, self.config.d_aug, device=device)
        if vectors.shape != (n, self.config.d_aug):
            raise VectorError(
                f"vectors of shape {tuple(vectors.shape)}",
                wanted=f"({n}, {self.config.d_aug})",
                todo="use the augmented vectors of this model's version",
            )
        return vectors


class JointModel(nn.Module):
    """HEIN under a CRM, trained on one loss (REKI, section 3.4). HEIN runs once per distinct row of a batch.

    Args:
        crm: The ranking model.
        hein: The hybrid-expert network, or None for the base arm.
    """

    def __init__(self, crm: CRM, hein: HEIN | None) -> None:
        super().__init__()
        self.crm = crm
        self.hein = hein

    def forward(self, features: Features, user_rows: Tensor, item_rows: Tensor, matrix: Tensor) -> Tensor:
        """Logits, (B,).

        Args:
            features: One batch with U = B.
            user_rows: (B,) rows of ``matrix``, 0 where the user has no knowledge.
            item_rows: (B,) rows of ``matrix``, 0 where the item has no knowledge.
            matrix: (N, d_text) encoder vectors; row 0 stands for missing and is never read.
        """
        users = None if self.hein is None else augment_rows(self.hein, user_rows, matrix, "user")  # (B, d_aug)
        items = None if self.hein is None else augment_rows(self.hein, item_rows, matrix, "item")  # (B, d_aug)
        logits: Tensor = self.crm(features, users, items)  # (B,)
        return logits


def build_optimizers(
    module: nn.Module,
    learning_rate: float,
    *,
    hein_learning_rate: float | None = None,
    hein_weight_decay: float = 0.0,
) -> list[torch.optim.Optimizer]:
    """Adam, lazy for large tables: only rows of the batch move, so a step costs the same for a table of any size.

    Args:
        module: What is trained.
        learning_rate: Of everything.
        hein_learning_rate: Of what stands under the name ``hein``, where it is another.
        hein_weight_decay: Of the same, decoupled from the gradient (AdamW, arXiv 1711.05101).
    """
    sparse = {
        id(table.weight) for table in module.modules() if isinstance(table, nn.Embedding | nn.EmbeddingBag) and table.sparse
    }
    tables = [p for p in module.parameters() if id(p) in sparse]
    hein = [p for name, p in module.named_parameters() if name.startswith("hein.")]
    inside = {id(p) for p in hein}
    others = [p for p in module.parameters() if id(p) not in sparse | inside]
    groups = [
        {"params": others, "lr": learning_rate},
        {"params": hein, "lr": hein_learning_rate or learning_rate, "weight_decay": hein_weight_decay},
    ]
    dense = torch.optim.AdamW(
        [g for g in groups if g["params"]], weight_decay=0.0, fused=True
    )  # fused: one pass over the weights
    return [torch.optim.SparseAdam(tables, lr=learning_rate), dense] if tables else [dense]


def augment_rows(hein: HEIN, rows: Tensor, matrix: Tensor, stream: Literal["user", "item"]) -> Tensor:
    """Augmented vectors of rows of a matrix, each distinct row once.

    Args:
        hein: The network.
        rows: (B,) rows of ``matrix``, 0 where there is no knowledge.
        matrix: (N, d_text) encoder vectors; row 0 stands for missing and is never read.
        stream: Whose they are.

    Returns:
        (B, d_aug), zeros for row 0.
    """
    distinct, inverse = torch.unique(rows, return_inverse=True)  # (R,), (B,)
    augmented: Tensor = hein(matrix[distinct], stream) * (distinct != 0).unsqueeze(1)  # (R, d_aug), zeros where missing
    return functional.embedding(inverse, augmented)  # (B, d_aug); its gradient is cheaper than that of indexing
