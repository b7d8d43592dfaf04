"""Lists as samples, the loss of lists, and HEIN under a re-ranker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.errors import DatasetError
from hein.network import HEIN, HeinConfig
from ranker.crm import build_optimizers
from ranker.evaluation.rerank_training import NOBODY, JointReranker, ListSamples, augment_rows, list_loss, scores, step_loss
from ranker.features import FeatureConfig, ItemFeatures, ItemTable
from ranker.list_quality import list_quality
from ranker.rerankers import build_reranker
from ranker.samples import Samples

SIZES = FeatureConfig(user_buckets=20, item_buckets=30, attribute_buckets=9, history=3, n_attributes=1, d_embedding=4)
N_USERS, PER_USER, N_ITEMS, D_TEXT, D_AUG = 8, 6, 12, 5, 4
INF = float("inf")


def samples_of(seed: int = 0) -> Samples:
    """Each user's samples side by side; each has a history, a user row and an item row of its own."""
    draw = np.random.default_rng(seed)
    n = N_USERS * PER_USER
    user = np.repeat(np.arange(N_USERS), PER_USER)
    item = draw.integers(1, N_ITEMS + 1, n)
    table = [ItemFeatures(item=1 + i, attributes=np.array([i % 9], np.int32)) for i in range(N_ITEMS)]
    return Samples(
        user=(user + 1).astype(np.int32),
        user_number=user.astype(np.int32),
        user_attributes=np.zeros((n, 0), np.int32),
        item=item.astype(np.int32),
        history=draw.integers(1, N_ITEMS + 1, (n, 3)).astype(np.int32),
        history_liked=draw.integers(1, 3, (n, 3)).astype(np.int8),
        label=(item % 2).astype(np.float32),
        event_ms=1_000 + np.tile(np.arange(PER_USER), N_USERS) // 2,  # two samples share each moment
        user_rows=np.arange(n, dtype=np.int32) % 7,
        item_rows=(item % 5).astype(np.int32),
        items=ItemTable.of(table, 1),
        matrix=draw.normal(size=(8, D_TEXT)).astype(np.float32),
    )


def lists_of(samples: Samples) -> ListSamples:
    """Two lists of three per user, the last place of every other list empty."""
    index = np.arange(len(samples)).reshape(-1, 3)
    index[::2, 2] = NOBODY
    return ListSamples.of(samples, index, np.random.default_rng(1).random(index.shape))


def joint_of(name: str = "prm", *, knowledge: bool = True) -> JointReranker:
    torch.manual_seed(0)
    hein = HEIN(HeinConfig(d_text=D_TEXT, d_hidden=6, d_aug=D_AUG, n_shared=1, n_dedicated=1)) if knowledge else None
    return JointReranker(build_reranker(name, SIZES, D_AUG if knowledge else 0, 3), hein)


def test_lists_are_put_into_their_initial_order_and_read_at_their_earliest_sample() -> None:
    samples = samples_of()
    lists = ListSamples.of(
        samples,
        np.array([[5, 3, 4], [8, NOBODY, 7], [13, 12, NOBODY]]),
        np.array([[0.1, 0.3, 0.2], [0.1, np.nan, 0.4], [0.5, 0.5, 9.0]]),
    )
    assert lists.index.tolist() == [[3, 4, 5], [7, 8, NOBODY], [13, 12, NOBODY]]
    np.testing.assert_allclose(lists.initial, [[0.3, 0.2, 0.1], [0.4, 0.1, 0.0], [0.5, 0.5, 0.0]], rtol=1e-6)
    assert lists.earliest.tolist() == [3, 7, 12]  # of samples of one moment the lower row
    assert lists.label.tolist() == [[*samples.label[3:6]], [*samples.label[7:9], 0], [samples.label[13], samples.label[12], 0]]


def test_the_earliest_sample_may_be_named() -> None:
    lists = ListSamples.of(samples_of(), np.array([[5, 3, 4]]), np.array([[3.0, 2.0, 1.0]]), np.array([4]))
    assert lists.earliest.tolist() == [4]
    assert lists.take(np.array([0, 0])).earliest.tolist() == [4, 4]


