"""The figures of online learning that have a definition to hold them against."""

from __future__ import annotations

import numpy as np
import pytest

from ranker.online_quality import OnlineQuality
from ranker.quality import gauc

RANKINGS = [([1, 0], [0.9, 0.1]), ([1, 0, 0, 0], [0.3, 0.2, 0.4, 0.5]), ([0, 0, 0], [0.1, 0.2, 0.3])]


def test_gauc_weighs_rankings_by_their_items_as_offline() -> None:
    online = OnlineQuality()
    for labels, scores in RANKINGS:
        online.update(np.array(labels, np.float64), np.array(scores))
    groups = np.repeat([0, 1, 2], [len(labels) for labels, _ in RANKINGS])
    labels, scores = (np.concatenate([one[part] for one in RANKINGS]).astype(np.float64) for part in (0, 1))
    expected = (1.0 * 2 + (1 / 3) * 4) / 6
    assert online.metrics()["gauc"] == pytest.approx(expected)
    assert gauc(groups, labels, scores) == pytest.approx(expected)


def test_a_state_from_before_the_weights_starts_gauc_again() -> None:
    online, restored = OnlineQuality(), OnlineQuality()
    online.update(np.array([1.0, 0.0]), np.array([0.9, 0.1]))
    sums, arrays = online.state()
    old = {"n": sums["n"], "loss": sums["loss"], "groups": 1.0, "group_auc": 1.0}
    restored.restore(old, arrays)
    assert restored.metrics() == {name: value for name, value in online.metrics().items() if name != "gauc"}
