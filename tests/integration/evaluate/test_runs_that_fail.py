"""Runs that diverge, are killed or cannot be saved stop no other run; a watcher that fails stops nothing. Real processes."""

import dataclasses
import errno
import json
import logging
import math
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from contracts.errors import SettingsError
from contracts.settings import Encoder
from fakes.movielens_files import write_movielens
from fakes.text_encoder import HashEncoder
from ranker.evaluation.run_folder import RunFolder
from ranker.offline import TrainingError
from streams import evaluating
from streams.cli.main import cli
from streams.evaluating import Evaluation, evaluate
from streams.evaluation_pool import run_all

pytestmark = pytest.mark.integration

SMALL = {"batch": "64", "epochs": "2", "d_embedding": "4", "d_aug": "4", "d_hidden": "8"}


class Recorder:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.begun = None
        self.moves = []
        self.results = []

    def encoding(self, source, n_done, n_texts) -> None:
        """Not looked at."""

    def started(self, n_runs, n_done) -> None:
        self.begun = (n_runs, n_done)

    def moved(self, name, done) -> None:
        self.moves.append((name, done))

    def finished(self, result) -> None:
        self.results.append(f"{result.backbone} {result.arm} {result.seed}")
        self.moves.append((self.results[-1], "finished"))


@pytest.fixture
def asked(tmp_path) -> Evaluation:
    return Evaluation(
        task="ctr",
        dataset="ml-1m",
        path=write_movielens(tmp_path / "raw"),
        backbones=("din",),
        arms=("base",),
        seeds=(1, 2, 3),
        out=tmp_path / "out",
        jobs=1,
        changes=SMALL,
        command="reki evaluate",
        cache=tmp_path / "cache",
    )


def _but(asked: Evaluation, **changes) -> Evaluation:
    return dataclasses.replace(asked, **changes)


def _saved(out: Path) -> list[str]:
    return sorted(file.name.removesuffix(".json") for file in (out / "runs").glob("*.json"))


def _missing(out: Path) -> list[str]:
    report = json.loads((out / "report.json").read_text())
    return sorted(f"{one['backbone']}.{one['arm']}.{one['seed']}" for one in report["comparison"]["missing"])


