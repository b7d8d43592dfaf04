from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from contracts.errors import CheckpointError
from contracts.records import FeatureSnapshot, HistoryItem, Impression, LabelledItem
from contracts.settings import Settings, load_settings
from ranker import online
from ranker.backbones.embedding import DENSE_ROWS
from ranker.features import item_features
from ranker.offline import build_joint
from ranker.online import OnlineLearner, read_state
from ranker.online_quality import OnlineQuality
from ranker.quality import auc, log_loss

SMALL = {"hein": {"d_hidden": 8, "d_aug": 4}, "train": {"online_learning_rate": 0.01}}
SETTINGS = load_settings(**SMALL, model={"hash_buckets": 512, "d_embedding": 8, "history": 4})
D_AUG = 4


def new_learner(version: int = 1, settings: Settings = SETTINGS) -> OnlineLearner:
    torch.manual_seed(0)
    crm = build_joint(settings, 6).crm.eval()
    return OnlineLearner(
        crm,
        copy.deepcopy(crm),
        settings,
        lambda items: np.stack([np.full(D_AUG, len(item) / 9, np.float32) for item in items]),
        lambda item: item_features(item, {}, crm.config.features),
        version=version,
    )


def impression(number: int, version: int = 1) -> Impression:
    """Even items are liked."""
    rng = np.random.default_rng(number)
    items = rng.choice(40, 10, replace=False)
    return Impression(
        ranking=f"r{number}",
        user=f"u{number % 5}",
        items=tuple(
            LabelledItem(item=f"i{item}", label=float(item % 2 == 0), score=float(rng.random()), position=n)
            for n, item in enumerate(items)
        ),
        version=version,
        step=0,
        event_ms=number,
        snapshot=FeatureSnapshot(
            history=(HistoryItem(item=f"i{number % 40}", liked=True),),
            user_vector=np.ones(D_AUG, "<f4").tobytes(),
        ),
    )


def stream(start: int, stop: int) -> list[Impression]:
    return [impression(number) for number in range(start, stop)]


def weights(learner: OnlineLearner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.crm.state_dict().items()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_it_gets_better_than_its_frozen_twin_which_stays_as_it_was() -> None:
    learner = new_learner()
    before = weights(learner)
    learner.learn_many(stream(0, 400))
    metrics = learner.metrics()
    assert metrics["rolling_auc_online"] > 0.8
    assert metrics["auc_online"] > metrics["auc_frozen"] + 0.1
    assert metrics["logloss_online"] < metrics["logloss_frozen"]
    assert 0.4 < metrics["auc_served"] < 0.6
    assert metrics["gauc_online"] > metrics["gauc_frozen"]
    assert (metrics["n_impressions"], metrics["n_items"]) == (400, 4000)
    assert equal(before, learner._frozen.state_dict())
    assert not equal(before, weights(learner))


def test_an_impression_is_tested_before_it_is_learnt() -> None:
    learner = new_learner()
    learner.learn_many(stream(0, 3))
    metrics = learner.metrics()
    assert metrics["logloss_online"] == pytest.approx(metrics["logloss_frozen"])
    learner.learn_many(stream(3, 6))
    metrics = learner.metrics()
    assert metrics["logloss_online"] != pytest.approx(metrics["logloss_frozen"])


def test_an_impression_learnt_before_is_passed_over() -> None:
    learner = new_learner()
    learner.learn_many(stream(0, 30))
    before, metrics = weights(learner), learner.metrics()
    learner.learn_many(stream(0, 30))
    assert equal(before, weights(learner))
    assert learner.metrics() == metrics | {"n_repeated": 30.0}


def test_remembered_rankings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "MAX_SEEN", 10)
    learner = new_learner()
    learner.learn_many(stream(0, 25))
    assert len(learner._seen) == 10


def test_statistics_of_dice_stay_as_trained() -> None:
    learner = new_learner()
    before = weights(learner)
    learner.learn_many(stream(0, 30))
    after = weights(learner)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" in name)


def test_a_vector_of_another_version_or_size_is_the_default() -> None:
    mine, other = new_learner(version=1), new_learner(version=2)
    mine.learn_many([impression(0)])
    other.learn_many([impression(0)])
    assert other.metrics()["n_other_version"] == 1
    assert other.metrics()["logloss_online"] != mine.metrics()["logloss_online"]
    odd = impression(1)
    mine.learn_many(
        [Impression(**{f: getattr(odd, f) for f in odd.__struct_fields__} | {"snapshot": FeatureSnapshot(user_vector=b"1234")})]
    )
    assert mine.metrics()["n_impressions"] == 2


def test_nothing_to_learn_is_fine() -> None:
    learner = new_learner()
    learner.learn_many([])
    learner.learn_many([Impression(ranking="r", user="u", items=(), version=1, step=0, event_ms=0, snapshot=FeatureSnapshot())])
    assert learner.metrics() == {
        "n_impressions": 0.0,
        "n_items": 0.0,
        "n_repeated": 0.0,
        "n_other_version": 0.0,
        "n_not_finite": 0.0,
    }