def test_a_batch_has_the_user_side_of_the_earliest_sample_and_the_items_of_each() -> None:
    samples = samples_of()
    batch = ListSamples.of(samples, np.array([[2, 0, 1], [9, 10, NOBODY]]), np.array([[0.1, 0.3, 0.2], [0.2, 0.1, 0.0]])).batch(
        slice(None)
    )
    features, earliest, places = batch.features, [0, 9], [0, 1, 2, 9, 10]
    buckets = samples.items.item
    assert features.user.tolist() == samples.user[earliest].tolist()
    assert features.items[features.history].tolist() == buckets[samples.history[earliest].astype(np.int64)].tolist()
    assert features.history_liked.tolist() == samples.history_liked[earliest].tolist()
    assert features.items[features.item].tolist() == [*buckets[samples.item[places].astype(np.int64)].tolist(), 0]
    assert batch.user_rows.tolist() == samples.user_rows[earliest].tolist()
    assert batch.item_rows.tolist() == [*samples.item_rows[places].tolist(), 0]
    assert batch.label.tolist() == [samples.label[:3].tolist(), [*samples.label[9:11].tolist(), 0]]
    assert batch.present.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize(
    ("index", "initial", "message"),
    [
        ([[0, 1]], [[0.1, 0.2, 0.3]], "both"),
        ([[0, 1], [NOBODY, NOBODY]], [[0.1, 0.2]] * 2, "without an item"),
        ([[0, 6]], [[0.1, 0.2]], "one user"),
        ([[6, 7], [NOBODY, 1]], [[0.1, 0.2], [0.3, INF]], "finite"),
    ],
)
def test_bad_lists_are_refused(index: list[list[int]], initial: list[list[float]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        ListSamples.of(samples_of(), np.array(index), np.array(initial))


def test_loss_is_the_cross_entropy_between_two_distributions_over_a_list() -> None:
    logits = torch.tensor([[0.3, -1.0, 0.8], [0.2, 0.1, -INF]])
    present = torch.tensor([[True, True, True], [True, True, False]])
    label = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    p, q = torch.softmax(logits[0], 0), torch.softmax(logits[1, :2], 0)
    expected = (-(p[0].log() + p[2].log()) / 2 - q[1].log()) / 2
    torch.testing.assert_close(list_loss(logits, label * present, present), expected)


def test_a_list_in_which_nothing_was_liked_teaches_nothing() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    present = torch.ones(3, 4, dtype=torch.bool)
    label = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    loss = list_loss(logits, label, present)
    torch.testing.assert_close(loss, list_loss(logits[[0, 2]], label[[0, 2]], present[[0, 2]]))
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[1].any()
    assert list_loss(logits, torch.zeros(3, 4), present).item() == 0


def test_hein_runs_once_per_distinct_row_and_row_zero_is_zeros() -> None:
    joint, matrix = joint_of(), torch.randn(8, D_TEXT)
    seen: list[int] = []
    assert joint.hein is not None
    joint.hein.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    rows = torch.tensor([3, 0, 5, 3, 3])
    found = augment_rows(joint.hein, rows, matrix, "item")
    assert seen == [3]
    assert not found[1].any()
    torch.testing.assert_close(found[[0, 2]], joint.hein(matrix[[3, 5]], "item"))


@pytest.mark.parametrize("knowledge", [True, False])
def test_training_learns_the_lists_and_scores_them(knowledge: bool) -> None:
    samples = samples_of()
    lists, matrix = lists_of(samples), torch.from_numpy(samples.matrix)
    joint = joint_of(knowledge=knowledge)
    optimizers = build_optimizers(joint, 1e-2)
    before = list_quality(lists.label, lists.initial, lists.present).metrics["ndcg@3"]
    for _ in range(40):
        joint.zero_grad()
        step_loss(joint, lists.batch(slice(None)), matrix).backward()
        for optimizer in optimizers:
            optimizer.step()
    joint.eval()
    found = scores(joint, lists, matrix)
    assert found.shape == lists.index.shape
    assert (found[~lists.present] == -INF).all()
    after = list_quality(lists.label, found, lists.present)
    assert after.metrics["ndcg@3"] > before
    assert after.metrics["ndcg@3"] > 0.99 * (1 - after.n_without_liked / after.n_lists)


def test_scores_do_not_depend_on_what_else_is_scored() -> None:
    samples = samples_of()
    lists, matrix = lists_of(samples), torch.from_numpy(samples.matrix)
    joint = joint_of("mir").eval()
    together = scores(joint, lists, matrix)
    alone = np.concatenate([scores(joint, lists.take(slice(row, row + 1)), matrix) for row in range(len(lists))])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-6)
    assert scores(joint, lists.take(slice(0, 0)), matrix).shape == (0, 3)


def test_no_label_of_a_list_reaches_its_scores() -> None:
    samples = samples_of()
    matrix, joint = torch.from_numpy(samples.matrix), joint_of("mir").eval()
    other = replace(samples, label=1 - samples.label)
    np.testing.assert_array_equal(scores(joint, lists_of(samples), matrix), scores(joint, lists_of(other), matrix))
