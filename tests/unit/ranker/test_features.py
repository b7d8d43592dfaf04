from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from contracts.records import HistoryItem
from contracts.settings import Model
from ranker.features import (
    DISLIKED,
    LIKED,
    NOT_SAID,
    FeatureConfig,
    ItemTable,
    hash_id,
    item_features,
    join_batches,
    rank_features,
    sample_features,
)

CONFIG = FeatureConfig(user_buckets=1000, item_buckets=1000, attribute_buckets=100, history=3, n_attributes=4, d_embedding=8)


def lookup(item: str):
    return item_features(item, {"section": (f"s{item}",)}, CONFIG)


def test_an_id_has_the_same_bucket_in_every_process() -> None:
    code = "from ranker.features import hash_id; print(hash_id('n001', 65536), hash_id('日本', 1000))"
    env = os.environ | {"PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert other.stdout.split() == [str(hash_id("n001", 65536)), str(hash_id("日本", 1000))]


@pytest.mark.parametrize("buckets", [1, 2, 3, 65_536])
def test_buckets_stay_inside_the_table_and_off_padding(buckets: int) -> None:
    found = {hash_id(f"id{n}", buckets) for n in range(500)}
    assert min(found) >= 1
    assert max(found) <= max(buckets - 1, 1)


def test_ids_spread_evenly() -> None:
    counts = np.bincount([hash_id(str(n), 101) for n in range(20_000)], minlength=101)
    assert counts[0] == 0
    assert counts[1:].min() > 140
    assert counts[1:].max() < 260


def test_the_smallest_setting_still_has_a_row_for_every_bucket() -> None:
    config = FeatureConfig.of(Model(hash_buckets=2))
    assert min(config.user_buckets, config.item_buckets, config.attribute_buckets) == 2


def test_attributes_do_not_depend_on_the_order_of_names_and_are_cut() -> None:
    one = item_features("a", {"genre": ("x", "y"), "author": ("z",)}, CONFIG)
    two = item_features("a", {"author": ("z",), "genre": ("x", "y")}, CONFIG)
    many = item_features("a", {"genre": [str(n) for n in range(9)]}, CONFIG)
    assert one.attributes.tolist() == two.attributes.tolist()
    assert np.count_nonzero(one.attributes) == 3
    assert len(many.attributes) == CONFIG.n_attributes
    assert many.attributes.all()


def test_ranking_reads_the_latest_history_oldest_first() -> None:
    history = [
        HistoryItem(item="a"),
        HistoryItem(item="b", liked=True),
        HistoryItem(item="c", liked=False),
        HistoryItem(item="d"),
    ]
    features = rank_features("u", history, ["x", "y"], lookup, CONFIG)
    assert features.items[features.history].tolist() == [[lookup(i).item for i in "bcd"]]
    assert features.history_liked.tolist() == [[LIKED, DISLIKED, NOT_SAID]]
    assert features.attributes[features.history][0, 0].tolist() == lookup("b").attributes.tolist()
    assert features.items[features.item].tolist() == [lookup("x").item, lookup("y").item]
    assert features.items[0] == 0
    assert not features.attributes[0].any()


def test_short_history_and_no_candidates_are_padded() -> None:
    features = rank_features("u", [HistoryItem(item="a", liked=True)], [], lookup, CONFIG)
    assert features.history[0, 1:].tolist() == [0, 0]
    assert features.history_liked.tolist() == [[LIKED, 0, 0]]
    assert features.item.shape == (0,)
    assert features.attributes.shape == (2, 4)


def test_no_history_and_no_candidates_leave_the_padding_row() -> None:
    features = rank_features("u", [], [], lookup, CONFIG)
    assert features.items.tolist() == [0]
    assert not features.history.any()


@pytest.mark.parametrize("n_others", [0, 100])
def test_training_and_ranking_read_the_same(n_others: int) -> None:
    history = [HistoryItem(item="a", liked=True), HistoryItem(item="b")]
    ranked = rank_features("u", history, ["x"], lookup, CONFIG)
    table = ItemTable.of([lookup(i) for i in [*"abx", *map(str, range(n_others))]], CONFIG.n_attributes)
    trained = sample_features(
        torch.tensor([hash_id("u", CONFIG.user_buckets)]),
        torch.zeros(1, 0, dtype=torch.int32),
        torch.tensor([[1, 2, 0]]),
        torch.tensor([[LIKED, NOT_SAID, 0]]),
        torch.tensor([3]),
        table,
    )
    assert len(trained.items) == 4  # of a large table only the rows in use
    for name in ("user", "user_attributes", "history_liked"):
        assert torch.equal(getattr(ranked, name), getattr(trained, name)), name
    for rows in ("history", "item"):
        for values in ("items", "attributes"):
            one, two = (getattr(features, values)[getattr(features, rows)] for features in (ranked, trained))
            assert torch.equal(one, two), (rows, values)


def test_batches_of_several_users_are_joined_with_a_user_row_per_item() -> None:
    parts = [rank_features(u, [HistoryItem(item=u)], ["x", "y"], lookup, CONFIG) for u in ("u", "v")]
    joined = join_batches(parts)
    assert joined.user.shape == (4,)
    assert joined.user[0] == joined.user[1] != joined.user[2]
    assert joined.history.shape == (4, 3)
    assert joined.items[joined.history][:, 0].tolist() == [lookup(i).item for i in "uuvv"]
    assert not joined.history[:, 1:].any()
    assert joined.items[joined.item].tolist() == [lookup(i).item for i in "xyxy"]
