"""The frame of the command line: starts at once, one message per error, the exit codes."""

import json
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from contracts.errors import DatasetError, SettingsError
from streams.cli.main import COMMANDS, cli

HEAVY = ("torch", "faust", "pymilvus", "river", "kafka", "numpy", "transformers", "pydantic", "openai", "fastapi")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("REKI_")]:
        monkeypatch.delenv(variable)
    return lambda *arguments: CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_help_imports_nothing_heavy(arguments):
    code = f"""
import sys
from streams.cli.main import main
try:
    main({arguments!r})
finally:
    print("heavy:", [name for name in {HEAVY!r} if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("name", ["up", "down", "status", "topics", "knowledge", "scenario", "schema", "settings"])
def test_the_light_commands_import_nothing_heavy(name):
    heavy = [name for name in HEAVY if name != "pydantic"]
    code = f"""
import sys
from streams.cli.main import main
try:
    main([{name!r}, "--help"])
finally:
    print("heavy:", [name for name in {heavy!r} if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_of_the_table_explains_itself(run, name):
    answer = run(name, "--help")
    assert answer.exit_code == 0, answer.output
    assert "Usage: cli" in answer.output


def test_the_help_lists_every_command(run):
    output = run("--help").output
    assert [name for name in COMMANDS if f"\n  {name} " not in output] == []


@pytest.mark.parametrize(("error", "code"), [(SettingsError, 2), (DatasetError, 1)])
def test_an_error_of_ours_is_one_message_and_an_exit_code(run, monkeypatch, error, code):
    @click.command()
    def failing():
        raise error("a stone", wanted="bread", todo="ask again")

    monkeypatch.setattr("streams.cli.schema.command", failing)
    answer = run("schema")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (code, "", "reki: got a stone; wanted bread; ask again\n")


def test_a_wrong_call_and_a_wrong_setting_exit_with_2(run, monkeypatch):
    assert run("nope").exit_code == 2
    assert run("schema", "nope").exit_code == 2
    assert run("--config", "nope.toml", "settings").exit_code == 2
    monkeypatch.setenv("REKI__NOPE", "1")
    assert run("settings").exit_code == 2


def test_config_and_home_hold_for_one_call_only(run, tmp_path):
    (tmp_path / "mine.toml").write_text("[kafka]\npartitions = 7\n")
    answer = run("--config", "mine.toml", "--home", "elsewhere", "settings", "--json")
    tree = json.loads(answer.stdout)
    assert (tree["kafka"]["partitions"], tree["home"]) == (7, str(tmp_path / "elsewhere"))
    assert "REKI__HOME" not in os.environ
    assert "REKI_CONFIG" not in os.environ
