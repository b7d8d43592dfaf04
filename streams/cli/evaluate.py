"""`reki evaluate`: models with and without knowledge on a public data set, over seeds, and a report."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from contracts.errors import SettingsError
from contracts.settings import load_settings

if TYPE_CHECKING:
    from ranker.evaluation.results import Task

_OPTIONS = (
    click.option("--dataset", default="ml-1m", show_default=True, help="Data set with an evaluation protocol."),
    click.option(
        "--path", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the data set's own files."
    ),
    click.option("--backbones", help="Models, separated by commas; all if not given."),
    click.option("--arms", default="base,random,metadata,knowledge", show_default=True, help="What the models know besides ids."),
    click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Runs of each model and arm."),
    click.option(
        "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the report. [evaluation/TASK-DATASET]"
    ),
    click.option("--jobs", type=click.IntRange(min=1), help="Runs at the same time, a thread each; all cores if not given."),
    click.option("--recipe", "changes", multiple=True, metavar="NAME=VALUE", help="Another hyperparameter, for every arm."),
    click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="Folder of prepared data. [the user's cache]"),
    click.option("--notes", type=click.File(encoding="utf-8"), help="Markdown file whose text ends the report."),
    click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON."),
)


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.group(name="evaluate")
def command() -> None:
    """Train models in several arms, with several seeds, and say what is beyond chance.

    A killed evaluation goes on where it was: give the same command again. More backbones, arms or seeds may be added to a folder.
    """


@command.command()
@_with_options
def ctr(**options: Any) -> None:
    """CTR prediction: AUC, AUC inside users and LogLoss of users that no model has seen."""
    _evaluate("ctr", **options)


@command.command()
@_with_options
def rerank(**options: Any) -> None:
    """Re-ranking of lists of ten: MAP and NDCG at 1, 3, 5 and 7."""
    _evaluate("rerank", **options)


def _evaluate(  # noqa: PLR0913 - one parameter an option
    task: Task,
    *,
    dataset: str,
    path: Path,
    backbones: str | None,
    arms: str,
    seeds: int,
    out: Path | None,
    jobs: int | None,
    changes: tuple[str, ...],
    cache: Path | None,
    notes: TextIO | None,
    as_json: bool,
) -> None:
    settings = load_settings()
    from ranker.evaluation.run import models_of
    from streams.evaluating import Evaluation, evaluate
    from streams.evaluation_progress import shown

    asked = Evaluation(
        task=task,
        dataset=dataset,
        path=path,
        backbones=_names(backbones) if backbones else models_of(task),
        arms=_names(arms),
        seeds=tuple(range(1, seeds + 1)),
        out=out or Path("evaluation") / f"{task}-{dataset}",
        jobs=jobs or os.cpu_count() or 1,
        changes=_changes(changes),
        cache=cache,
        notes=notes.read() if notes else "",
        command=shlex.join(["reki", *sys.argv[1:]]),
    )
    with shown() as watcher:
        report = evaluate(asked, settings.encoder, watcher)
    if as_json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(report.comparison)))
        return
    for line in report.warnings:
        print(line)
    print((asked.out / "report.md").absolute())
    print((asked.out / "report.html").absolute())


def _names(given: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))


def _changes(given: tuple[str, ...]) -> dict[str, str]:
    changes = dict(one.partition("=")[::2] for one in given)
    wrong = [one for one in given if "=" not in one]
    if wrong:
        raise SettingsError(f"--recipe {', '.join(wrong)}", wanted="NAME=VALUE", todo="correct --recipe")
    return changes
