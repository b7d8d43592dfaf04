"""A small ranker of real parts in memory, for the tests of bundle, scoring and serving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from contracts.records import AugmentedVector, InteractionEvent, ItemEvent, ModelManifest
from contracts.settings import load_settings
from ranker.bundle import Bundle, BundleHolder
from ranker.catalogue import Catalogue
from ranker.crm import CRM, CRMConfig
from ranker.features import FeatureConfig
from ranker.histories import Histories
from ranker.scoring import Scorer
from ranker.vectors import VectorMatrix

D_AUG = 4
SIZES = FeatureConfig(user_buckets=50, item_buckets=60, attribute_buckets=20, history=3, n_attributes=2, d_embedding=8)


@dataclass
class SmallRanker:
    """Items i0..i9 (published at 10, 20, ... ms), a reader u with history, vectors for u and i0..i7."""

    holder: BundleHolder
    histories: Histories
    catalogue: Catalogue
    scorer: Scorer

    def bundle(self, version=1, step=0, seed=0, d_aug=D_AUG, fill=None):
        torch.manual_seed(seed)
        crm = CRM(CRMConfig(backbone="din", features=SIZES, d_aug=d_aug))
        for parameter in crm.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        vectors = VectorMatrix(D_AUG, version=version)
        rng = np.random.default_rng(version)
        for subject in ["user:u", *(f"item:i{n}" for n in range(8))]:
            values = rng.standard_normal(D_AUG) if fill is None else np.full(D_AUG, fill)
            raw = values.astype(np.float32).tobytes()
            vectors.apply(
                AugmentedVector(subject=subject, vector=raw, version=version, tier="individual", as_of_ms=100, trigger_ms=0)
            )
        return Bundle(crm=crm, vectors=vectors, manifest=manifest(version, step))


def manifest(version=1, step=0):
    return ModelManifest(
        version=version, step=step, state="ready", backbone="din", weights="w", sha256="", collection="c", encoder="e",
        d_text=8, d_aug=D_AUG, created_ms=0,
    )  # fmt: skip


@pytest.fixture
def ranker():
    catalogue = Catalogue(SIZES)
    for n in range(10):
        attributes = {"section": (f"s{n % 3}",)}
        catalogue.apply(ItemEvent(item=f"i{n}", published_ms=10 * (n + 1), title=f"Title {n}", attributes=attributes))
    histories = Histories(100, 3)
    clicks = [("i1", 200, "click"), ("i2", 300, "skip"), ("i3", 400, "click")]
    histories.learn_many([InteractionEvent(user="u", item=item, action=action, event_ms=at) for item, at, action in clicks])
    holder = BundleHolder()
    settings = load_settings(rank={"max_candidates": 20})
    return SmallRanker(holder, histories, catalogue, Scorer(holder, histories, catalogue, settings))
