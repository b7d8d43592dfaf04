from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import DatasetError, SettingsError
from fakes.evaluation_task import make_task
from ranker.evaluation.arms import ARMS, SOURCES, arm_knowledge
from ranker.evaluation.columns import arm_columns
from ranker.evaluation.ctr import CtrProblem, chunked_order
from ranker.evaluation.lists import RerankProblem, initial_quality, list_samples
from ranker.evaluation.origin import Origin, find_origin
from ranker.evaluation.recipe import ARM_RECIPES, RECIPES, Recipe
from ranker.evaluation.run import RunSpec, initial_result, models_of, run
from ranker.evaluation.training import fit
from ranker.offline import TrainingError

TASK = make_task(n_users=24)
D_TEXT = 6
VECTORS = {
    source: np.random.default_rng(n)
    .standard_normal((len(TASK.items if whose == "item" else TASK.users), D_TEXT))
    .astype(np.float32)
    for n, (source, whose) in enumerate(SOURCES.items())
}
ORIGIN = Origin(commit="abc", versions={"python": "3"}, machine={"cores": 2})
SMALL = Recipe(batch=64, together=4, epochs=2, d_embedding=4, d_aug=4, d_hidden=8)


class ScriptedProblem:
    """A problem whose validation scores are given; each epoch adds one to its only weight."""

    chosen_by = "auc"

    def __init__(self, scores: list[float], loss: float = 1.0) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self._scores = scores
        self._loss = loss
        self.asked: list[str] = []

    def batches(self, draw: np.random.Generator) -> list[np.ndarray]:
        with torch.no_grad():
            self.module.weight += 1
        return [np.arange(2)]

    def loss(self, index: np.ndarray) -> torch.Tensor:
        return self.module.weight.sum() * 0 + self._loss

    def quality(self, part: str) -> dict[str, float]:
        assert not self.module.training
        self.asked.append(part)
        return {"auc": self._scores[len(self.asked) - 1]}


def columns_of(arm: str):
    return arm_columns(TASK, ARMS[arm], arm_knowledge(ARMS[arm], TASK, VECTORS), d_embedding=4)


def test_the_weights_of_the_best_epoch_are_kept_and_training_ends_after_patience() -> None:
    problem = ScriptedProblem([0.5, 0.7, 0.6, 0.65, 0.9])
    fitted = fit(problem, Recipe(epochs=5, patience=2), seed=0)
    assert (fitted.best_epoch, len(fitted.epochs)) == (1, 4)
    assert problem.module.weight.item() == pytest.approx(2)
    assert set(problem.asked) == {"validation"}


def test_all_epochs_run_while_validation_gets_better() -> None:
    told: list[float] = []
    fitted = fit(ScriptedProblem([0.5, 0.6, 0.7]), Recipe(epochs=3), seed=0, progress=told.append)
    assert (fitted.best_epoch, len(fitted.epochs)) == (2, 3)
    assert told == sorted(told)
    assert told[-1] == 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(loss: float) -> None:
    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(ScriptedProblem([0.5], loss), Recipe(epochs=1), seed=0)


