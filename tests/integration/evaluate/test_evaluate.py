"""`reki evaluate` as its users run it: in its own process, on tiny files, killed in the middle, called wrongly."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from fakes.movielens_files import write_movielens
from streams.cli.main import cli

pytestmark = pytest.mark.integration

SMALL = ("batch=64", "epochs=2", "d_embedding=4", "d_aug=4", "d_hidden=8")


def _call(task: str, path: Path, out: Path, *more: str) -> list[str]:
    recipe = [part for one in SMALL for part in ("--recipe", one)]
    return [
        sys.executable,
        "-m",
        "streams.cli.main",
        "evaluate",
        task,
        "--path",
        str(path),
        "--out",
        str(out),
        "--cache",
        str(out.parent / "cache"),
        *recipe,
        *more,
    ]


def _env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "REKI__HOME": str(tmp_path / "home")}


def _run(command: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=_env(tmp_path), capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def raw(tmp_path):
    return write_movielens(tmp_path / "raw")


def test_a_report_of_every_arm_and_a_second_call_that_trains_nothing(raw, tmp_path) -> None:
    out = tmp_path / "out"
    command = _call("ctr", raw, out, "--backbones", "din,deepfm", "--arms", "base,random,knowledge", "--seeds", "2")
    first = _run(command, tmp_path)
    assert first.returncode == 0, first.stderr
    runs = {file: file.stat().st_mtime_ns for file in (out / "runs").iterdir()}
    assert len(runs) == 2 * 3 * 2
    report = json.loads((out / "report.json").read_text())
    assert {one["arm"] for one in report["comparison"]["summaries"]} == {"base", "random", "knowledge"}
    assert "reki evaluate ctr" in (out / "report.md").read_text()
    assert (out / "report.html").is_file()
    assert list((out / "plots").glob("*.png"))
    notes = tmp_path / "notes.md"
    notes.write_text("Said by hand.")
    again = _run([*command, "--notes", str(notes), "--json"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert {file: file.stat().st_mtime_ns for file in (out / "runs").iterdir()} == runs
    assert "Said by hand." in (out / "report.md").read_text()
    assert json.loads(again.stdout)["summaries"] == report["comparison"]["summaries"]


def test_re_rankers_stand_beside_the_initial_ranker(raw, tmp_path) -> None:
    out = tmp_path / "out"
    found = _run(_call("rerank", raw, out, "--backbones", "prm", "--arms", "base,item-knowledge", "--seeds", "1"), tmp_path)
    assert found.returncode == 0, found.stderr
    summaries = json.loads((out / "report.json").read_text())["comparison"]["summaries"]
    assert {(one["backbone"], one["arm"]) for one in summaries} == {
        ("initial", "base"),
        ("prm", "base"),
        ("prm", "item-knowledge"),
    }


def test_a_killed_evaluation_goes_on_and_leaves_no_process(raw, tmp_path) -> None:
    out = tmp_path / "out"
    command = _call("ctr", raw, out, "--backbones", "din", "--arms", "base", "--seeds", "15", "--jobs", "1")
    process = subprocess.Popen(command, env=_env(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: len(list((out / "runs").glob("*.json"))) >= 2 or process.poll() is not None)
        assert process.poll() is None, "it was done before it could be killed"
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {file.name: file.read_bytes() for file in (out / "runs").glob("*.json")}
    assert 2 <= len(before) < 15
    _wait(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))
    assert _run(command, tmp_path).returncode == 0
    after = {file.name: file.read_bytes() for file in (out / "runs").glob("*.json")}
    assert len(after) == 15
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--backbones", "dinn"), "wanted some of din"),
        (("--arms", "base,magic"), "item-knowledge"),
        (("--recipe", "learning=1"), "hein_learning_rate"),
        (("--recipe", "batch"), "NAME=VALUE"),
        (("--dataset", "movies"), "ml-1m"),
    ],
)
def test_a_wrong_call_says_what_is_there_and_leaves_no_folder(raw, tmp_path, more: tuple[str, ...], said: str) -> None:
    found = _here(_call("ctr", raw, tmp_path / "out", *more))
    assert found.exit_code == 2
    assert said in found.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_things_and_missing_data_are_refused(raw, tmp_path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    found = _here(_call("ctr", raw, other, "--backbones", "din", "--arms", "base"))
    assert found.exit_code == 2
    assert "thesis.tex" in found.stderr
    assert sorted(file.name for file in other.iterdir()) == ["thesis.tex"]
    (raw / "ratings.csv.gz").unlink()
    missing = _here(_call("ctr", raw, tmp_path / "out", "--arms", "base"))
    assert missing.exit_code == 1
    assert "ratings" in missing.stderr


def _here(command: list[str]) -> Result:
    """Without a process of its own: an import of torch costs more than all that these tests do."""
    return CliRunner().invoke(cli, command[3:])


def _wait(done) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
