"""The online baselines of benchmarks/: none of them may see a label before it has scored the event."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
N, FLIPPED_FROM = 64, 40


@pytest.fixture(scope="module")
def baselines():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("online_baselines")


@pytest.fixture(scope="module")
def learners(baselines):
    return importlib.import_module("online_settings").LEARNERS


@pytest.fixture
def stream(baselines):
    draw = np.random.default_rng(0)
    items = [f"i{n}" for n in draw.integers(0, 6, N)]
    return baselines.Stream(
        users=[f"u{n}" for n in draw.integers(0, 4, N)],
        items=items,
        labels=draw.integers(0, 2, N).astype(np.float32),
        event_ms=list(range(N)),
        genres={item: ("Drama", "War")[: 1 + int(item[1:]) % 2] for item in set(items)},
    )


def small(name, setting):
    return dict(setting) | ({"batch": 8} if name == "reki" else {})


@pytest.mark.parametrize(
    "name", ["item-mean", "user-item-means", "river-logistic", "river-mf", "river-fm", "vw", "vw-tuned", "reki"]
)
def test_a_score_depends_on_earlier_labels_alone(learners, stream, name):
    flipped = stream.labels.copy()
    flipped[FLIPPED_FROM:] = 1 - flipped[FLIPPED_FROM:]
    learner = learners[name]
    setting = small(name, learner.setting)
    scores = learner.scores(stream, setting)
    others = learner.scores(replace(stream, labels=flipped), setting)
    assert np.all((scores > 0) & (scores < 1))
    assert np.array_equal(scores[: FLIPPED_FROM + 1], others[: FLIPPED_FROM + 1])
    assert not np.array_equal(scores[FLIPPED_FROM + 1 :], others[FLIPPED_FROM + 1 :])


def test_every_learner_is_under_the_test_above_and_its_setting_among_those_tried(learners):
    tested = test_a_score_depends_on_earlier_labels_alone.pytestmark[0].args[1]
    assert sorted(tested) == sorted(learners)
    assert all(learner.setting in learner.tried for learner in learners.values() if learner.tried)


def test_means_by_hand(baselines):
    stream = baselines.Stream(
        users=["a", "a"], items=["x", "x"], labels=np.array([1, 1], np.float32), event_ms=[0, 1], genres={"x": ()}
    )
    # before the second event: 1 liked of 1, and 2 of 3 over all with the two imagined ones
    mean = (1 + 1.0 * 2 / 3) / (1 + 1.0)
    assert baselines.means(stream, smoothing=1.0, by_user=False) == pytest.approx([0.5, mean])
    odds = (mean / (1 - mean)) ** 2 / 2  # user and item over all
    assert baselines.means(stream, smoothing=1.0, by_user=True) == pytest.approx([0.5, odds / (1 + odds)])


def test_stream_is_in_time_order_and_ties_keep_the_users_own_order(baselines, tmp_path):
    (tmp_path / "movies.dat").write_text("1::A (1990)::Drama|War\n2::B (1991)::\n", encoding="latin-1")
    (tmp_path / "ratings.dat").write_text("1::2::4::100\n1::1::3::100\n2::1::5::50\n")
    stream = baselines.read_stream(tmp_path)
    assert list(zip(stream.users, stream.items, stream.labels.tolist(), strict=True)) == [
        ("2", "1", 1.0),
        ("1", "2", 1.0),
        ("1", "1", 0.0),
    ]
    assert stream.genres == {"1": ("Drama", "War"), "2": ()}
    assert len(baselines.read_stream(tmp_path, limit=2)) == 2


def test_missing_data_is_exit_code_2(baselines, monkeypatch, capsys, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", ["bench_online.py", "--path", str(tmp_path / "nowhere")])
    assert importlib.import_module("bench_online").main() == 2
    assert "nowhere" in capsys.readouterr().err
