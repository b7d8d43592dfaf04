"""The columns of an evaluation: parts, histories, lists to re-rank and their initial order."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.evaluation_task import make_task
from ranker.evaluation.arms import ARMS, arm_knowledge
from ranker.evaluation.columns import arm_columns
from ranker.evaluation.task import PARTS, SMOOTHING, recent, windows
from ranker.features import DISLIKED, LIKED

seeds = st.integers(0, 10_000)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_parts_share_no_user_and_no_sample_and_leave_nothing_out(seed):
    task = make_task(seed=seed)
    index = [task.part(part) for part in PARTS]
    users = [set(task.user[i].tolist()) for i in index]
    assert sorted(np.concatenate(index).tolist()) == list(range(len(task)))
    assert all(a.isdisjoint(b) for n, a in enumerate(users) for b in users[n + 1 :])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 6), seeds)
@settings(max_examples=50, deadline=None)
def test_windows_hold_the_last_values_before_the_end_oldest_first(lengths, n, seed):
    values = np.random.default_rng(seed).integers(1, 99, sum(lengths) + 1).astype(np.int32)
    starts = np.cumsum([0, *lengths[:-1]])
    ends = starts + lengths
    out = windows(starts, ends, values, n)
    for row, start, end in zip(out, starts, ends, strict=True):
        wanted = values[start:end][-n:].tolist()
        assert row.tolist() == wanted + [0] * (n - len(wanted))
    assert out.dtype == values.dtype


@given(st.lists(st.lists(st.integers(1, 50), max_size=7), min_size=1, max_size=5), st.integers(1, 7))
def test_recent_is_the_end_of_each_history(histories, n):
    rows = np.array([history + [0] * (7 - len(history)) for history in histories], np.int32)
    codes = np.where(rows == 0, 0, 1 + rows % 2).astype(np.int8)
    last, last_codes = recent(rows, codes, n)
    wanted = [history[-n:] + [0] * (n - len(history[-n:])) for history in histories]
    assert last.tolist() == wanted
    assert last_codes.tolist() == [[0 if row == 0 else 1 + row % 2 for row in history] for history in wanted]


def test_lists_are_consecutive_samples_of_one_user_in_the_initial_order():
    task = make_task()
    for part in PARTS:
        lists = task.lists(part, 4)
        rows = np.sort(lists.samples, axis=1)
        assert (rows[:, 0] == lists.first).all()
        assert (np.diff(rows, axis=1) == 1).all()
        assert (task.user[rows] == task.user[rows[:, :1]]).all()
        assert (np.diff(lists.scores, axis=1) <= 0).all()
        counts = np.bincount(task.user[task.part(part)], minlength=len(task.users))
        assert np.bincount(task.user[lists.first], minlength=len(task.users)).tolist() == (counts // 4).tolist()
        assert (task.position[lists.first] - task.n_prefix[task.user[lists.first]]).tolist() == [
            4 * n for count in counts // 4 for n in range(count)
        ]


def test_a_part_without_users_has_no_lists():
    task = make_task()
    assert replace(task, part_of_user=np.zeros(len(task.users), np.int8)).lists("test").samples.shape == (0, 10)


def test_the_initial_score_is_the_smoothed_mean_of_the_other_training_users():
    task = make_task(n_items=5)
    inside = task.part_of_user[task.user] == 0
    mean = task.label[inside].mean()
    for sample in (task.part("train")[3], task.part("test")[5]):
        others = inside & (task.item == task.item[sample]) & (task.user != task.user[sample])
        wanted = (task.label[others].sum() + SMOOTHING * mean) / (others.sum() + SMOOTHING)
        assert task.initial_scores()[sample] == pytest.approx(wanted, rel=1e-6)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_no_label_of_validation_and_test_users_moves_an_initial_score(seed):
    task = make_task(seed=seed)
    outside = task.part_of_user[task.user] != 0
    flipped = replace(task, label=np.where(outside, 1 - task.label, task.label))
    assert (flipped.initial_scores() == task.initial_scores()).all()
    lists, again = (t.lists("test") for t in (task, flipped))
    assert (lists.samples == again.samples).all()


def _columns(task, name="base"):
    arm = ARMS[name]
    return arm_columns(task, arm, arm_knowledge(arm, task, {}), d_embedding=4)


def test_samples_hold_the_tasks_columns_and_no_user_id():
    task = make_task()
    index = task.part("test")
    samples = _columns(task).samples(index)
    assert not samples.user.any()
    assert samples.user_number.tolist() == task.user[index].tolist()
    assert samples.item.tolist() == task.item[index].tolist()
    assert samples.label.tolist() == task.label[index].tolist()
    assert samples.history.shape == (len(index), 5)
    assert set(np.unique(samples.history_liked)) <= {0, DISLIKED, LIKED}
    assert samples.matrix.shape == (1, 0)
    assert samples.user_attributes.shape == (len(index), 0)
    batch = samples.batch(np.arange(6))
    assert batch.features.items[batch.features.item].tolist() == task.item[index[:6]].tolist()


def test_every_item_and_attribute_value_has_a_row_of_its_own():
    task = make_task()
    columns = _columns(task)
    config, items = columns.config, columns.items
    assert items.item.tolist() == list(range(len(task.items) + 1))
    values = {(name, value) for row in task.attributes for name, those in row.items() for value in those}
    assert (config.user_buckets, config.item_buckets, config.attribute_buckets) == (1, len(task.items) + 1, len(values) + 1)
    assert config.n_attributes == max(sum(map(len, row.values())) for row in task.attributes)
    named = {}
    for row, attributes in zip(items.attributes[1:].tolist(), task.attributes, strict=True):
        pairs = [(name, value) for name in sorted(attributes) for value in attributes[name]]
        assert row[len(pairs) :] == [0] * (len(row) - len(pairs))
        for bucket, pair in zip(row, pairs, strict=False):
            assert named.setdefault(bucket, pair) == pair
    assert len(named) == len(values)
    assert 0 not in named
    assert not items.attributes[0].any()


def test_base_long_reads_thirty_interactions_and_demographics():
    task = make_task()
    columns = _columns(task, "base-long")
    samples = columns.samples(np.arange(len(task)))
    assert (samples.history == task.history).all()
    assert (columns.config.history, columns.config.n_user_attributes, columns.config.user_attribute_buckets) == (30, 2, 6)
    same = [task.demographics[user] for user in samples.user_number.tolist()]
    assert len({(tuple(row), own) for row, own in zip(samples.user_attributes.tolist(), same, strict=True)}) == len(set(same))
    assert samples.user_attributes.min() == 1


def test_an_item_with_many_values_is_cut():
    task = make_task()
    many = replace(task, attributes=({"tag": tuple(map(str, range(20)))}, *task.attributes[1:]))
    assert _columns(many).config.n_attributes == 8
