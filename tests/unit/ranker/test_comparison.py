"""Means, paired differences and verdicts, against numpy and at their boundaries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import SettingsError
from ranker.evaluation.comparison import RunKey, compare, key_of
from ranker.evaluation.results import RunResult
from ranker.evaluation.verdicts import score, verdict, yardstick

POWERS = [2.0**-k for k in range(5)]  # exact in binary: a boundary is a boundary


def run(arm="base", seed=0, *, backbone="din", task="ctr", **metrics):
    return RunResult(
        task=task,
        dataset="ml-1m",
        backbone=backbone,
        arm=arm,
        seed=seed,
        metrics=metrics or {"auc": 0.5},
        epochs=[],
        best_epoch=0,
        n_samples={"train": 10},
        n_parameters=1,
        samples_per_s=1.0,
        recipe={"lr": 0.001},
        gates={},
        commit="abc",
        data_hash="d",
        versions={},
        machine={},
    )


def arm_runs(arm, values, metric="auc"):
    return [run(arm, seed, **{metric: value}) for seed, value in enumerate(values)]


def only(comparison, arm="knowledge", reference="base"):
    (found,) = [one for one in comparison.differences if (one.arm, one.reference) == (arm, reference)]
    return found


finite = st.floats(-10, 10)
two_arms = st.integers(2, 8).flatmap(lambda n: st.tuples(*(st.lists(finite, min_size=n, max_size=n) for _ in range(2))))


@given(two_arms)
def test_statistics_are_those_of_numpy(arms):
    arm, reference = arms
    found = only(compare(arm_runs("knowledge", arm) + arm_runs("base", reference)))
    differences = np.array(arm) - np.array(reference)
    pooled = np.sqrt((np.var(arm, ddof=1) + np.var(reference, ddof=1)) / 2)
    near = {"rel": 1e-9, "abs": 1e-9}
    assert found.n == len(arm)
    assert found.mean == pytest.approx(differences.mean(), **near)
    assert found.sd == pytest.approx(differences.std(ddof=1), **near)
    assert found.yardstick == pytest.approx(max(differences.std(ddof=1), pooled), **near)
    if abs(np.mean(reference)) > 1e-3:
        assert found.percent == pytest.approx(100 * differences.mean() / np.mean(reference), rel=1e-6, abs=1e-6)


@given(st.lists(finite, min_size=2, max_size=9))
def test_a_score_is_mean_and_sd_with_ddof_1(values):
    found = score(values)
    assert (found.mean, found.sd) == (pytest.approx(np.mean(values), abs=1e-9), pytest.approx(np.std(values, ddof=1), abs=1e-9))


@given(two_arms)
def test_exchanging_the_arms_turns_the_verdict_round(arms):
    arm, reference = arms
    there = only(compare(arm_runs("knowledge", arm) + arm_runs("base", reference)))
    back = only(compare(arm_runs("knowledge", reference) + arm_runs("base", arm)))
    turned = {"beyond": "worse beyond", "worse": "beyond", "within": "within"}
    assert back.verdict.startswith(turned[there.verdict.split()[0]])


def test_one_value_has_no_sd():
    assert (score([0.7]).mean, score([0.7]).sd, score([0.7]).n) == (0.7, None, 1)


@pytest.mark.parametrize("unit", POWERS)
@pytest.mark.parametrize(("step", "said"), [(0, "within 3 sd"), (1, "beyond 3 sd"), (-1, "within 3 sd")])
def test_exactly_three_sd_is_within(unit, step, said):
    base = [0.0, 0.0, 0.0]
    lift = 3 + step / 1024
    knowledge = [unit * (lift + off) for off in (-1, 0, 1)]  # sd of the pairs: exactly one unit
    assert only(compare(arm_runs("knowledge", knowledge) + arm_runs("base", base))).verdict == said


@pytest.mark.parametrize(
    ("mean", "sd", "n", "metric", "said"),
    [
        (4.0, 1.0, 3, "auc", "beyond 3 sd"),
        (-4.0, 1.0, 3, "auc", "worse beyond 3 sd"),
        (-4.0, 1.0, 3, "logloss", "beyond 3 sd"),
        (4.0, 1.0, 3, "logloss", "worse beyond 3 sd"),
        (3.0, 1.0, 5, "ndcg@7", "within 3 sd"),
        (4.0, 1.0, 2, "map@1", "beyond 3 sd (2 seeds)"),
        (-4.0, 1.0, 2, "map@1", "worse beyond 3 sd (2 seeds)"),
        (1.0, 1.0, 2, "gauc", "within 3 sd (2 seeds)"),
        (4.0, None, 1, "auc", "one seed: no verdict"),
        (0.0, None, 0, "auc", "no pair: no verdict"),
        (0.0, 0.0, 3, "auc", "within 3 sd"),
        (0.1, 0.0, 3, "auc", "beyond 3 sd"),
    ],
)
def test_verdicts(mean, sd, n, metric, said):
    assert verdict(mean, sd, n, metric=metric) == said


def test_paired_sd_near_zero_by_luck_does_not_make_a_lift():
    base = [0.70, 0.72, 0.74]
    knowledge = [value + 0.01 for value in base]
    assert yardstick(knowledge, base) == pytest.approx(0.02)
    assert only(compare(arm_runs("knowledge", knowledge) + arm_runs("base", base))).verdict == "within 3 sd"


def test_arms_that_seeds_move_apart_are_measured_by_their_pairs():
    assert yardstick([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == 2.0


def test_a_missing_pair_is_counted_and_listed():
    runs = arm_runs("base", [0.7, 0.71, 0.72]) + arm_runs("knowledge", [0.8, 0.81])
    planned = [key_of(run(arm, seed)) for arm in ("base", "knowledge", "random") for seed in range(4)]
    found = compare(runs, planned)
    assert (only(found).n, only(found).missing_seeds) == (2, (2, 3))
    assert [(key.arm, key.seed) for key in found.missing] == [
        *(("base", 3), *(("random", seed) for seed in range(4))),
        *(("knowledge", 2), ("knowledge", 3)),
    ]


def test_arms_without_a_common_seed_have_no_verdict():
    found = only(compare([run("base", 0), run("knowledge", 1)]))
    assert (found.n, found.mean, found.percent, found.verdict) == (0, None, None, "no pair: no verdict")


def test_a_metric_that_one_run_lacks_is_a_missing_pair():
    runs = [run("base", 0, auc=0.7, logloss=0.5), run("base", 1, auc=0.7, logloss=0.5)]
    runs += [run("knowledge", 0, auc=0.8, logloss=0.4), run("knowledge", 1, logloss=0.4)]
    by_metric = {one.metric: one for one in compare(runs).differences}
    assert (by_metric["auc"].n, by_metric["auc"].missing_seeds, by_metric["logloss"].n) == (1, (1,), 2)


def test_controls_are_compared_with_base_and_knowledge_with_all():
    arms = ("base", "base-long", "random", "metadata", "attributes", "knowledge")
    found = compare([run(arm, seed) for arm in arms for seed in range(2)]).differences
    assert {one.reference for one in found if one.arm == "random"} == {"base"}
    assert {one.reference for one in found if one.arm == "knowledge"} == set(arms) - {"knowledge"}
    assert not [one for one in found if one.arm == "base"]


def test_an_arm_with_the_longer_history_meets_the_controls_that_have_it():
    arms = ("base", "base-long", "random", "metadata", "metadata-long", "item-knowledge-long")
    found = compare([run(arm, seed) for arm in arms for seed in range(2)]).differences
    assert {one.reference for one in found if one.arm == "item-knowledge-long"} == {"base", "base-long", "metadata-long"}
    assert {one.reference for one in found if one.arm == "metadata-long"} == {"base", "base-long"}
    assert {one.reference for one in found if one.arm == "base-long"} == {"base"}


def test_only_what_was_planned_is_missing():
    runs = [run(arm, seed) for arm, seed in (("base", 0), ("base", 1), ("random", 0))]
    planned = {key_of(one) for one in runs}
    assert compare(runs, planned).missing == ()
    assert [(key.arm, key.seed) for key in compare(runs).missing] == [("random", 1)]


def test_the_answer_names_what_is_not_beaten():
    levels = {"base": 0.70, "random": 0.69, "metadata": 0.80, "knowledge": 0.80, "item-knowledge": 0.9}
    runs = [run(arm, seed, auc=level + seed / 1000) for arm, level in levels.items() for seed in range(3)]
    answers = {one.arm: one for one in compare(runs).answers}
    assert (answers["knowledge"].beats_all, answers["knowledge"].not_beaten) == ("no", ("metadata",))
    assert (answers["item-knowledge"].beats_all, answers["item-knowledge"].not_beaten) == ("yes", ())
    assert answers["knowledge"].absent == ("base-long", "attributes")
    assert set(answers) == {"knowledge", "item-knowledge"}


def test_beating_base_alone_is_no_yes():
    runs = arm_runs("base", [0.7, 0.7, 0.7]) + arm_runs("knowledge", [0.8, 0.8, 0.8])
    (answer,) = compare(runs).answers
    assert answer.beats_all == "no verdict"


def test_one_seed_answers_nothing():
    (answer,) = compare([run("base", auc=0.7), run("random", auc=0.6), run("knowledge", auc=0.8)]).answers
    assert (answer.beats_all, answer.undecided, answer.n) == ("no verdict", ("base", "random"), 1)


def test_backbones_and_tasks_are_kept_apart_and_the_initial_ranker_comes_first():
    runs = [run("base", seed, backbone=name, task="rerank", **{"map@1": 0.5}) for name in ("prm", "dlcm") for seed in range(2)]
    runs += [run("base", 0, backbone="initial", task="rerank", **{"map@1": 0.4}), run("knowledge", 0)]
    found = compare(runs)
    assert [(one.task, one.backbone) for one in found.summaries] == [
        *(("ctr", "din"), ("rerank", "initial")),
        *(("rerank", "prm"), ("rerank", "dlcm")),
    ]
    assert found.differences == ()


def test_the_same_run_twice_is_refused():
    with pytest.raises(SettingsError, match="two runs"):
        compare([run(), run()])


def test_a_metric_without_direction_is_refused():
    with pytest.raises(SettingsError, match="'recall'"):
        compare([run(recall=0.5)])


def test_keys_sort_by_backbone_arm_and_seed():
    keys = [key_of(run(arm, seed)) for arm, seed in (("b", 1), ("a", 10), ("a", 9))]
    assert [(key.arm, key.seed) for key in sorted(keys)] == [("a", 9), ("a", 10), ("b", 1)]
    assert isinstance(keys[0], RunKey)