@pytest.mark.parametrize("together", [1, 4, 100])
def test_an_order_names_every_sample_once_and_keeps_chunks_of_a_user(together: int) -> None:
    users = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 9, 30])
    order = chunked_order(users, together, np.random.default_rng(0))
    assert sorted(order) == list(range(len(users)))
    n_runs = 1 + int((users[order][1:] != users[order][:-1]).sum())
    assert n_runs <= sum(-(-n // together) for n in np.bincount(users))
    other = chunked_order(users, together, np.random.default_rng(1))
    assert not np.array_equal(order, other)


def test_no_samples_have_an_order_too() -> None:
    assert len(chunked_order(np.zeros(0, np.int32), 4, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("arm", sorted(ARMS))
@pytest.mark.parametrize("task", ["ctr", "rerank"])
def test_every_arm_runs_and_says_what_it_was(task: str, arm: str) -> None:
    backbone = models_of(task)[0]
    result = run(RunSpec(task=task, backbone=backbone, arm=arm, seed=3, recipe=SMALL), TASK, VECTORS, ORIGIN)
    assert result.recipe == SMALL.as_dict()
    assert (result.data_hash, result.commit, result.seed, result.arm) == (TASK.data_hash, "abc", 3, arm)
    assert set(result.metrics) >= ({"auc", "gauc", "logloss"} if task == "ctr" else {"map@1", "ndcg@7"})
    assert result.n_samples["train"] == (len(TASK.part("train")) if task == "ctr" else len(TASK.lists("train").samples))
    assert set(result.gates) == ({"user", "item"} if ARMS[arm].uses_knowledge else set())
    for load in result.gates.values():
        assert sum(load) == pytest.approx(1, abs=1e-5)
        assert len(load) == SMALL.n_shared + SMALL.n_dedicated


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    def metrics(seed: int) -> dict[str, float]:
        spec = RunSpec(task="ctr", backbone="din", arm="knowledge", seed=seed, recipe=SMALL.changed({"user_dropout": 0.3}))
        return run(spec, TASK, VECTORS, ORIGIN).metrics

    assert metrics(1) == metrics(1) != metrics(2)


def test_the_test_users_are_scored_with_the_weights_of_the_best_epoch() -> None:
    recipe = SMALL.changed({"epochs": 6, "patience": 6, "learning_rate": 0.05})
    spec = RunSpec(task="ctr", backbone="din", arm="base", seed=0, recipe=recipe)
    result = run(spec, TASK, VECTORS, ORIGIN)
    short = run(
        RunSpec(task="ctr", backbone="din", arm="base", seed=0, recipe=recipe.changed({"epochs": result.best_epoch + 1})),
        TASK,
        VECTORS,
        ORIGIN,
    )
    assert result.best_epoch < 5  # else this test says nothing
    assert short.metrics == result.metrics


def test_nothing_of_validation_or_test_users_is_trained_on() -> None:
    problem = CtrProblem(columns_of("base"), "din", SMALL, "float32")
    trained = np.concatenate(problem.batches(np.random.default_rng(0)))
    users = problem.parts["train"].user_number[trained]
    assert set(TASK.part_of_user[users]) == {0}
    lists = RerankProblem(columns_of("base"), "dlcm", SMALL, "float32").parts
    assert set(TASK.part_of_user[lists["train"].samples.user_number]) == {0}


def test_a_list_reads_the_history_before_its_earliest_sample() -> None:
    lists = list_samples(columns_of("base"), "test")
    task_lists, index = TASK.lists("test"), TASK.part("test")
    assert np.array_equal(index[lists.index], task_lists.samples)
    assert np.array_equal(index[lists.earliest], task_lists.samples.min(axis=1))
    assert np.array_equal(lists.label, TASK.label[task_lists.samples])


def test_the_initial_ranker_stands_beside_the_others() -> None:
    result = initial_result(TASK, ORIGIN)
    assert result.backbone == "initial"
    assert result.metrics == initial_quality(TASK)
    assert result.epochs == []


def test_an_unknown_model_or_number_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="dcnv2"):
        run(RunSpec(task="ctr", backbone="prm", arm="base", seed=0, recipe=SMALL), TASK, VECTORS, ORIGIN)
    with pytest.raises(SettingsError, match="hein_learning_rate"):
        SMALL.changed({"learnig_rate": "1"})
    with pytest.raises(SettingsError, match="batch"):
        SMALL.changed({"batch": "1"})
    with pytest.raises(SettingsError, match="at least one"):
        SMALL.changed({"n_shared": 0, "n_dedicated": 0})
    assert SMALL.changed({"batch": "128", "user_dropout": "0.25"}).user_dropout == pytest.approx(0.25)


@pytest.mark.parametrize("task", ["ctr", "rerank"])
def test_a_part_without_users_is_refused(task: str) -> None:
    few = replace(TASK, part_of_user=np.zeros(len(TASK.users), np.int8))
    with pytest.raises(DatasetError, match="validation, test"):
        run(RunSpec(task=task, backbone=models_of(task)[0], arm="base", seed=0, recipe=SMALL), few, VECTORS, ORIGIN)


def test_the_recipes_of_arms_name_arms_and_numbers_that_there_are() -> None:
    for task, of_arm in ARM_RECIPES.items():
        for arm, changes in of_arm.items():
            assert arm in ARMS
            RECIPES[task].changed(changes)


def test_an_origin_names_commit_machine_and_versions() -> None:
    origin = find_origin(threads=1, device="cpu")
    assert origin.commit
    assert set(origin.versions) == {"python", "reki", "torch", "numpy"}
    assert origin.machine["threads"] == 1
