from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.errors import DatasetError
from contracts.records import EncodedKnowledge, InteractionEvent
from contracts.settings import load_settings
from ranker.features import FeatureConfig
from ranker.offline import Progress, TrainingError, predict, train_offline
from ranker.quality import auc, gauc, log_loss, quality
from ranker.samples import SampleLog, Samples

SETTINGS = load_settings(
    model={"hash_buckets": 256, "d_embedding": 8, "history": 4},
    hein={"d_hidden": 8, "d_aug": 4, "user_dropout": 0.1, "item_dropout": 0.0},
    train={"epochs": 3, "batch": 64, "learning_rate": 0.01},
)


def samples_of(n: int = 1500, d_text: int = 6, scale: float = 1.0) -> Samples:
    """Users like the items whose vector points where theirs does."""
    rng = np.random.default_rng(0)
    log = SampleLog()
    vectors = rng.standard_normal((2, 30, d_text)).astype("<f4") * np.float32(scale)
    for kind, rows in zip(("user", "item"), vectors, strict=True):
        for number, vector in enumerate(rows):
            log.add_encoding(
                EncodedKnowledge(
                    subject=f"{kind}:{number}",
                    vector=vector.tobytes(),
                    encoder="toy",
                    tier="individual",
                    as_of_ms=0,
                    trigger_ms=0,
                    text_hash="",
                )
            )
    for at in range(1, n + 1):
        user, item = (int(number) for number in rng.integers(0, 30, 2))
        likes = vectors[0, user] @ vectors[1, item] > 0
        log.add_interaction(InteractionEvent(user=str(user), item=str(item), action="like" if likes else "dislike", event_ms=at))
    return log.build(FeatureConfig.of(SETTINGS.model))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    samples = samples_of(300)
    torch.manual_seed(1)
    one = train_offline(samples, samples.matrix, SETTINGS)
    torch.manual_seed(2)
    two = train_offline(samples, samples.matrix, SETTINGS)
    other = train_offline(
        samples, samples.matrix, load_settings(**(SETTINGS.model_dump(include={"model", "hein"}) | {"train": {"seed": 7}}))
    )
    pairs = zip(one.joint.state_dict().values(), two.joint.state_dict().values(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert one.metrics == two.metrics
    assert not torch.equal(
        one.joint.state_dict()["crm.backbone.embedding.item.weight"],
        other.joint.state_dict()["crm.backbone.embedding.item.weight"],
    )


def test_it_learns_what_is_to_be_learnt_and_says_so_of_unseen_samples() -> None:
    samples = samples_of(3000)
    seen: list[Progress] = []
    trained = train_offline(samples, samples.matrix, SETTINGS, seen.append)
    assert trained.metrics["auc"] > 0.8
    assert set(trained.metrics) == {"auc", "gauc", "logloss"}
    assert trained.n_samples == 2700
    assert not trained.joint.training
    assert seen[-1].step == seen[-1].n_steps == 129
    assert seen[-1].loss < seen[0].loss


def test_held_out_samples_do_not_touch_the_weights() -> None:
    samples = samples_of(300)
    flipped = samples.take(np.arange(300))
    flipped.label[270:] = 1 - flipped.label[270:]
    one, two = (train_offline(s, s.matrix, SETTINGS).joint.state_dict() for s in (samples, flipped))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_base_arm_reads_no_knowledge() -> None:
    samples = samples_of(300)
    trained = train_offline(samples, np.zeros((1, 0), np.float32), SETTINGS, base=True)
    assert trained.joint.hein is None
    assert predict(trained.joint, samples, torch.zeros(1, 0)).shape == (300,)


def test_a_loss_that_is_no_number_stops_the_run_and_says_what_to_do() -> None:
    samples = samples_of(300)
    matrix = np.full_like(samples.matrix, np.nan)
    with pytest.raises(TrainingError, match=r"loss of nan.*learning rate"):
        train_offline(samples, matrix, SETTINGS)


def test_too_little_to_learn_from_is_said() -> None:
    samples = samples_of(300)
    with pytest.raises(DatasetError, match="1 samples"):
        train_offline(samples.take(slice(0, 1)), samples.matrix, SETTINGS)
    with pytest.raises(DatasetError, match="no knowledge vectors"):
        train_offline(samples, np.zeros((1, 0), np.float32), SETTINGS)
    assert train_offline(samples.take(slice(0, 65)), samples.matrix, SETTINGS)


def test_auc_gauc_and_log_loss_by_hand() -> None:
    labels, scores = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.8])
    assert auc(labels, scores) == pytest.approx(3.5 / 4)
    assert auc(np.ones(3), scores[:3]) is None
    groups = np.array([0, 1, 1, 2])
    assert gauc(groups, labels, scores) == pytest.approx(0.5)
    assert gauc(np.arange(4), labels, scores) is None
    assert log_loss(np.array([1.0, 0.0]), np.array([0.8, 0.4])) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert log_loss(np.array([1.0]), np.array([0.0])) < 20
    assert set(quality(np.arange(4), np.ones(4), scores)) == {"logloss"}