def test_a_broken_vector_does_not_destroy_the_weights() -> None:
    learner = new_learner()
    learner._vectors_lookup = lambda items: np.full((len(items), D_AUG), np.nan, np.float32)
    before = weights(learner)
    learner.learn_many(stream(0, 2))
    assert equal(before, weights(learner))
    assert learner.metrics()["n_not_finite"] == 20
    assert "logloss_online" not in learner.metrics()


@pytest.mark.parametrize("hash_buckets", [512, DENSE_ROWS + 1])  # dense tables, and large ones with lazy Adam
def test_killed_and_restored_is_the_same_as_never_killed(tmp_path: Path, hash_buckets: int) -> None:
    settings = load_settings(**SMALL, model={"hash_buckets": hash_buckets, "d_embedding": 8, "history": 4})
    path = tmp_path / "online.safetensors"
    straight, first = new_learner(settings=settings), new_learner(settings=settings)
    straight.learn_many(stream(0, 60))
    straight.learn_many(stream(60, 120))
    first.learn_many(stream(0, 60))
    first.step = 3
    first.save(path, {"impressions-0": 60})
    first.learn_many(stream(60, 90))  # lost with the process
    second = new_learner(settings=settings)
    assert second.restore(path) == {"impressions-0": 60}
    assert second.step == 3
    second.learn_many(stream(50, 120))  # some come again
    assert equal(weights(straight), weights(second))
    assert second.metrics() == pytest.approx(straight.metrics() | {"n_repeated": 10.0})
    state = read_state(path)
    assert state is not None
    assert (state.version, state.step, state.offsets) == (1, 3, {"impressions-0": 60})


def test_a_state_holds_the_changed_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "online.safetensors"
    learner = new_learner()
    learner.learn_many([impression(0)])
    learner.save(path, {})
    arrays = load_file(path)
    assert 0 < len(arrays["weights.backbone.embedding.item.weight.rows"]) <= 11  # ten items and one of the history
    assert len(arrays["weights.backbone.embedding.user.weight.rows"]) == 1
    assert read_state(tmp_path / "none") is None


@pytest.mark.parametrize("damage", [b"", b"\x80\x04pickle", b"cut"])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "online.safetensors"
    learner = new_learner()
    learner.learn_many(stream(0, 3))
    learner.save(path, {})
    path.write_bytes(path.read_bytes()[:-50] if damage == b"cut" else damage)
    with pytest.raises(CheckpointError, match=r"online\.safetensors.*delete it"):
        new_learner().restore(path)


def test_a_state_that_breaks_off_half_way_leaves_the_learner_as_new(tmp_path: Path) -> None:
    path = tmp_path / "online.safetensors"
    learner, fresh = new_learner(), new_learner()
    learner.learn_many(stream(0, 30))
    learner.save(path, {})
    arrays = load_file(path)
    del arrays["quality.served.bins"]
    with safe_open(path, "np") as file:
        save_file(arrays, path, metadata=file.metadata())
    with pytest.raises(CheckpointError, match=r"quality\.served\.bins"):
        fresh.restore(path)
    assert equal(weights(fresh), weights(new_learner()))
    fresh.learn_many(stream(0, 30))
    assert equal(weights(fresh), weights(learner))
    assert fresh.metrics() == learner.metrics()


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "online.safetensors"
    new_learner(version=1).save(path, {})
    with pytest.raises(CheckpointError, match="version 1; wanted version 2"):
        new_learner(version=2).restore(path)


def test_a_new_version_starts_at_step_zero_and_keeps_the_metrics() -> None:
    learner, other = new_learner(), new_learner()
    learner.learn_many(stream(0, 30))
    learner.step = 4
    metrics = learner.metrics()
    learner.swap_version(other.crm, copy.deepcopy(other.crm), version=2)
    assert (learner.version, learner.step) == (2, 0)
    assert learner.metrics() == metrics
    learner.learn_many([impression(40, version=2)])
    assert learner.metrics()["n_impressions"] == 31


def test_online_quality_is_what_the_exact_figures_are() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.3).astype(np.float64)
    scores = np.clip(rng.normal(0.3 + 0.2 * labels, 0.2), 0, 1)
    quality = OnlineQuality()
    for part in np.split(np.arange(3000), 300):
        quality.update(labels[part], scores[part])
    found = quality.metrics()
    assert found["auc"] == pytest.approx(auc(labels, scores), abs=2e-4)
    assert found["rolling_auc"] == pytest.approx(auc(labels[1000:], scores[1000:]), abs=1e-3)
    assert found["logloss"] == pytest.approx(log_loss(labels, scores), abs=1e-6)
