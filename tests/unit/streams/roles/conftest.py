"""A small trained version on disk, and memory stores by collection name."""

import threading

import msgspec
import numpy as np
import pytest
import torch

from contracts.records import AugmentedVector, EncodedKnowledge
from contracts.settings import load_settings
from hein.stores.memory import MemoryVectorStore
from ranker.checkpoint import save_version, write_manifest
from ranker.offline import build_joint

D_TEXT = 6


class Stores:
    """Memory stores by collection; ``dropped`` and ``opened`` name them."""

    def __init__(self):
        self.by_name = {}
        self.dropped = []

    def open(self, name, dim):
        return self.by_name.setdefault(name, MemoryVectorStore(dim))

    def drop(self, name):
        self.dropped.append(name)
        self.by_name.pop(name, None)


@pytest.fixture
def stores():
    return Stores()


@pytest.fixture
def small(tmp_path):
    return load_settings(
        home=tmp_path,
        model={"hash_buckets": 64, "d_embedding": 4, "history": 3},
        hein={"d_hidden": 4, "d_aug": 4, "n_dedicated": 1},
        train={"publish_every_s": 1e-6, "keep": 2},
    )


@pytest.fixture
def trained(small):
    """Makes a version's checkpoint; gives its manifest."""

    def make(version, state="trained"):
        torch.manual_seed(version)
        manifest = save_version(
            small.checkpoints, build_joint(small, D_TEXT), version=version, encoder="e", d_text=D_TEXT, collection=f"augmented_v{version}",
            metrics={}, n_samples=1, keep=9,
        )  # fmt: skip
        manifest = msgspec.structs.replace(manifest, state=state)
        write_manifest(small.checkpoints, manifest)
        return manifest

    return make


def _vector(seed, dim):
    return np.random.default_rng(seed).standard_normal(dim).astype("<f4").tobytes()


@pytest.fixture
def encoding():
    def make(subject, as_of_ms=1, seed=0):
        return EncodedKnowledge(
            subject=subject, vector=_vector(seed, D_TEXT), encoder="e", tier="individual", as_of_ms=as_of_ms, trigger_ms=5,
            text_hash=f"t{as_of_ms}",
        )  # fmt: skip

    return make


@pytest.fixture
def augmented():
    def make(subject, version=1, seed=0, as_of_ms=1):
        return AugmentedVector(
            subject=subject, vector=_vector(seed, 4), version=version, tier="individual", as_of_ms=as_of_ms, trigger_ms=5
        )  # fmt: skip

    return make


@pytest.fixture
def never():
    return threading.Event()
