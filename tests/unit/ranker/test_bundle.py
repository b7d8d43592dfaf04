from __future__ import annotations

import threading
from dataclasses import replace

import msgspec
import pytest
import torch

from contracts.errors import CheckpointError
from contracts.records import RankRequest
from ranker.bundle import Bundle


def test_a_step_replaces_the_weights_and_keeps_the_vectors_of_its_version(ranker):
    first, second = ranker.bundle(), ranker.bundle(step=3, seed=1)
    assert not ranker.holder.swap_step(second.crm, second.manifest)
    ranker.holder.install(first)
    assert ranker.holder.swap_step(second.crm, second.manifest)
    now = ranker.holder.current
    assert (now.crm, now.vectors, now.version, now.step) == (second.crm, first.vectors, 1, 3)


def test_a_step_of_another_version_or_one_already_seen_changes_nothing(ranker):
    ranker.holder.install(ranker.bundle(step=3))
    before = ranker.holder.current
    for version, step in [(2, 9), (1, 3), (1, 2)]:
        other = ranker.bundle(version, step, seed=1)
        assert not ranker.holder.swap_step(other.crm, other.manifest)
    assert ranker.holder.current is before


def test_parts_that_do_not_belong_together_are_no_bundle(ranker):
    bundle = ranker.bundle()
    with pytest.raises(CheckpointError, match="version 1"):
        replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, version=2))
    with pytest.raises(CheckpointError, match="reads vectors of 5"):
        ranker.bundle(d_aug=5)


def test_weights_that_went_wrong_in_training_never_come_into_force(ranker):
    ranker.holder.install(ranker.bundle())
    broken = ranker.bundle(step=1).crm
    with torch.no_grad():
        next(broken.parameters())[0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        ranker.holder.swap_step(broken, msgspec.structs.replace(ranker.bundle().manifest, step=1))
    assert ranker.holder.current.step == 0


def test_no_answer_mixes_versions_while_they_are_swapped(ranker):
    """Version v has vectors of all v: the snapshot of an answer says which vectors were used."""
    bundles: list[Bundle] = [ranker.bundle(version, fill=float(version)) for version in (1, 2)]
    ranker.holder.install(bundles[0])
    mixed, stop = [], threading.Event()

    def rank():
        while not stop.is_set():
            ranking = ranker.scorer.rank(RankRequest(request="r", user="u", candidates=("i1", "i2"), event_ms=500))
            used = torch.frombuffer(bytearray(ranking.snapshot.user_vector), dtype=torch.float32)
            if used.unique().tolist() != [float(ranking.version)]:
                mixed.append(ranking)

    readers = [threading.Thread(target=rank) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(2_000):
        ranker.holder.install(bundles[n % 2])
    stop.set()
    for reader in readers:
        reader.join()
    assert mixed == []
