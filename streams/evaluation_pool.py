"""The processes in which the runs of an evaluation are made. A result that is there is saved, whatever becomes of the others.

A run is a minute or so of one thread, so runs, not threads, are what the cores share. Workers import this module and not the one
that evaluates: they need no report, and start sooner.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol

import torch

from contracts.errors import RekiError
from ranker.evaluation.run import RunSpec, run
from ranker.offline import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.queues import Queue

    from contracts.ports import Matrix
    from ranker.evaluation.origin import Origin
    from ranker.evaluation.results import RunResult
    from ranker.evaluation.run_folder import RunFolder
    from ranker.evaluation.task import EvaluationTask
    from streams.datasets.prepared import Prepared

    Told = Queue[tuple[str, float] | None]  # name of a run and the part of it that is done; None ends the listening

P = ParamSpec("P")

log = logging.getLogger(__name__)

_SHOWN: Final = 5
_LISTENED_S: Final = 5.0  # to what the workers told last; a killed one may have left its lock on the queue for ever


class Watcher(Protocol):
    """Who is told how far an evaluation is. Its errors are logged, the first of them, and stop nothing."""

    def encoding(self, source: str, n_done: int, n_texts: int) -> None:
        """Texts of a source have been encoded."""
        ...

    def started(self, n_runs: int, n_done: int) -> None:
        """Training begins; some runs were finished before."""
        ...

    def moved(self, name: str, done: float) -> None:
        """A run is at this part of its work, 0 to 1. At 1 it is over, finished or failed: every run that ends comes there."""
        ...

    def finished(self, result: RunResult) -> None:
        """A run is finished and saved."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """What every worker is given once.

    Args:
        prepared: The data set; each worker reads its columns, memory-mapped, so that all share one copy.
        vectors: By text source.
        origin: Of all runs.
    """

    prepared: Prepared
    vectors: Mapping[str, Matrix]
    origin: Origin


def run_all(specs: Sequence[RunSpec], jobs: int, shared: Shared, folder: RunFolder, watcher: Watcher) -> RekiError | None:
    """Every run in a pool of processes; results are saved as they come. An interrupt ends the workers at once.

    Args:
        specs: What to run, in this order.
        jobs: Processes at most.
        shared: What all runs read.
        folder: Takes the results.
        watcher: Told of progress.

    Returns:
        None, or what to raise: which runs failed, and the first one's error. All others were finished, unless a worker was
        killed: then a pool cannot go on.

    Raises:
        TrainingError: There can be no worker.
    """
    if not specs:
        return None
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    told: Told = context.Queue()
    told.cancel_join_thread()
    careful = _Careful(watcher)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(specs)), context, initializer=_start, initargs=(shared, told))
    left: dict[Future[RunResult], RunSpec] = {}
    with _listening(told, careful):
        try:
            try:
                for spec in specs:
                    left[pool.submit(_work, spec)] = spec
            except BrokenProcessPool:
                log.debug("a worker ended before all runs were given out")  # those that were given out say so below
            except OSError as error:
                raise TrainingError(
                    f"no worker process ({error})", wanted=f"{jobs} of them", todo="give the same command again with fewer --jobs"
                ) from error
            stopped = _collect(left, folder, careful)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            _save_done(left, folder)
            raise
        pool.shutdown()
    return stopped


def _collect(left: dict[Future[RunResult], RunSpec], folder: RunFolder, careful: _Careful) -> RekiError | None:
    """Save what comes; what is saved or has failed is taken out of ``left``."""
    killed: BrokenProcessPool | None = None
    failed: dict[str, TrainingError] = {}
    order = [_name(spec) for spec in left.values()]
    for future in as_completed(list(left)):
        name = _name(left[future])
        try:
            result = future.result()
            folder.save(result)
        except BrokenProcessPool as error:
            killed = error
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is, the other runs go on
            failed[name] = _failure(name, error)
            careful.over(name)
        else:
            careful.over(name, result)
        del left[future]
    if killed is not None:
        return _of_killed(killed, [*failed, *map(_name, left.values())])
    return _first_of({name: failed[name] for name in order if name in failed})


def _failure(name: str, error: Exception) -> TrainingError:
    log.debug("the run %s failed", name, exc_info=error)
    if isinstance(error, RekiError):
        failure = TrainingError(f"{error.got}, in the run {name}", wanted=error.wanted, todo=error.todo)
    else:
        failure = TrainingError(
            f"{type(error).__name__} in the run {name}: {error}",
            wanted="a run that ends and is saved",
            todo="mend the cause and give the same command again: finished runs are kept",
        )
    failure.__cause__ = error
    return failure


def _of_killed(cause: BrokenProcessPool, unfinished: list[str]) -> TrainingError:
    error = TrainingError(
        f"a worker process that was killed (perhaps out of memory); not finished: {_listed(unfinished)}",
        wanted="workers that live until all runs are finished",
        todo="give the same command again, or fewer --jobs: finished runs are kept",
    )
    error.__cause__ = cause
    return error


def _first_of(failed: dict[str, TrainingError]) -> TrainingError | None:
    if not failed:
        return None
    (_, first), *others = failed.items()
    if not others:
        return first
    more = f"{first.got}; failed too: {_listed([name for name, _ in others])}"
    error = TrainingError(more, wanted=first.wanted, todo=first.todo)
    error.__cause__ = first.__cause__
    return error


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _save_done(left: dict[Future[RunResult], RunSpec], folder: RunFolder) -> None:
    """Results that came while the evaluation was being interrupted."""
    for future in left:
        if future.done() and not future.cancelled() and future.exception() is None:
            with suppress(RekiError, OSError):  # the interrupt is what is to be heard
                folder.save(future.result())


class _Careful:
    """A watcher whose errors stop nothing. It is told by one thread at a time, and nothing about a run that is over."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._telling = Lock()
        self._over: set[str] = set()
        self._complained = False

    def moved(self, name: str, done: float) -> None:
        with self._telling:
            if name not in self._over:
                self._tell(self._watcher.moved, name, done)

    def over(self, name: str, result: RunResult | None = None) -> None:
        """A run has ended; without a result it failed. What its worker told may come later, or never."""
        with self._telling:
            self._over.add(name)
            self._tell(self._watcher.moved, name, 1.0)
            if result is not None:
                self._tell(self._watcher.finished, result)

    def _tell(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception:
            if not self._complained:
                log.warning("progress cannot be shown; the runs go on", exc_info=True)
            self._complained = True


@contextmanager
def _listening(told: Told, careful: _Careful) -> Iterator[None]:
    """A thread that passes on what the workers tell."""

    def listen() -> None:
        while (one := told.get()) is not None:
            careful.moved(*one)

    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        told.put(None)
        thread.join(timeout=_LISTENED_S)


class _Worker:
    """What `_work` finds in its process."""

    def __init__(self, shared: Shared, told: Told) -> None:
        self.shared = shared
        self.told = told

    @cached_property
    def data(self) -> EvaluationTask:
        """Read by the first run, not at the start: an error there is this run's, and would else end the pool without a word."""
        return self.shared.prepared.task()


_WORKER: list[_Worker] = []  # of this process: one after `_start`, none in the process that evaluates


def _start(shared: Shared, told: Told) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    Thread(target=_end_with_the_parent, daemon=True).start()
    told.cancel_join_thread()  # a worker that was killed while it wrote keeps the queue's lock: no other must wait for it
    torch.set_num_threads(1)
    _WORKER.append(_Worker(shared, told))


def _end_with_the_parent() -> None:
    """Wait for the evaluation to end. A pool tells its workers so, unless it was killed: then nobody waits for their runs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(spec: RunSpec) -> RunResult:
    worker, name = _WORKER[0], _name(spec)
    shared = worker.shared
    return run(spec, worker.data, shared.vectors, shared.origin, lambda done: worker.told.put((name, done)))


def _name(spec: RunSpec) -> str:
    return f"{spec.backbone} {spec.arm} {spec.seed}"
