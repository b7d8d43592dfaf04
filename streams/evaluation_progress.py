"""The bars of an evaluation on stderr: texts encoded, runs finished, and how far each run is; a line for every finished run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ranker.evaluation.results import RunResult

_WHOLE = 100


class EvaluationProgress:
    """`streams.evaluating.Watcher` on a terminal.

    Args:
        progress: Where the bars are.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._encoding: dict[str, TaskID] = {}
        self._runs: dict[str, TaskID] = {}
        self._all: TaskID | None = None

    def encoding(self, source: str, n_done: int, n_texts: int) -> None:
        """See `Watcher.encoding`."""
        bar = self._encoding.get(source)
        if bar is None:
            bar = self._encoding[source] = self._progress.add_task(f"encoding {source}", total=n_texts)
        self._progress.update(bar, completed=n_done)

    def started(self, n_runs: int, n_done: int) -> None:
        """See `Watcher.started`."""
        self._all = self._progress.add_task("runs", total=n_runs, completed=n_done)

    def moved(self, name: str, done: float) -> None:
        """See `Watcher.moved`."""
        bar = self._runs.get(name)
        if bar is None:
            bar = self._runs[name] = self._progress.add_task(name, total=_WHOLE)
        self._progress.update(bar, completed=done * _WHOLE, visible=done < 1)

    def finished(self, result: RunResult) -> None:
        """See `Watcher.finished`."""
        if self._all is not None:
            self._progress.advance(self._all)
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
        self._progress.console.print(f"{result.backbone} {result.arm} seed {result.seed}: {metrics}", highlight=False)


@contextmanager
def shown() -> Iterator[EvaluationProgress]:
    """Bars while the context lasts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        yield EvaluationProgress(progress)
