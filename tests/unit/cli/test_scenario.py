"""`reki scenario`: list, and the check of a good and of a wrong file."""

import json
import os

import pytest
from click.testing import CliRunner

from extractor.scenario import FOLDER, shipped_scenarios
from streams.cli.main import cli


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("REKI_")]:
        monkeypatch.delenv(variable)
    return lambda *arguments: CliRunner().invoke(cli, ["scenario", *arguments])


def test_list_names_every_shipped_scenario(run):
    assert [row["name"] for row in json.loads(run("list", "--json").stdout)] == list(shipped_scenarios())
    assert len(run("list").stdout.splitlines()) == len(shipped_scenarios())


@pytest.mark.parametrize("name", list(shipped_scenarios()))
def test_check_shows_the_prompts_and_their_sizes(run, name):
    answer = run("check", name)
    assert answer.exit_code == 0, answer.output
    report = json.loads(run("check", name, "--json").stdout)
    for prompt in report["prompts"].values():
        assert prompt in answer.stdout
    assert f"instructions {report['tokens']['shared']}," in answer.stdout
    assert "text encoder's tokenizer" in report["tokens"]["counted_by"]


def test_check_says_when_the_tokens_are_characters_by_4(run, monkeypatch, tmp_path):
    monkeypatch.setenv("REKI__ENCODER__MODEL", str(tmp_path / "none"))
    answer = run("check", "news")
    assert answer.exit_code == 0
    assert "(an estimate: characters / 4)" in answer.stdout


def test_check_lists_every_mistake_and_exits_with_2(run, tmp_path):
    file = tmp_path / "wrong.toml"
    text = (FOLDER / "books.toml").read_text()
    file.write_text(
        text.replace('name = "books"', 'name = "My Books"').replace('user_word = "reader"', "user_word = 3") + "x = 1\n"
    )
    answer = run("check", str(file))
    assert answer.exit_code == 2
    for where in ("name: got", "user_word: got", "x: got"):
        assert where in answer.stderr
    assert answer.stdout == ""