def _wait_for_no_process(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_that_diverges_stops_no_other(asked, monkeypatch) -> None:
    monkeypatch.setattr(evaluating, "ARM_RECIPES", {"ctr": {"base-long": {"learning_rate": 1e30}}})
    recipe = [part for name, value in SMALL.items() for part in ("--recipe", f"{name}={value}")]
    call = ["evaluate", "ctr", "--path", asked.path, "--out", asked.out, "--cache", asked.cache, "--backbones", "din", *recipe]
    found = CliRunner().invoke(cli, [*map(str, call), "--arms", "base-long,base", "--seeds", "2", "--jobs", "1"])
    assert found.exit_code == 1, found.output

    assert "in the run din base-long 1; failed too: din base-long 2; wanted a finite loss; lower the learning" in found.stderr
    assert "Traceback" not in found.output
    assert _saved(asked.out) == ["din.base.1", "din.base.2"]
    assert _missing(asked.out) == ["din.base-long.1", "din.base-long.2"]


def test_a_killed_worker_is_said_and_the_same_call_goes_on(asked) -> None:
    class Killer(Recorder):
        def moved(self, name, done) -> None:
            super().moved(name, done)
            if name == "din base 2" and done < 1:
                for child in multiprocessing.active_children():
                    os.kill(child.pid, signal.SIGKILL)

    slow = _but(asked, changes={**SMALL, "epochs": "40", "patience": "40"})
    with pytest.raises(TrainingError, match=r"killed \(perhaps out of memory\).*din base 2, din base 3.*fewer --jobs"):
        evaluate(slow, Encoder(), Killer())
    assert _saved(asked.out) == ["din.base.1"]
    assert _missing(asked.out) == ["din.base.2", "din.base.3"]
    first = (asked.out / "runs" / "din.base.1.json").read_bytes()
    after = Recorder()
    report = evaluate(slow, Encoder(), after)
    assert after.begun == (3, 1)
    assert sorted(after.results) == ["din base 2", "din base 3"]
    assert report.comparison.missing == ()
    assert (asked.out / "runs" / "din.base.1.json").read_bytes() == first


def test_results_that_cannot_be_saved_and_a_watcher_that_fails(asked, monkeypatch, caplog) -> None:
    class Failing(Recorder):
        def moved(self, name, done) -> None:
            super().moved(name, done)
            raise RuntimeError("no terminal")

        def finished(self, result) -> None:
            super().finished(result)
            raise RuntimeError("no terminal")

    save = RunFolder.save

    def spoilt(folder, result):
        if result.seed == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if result.seed == 2:
            result = msgspec.structs.replace(result, metrics={"auc": math.nan})
        return save(folder, result)

    monkeypatch.setattr(RunFolder, "save", spoilt)
    watcher = Failing()
    with (
        caplog.at_level(logging.WARNING, "streams.evaluation_pool"),
        pytest.raises(TrainingError, match=r"OSError in the run din base 1: .*No space left.*failed too: din base 2") as found,
    ):
        evaluate(_but(asked, seeds=(1, 2, 3, 4)), Encoder(), watcher)
    assert isinstance(found.value.__cause__, OSError)
    assert _saved(asked.out) == ["din.base.3", "din.base.4"]
    assert _missing(asked.out) == ["din.base.1", "din.base.2"]
    assert [record.message for record in caplog.records] == ["progress cannot be shown; the runs go on"]
    assert sorted(watcher.results) == ["din base 3", "din base 4"]
    for seed in range(1, 5):  # each is over once, failed or not, and nothing is told of it afterwards
        moves = [done for name, done in watcher.moves if name == f"din base {seed}"]
        assert moves[-2:] == [1.0, "finished"] if seed > 2 else moves[-1] == 1.0


def test_an_interrupt_ends_the_workers_and_keeps_what_is_finished(asked, monkeypatch) -> None:
    class Interrupting(Recorder):
        at = 0.0

        def moved(self, name, done) -> None:
            if name == "din base-long 1" and not self.at:
                self.at = time.monotonic()
                os.kill(os.getpid(), signal.SIGINT)  # at the parent alone: a terminal would send it to the workers too

    endless = {"epochs": 5_000, "patience": 5_000}
    monkeypatch.setattr(evaluating, "ARM_RECIPES", {"ctr": {"base": {"epochs": 2}, "base-long": endless}})
    changes = {name: value for name, value in SMALL.items() if name != "epochs"}
    watcher = Interrupting()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate(_but(asked, arms=("base", "base-long"), changes=changes), Encoder(), watcher)
    finally:
        signal.signal(signal.SIGINT, before)
    _wait_for_no_process(5)
    assert time.monotonic() - watcher.at < 6
    assert _saved(asked.out) == ["din.base.1"]


def test_the_encoder_is_written_down_and_another_is_refused(asked, monkeypatch) -> None:
    sent = []

    def watched(specs, jobs, shared, folder, watcher):
        sent.append(len(pickle.dumps(dataclasses.replace(shared, vectors={}))))
        return run_all(specs, jobs, shared, folder, watcher)

    monkeypatch.setattr(evaluating, "run_all", watched)
    monkeypatch.setattr(evaluating, "load_encoder", lambda settings, cache: HashEncoder(settings.model))
    known = _but(asked, arms=("base", "knowledge"), seeds=(1,))
    evaluate(known, Encoder(model="one"), Recorder())
    folder = RunFolder.read(asked.out)
    assert [plan.encoder for plan in folder.plans] == ["one"]
    assert {run.versions["encoder"] for run in folder.results()} == {"one"}
    with pytest.raises(SettingsError, match="encoder one; wanted encoder other"):
        evaluate(known, Encoder(model="other"), Recorder())
    again = Recorder()
    evaluate(known, Encoder(model="one"), again)
    assert again.begun == (2, 2)
    assert max(sent) < 2_000  # bytes: every worker reads the columns itself
