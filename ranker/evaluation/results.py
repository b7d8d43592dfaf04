"""What one run of an evaluation says: the record that lies in one JSON file per run, so that a killed evaluation resumes."""

from __future__ import annotations

from typing import Literal

import msgspec

Task = Literal["ctr", "rerank"]


class EpochResult(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training samples.

    Args:
        loss: Mean training loss over the epoch.
        validation: Metrics of the validation users after it.
        train_s: Seconds of training, without scoring.
    """

    loss: float
    validation: dict[str, float]
    train_s: float


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """One model trained with one seed and scored once on the test users.

    Args:
        task: ``ctr`` (metrics auc, gauc, logloss) or ``rerank`` (map@k, ndcg@k).
        dataset: Name of the data set.
        backbone: A key of `ranker.backbones.BACKBONES` or `ranker.rerankers.RERANKERS`.
        arm: What knowledge the model reads: a key of `ranker.evaluation.arms.ARMS`.
        seed: Of initial weights, order of samples and dropout.
        metrics: Of the test users, with the weights of the best epoch on validation.
        epochs: In order; the first is the result after one pass.
        best_epoch: Index into ``epochs``: the best on validation.
        n_samples: Samples (ctr) or lists (rerank) by part: train, validation, test.
        n_parameters: Of backbone and HEIN together.
        samples_per_s: Training only.
        recipe: Every hyperparameter of the run.
        gates: Mean gate weight of each expert by stream (user, item), over the subjects of the test; empty without HEIN.
        commit: Of the code; ends in ``+changes`` where the work tree had some.
        data_hash: Of the prepared data.
        versions: Of python, torch, numpy, reki and, where vectors are read, the text encoder.
        machine: Processor, cores, threads used, accelerator.
    """

    task: Task
    dataset: str
    backbone: str
    arm: str
    seed: int
    metrics: dict[str, float]
    epochs: list[EpochResult]
    best_epoch: int
    n_samples: dict[str, int]
    n_parameters: int
    samples_per_s: float
    recipe: dict[str, float | int | str]
    gates: dict[str, list[float]]
    commit: str
    data_hash: str
    versions: dict[str, str]
    machine: dict[str, str | int]
