"""The commands that only read: schema, topics list, settings, status, down."""

import json
import os
import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from contracts import codec
from contracts.records import InteractionEvent
from contracts.topics import INTERACTIONS, TOPICS
from streams.cli.main import cli
from streams.cli.settings import to_markdown

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("REKI_")]:
        monkeypatch.delenv(variable)
    return lambda *arguments: CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
def test_every_schema_is_a_schema_and_whole(run, topic):
    schema = json.loads(run("schema", topic).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    references = [part.split('"')[0] for part in json.dumps(schema).split('"$ref": "#/$defs/')[1:]]
    assert set(references) <= set(schema["$defs"])


def test_the_schema_takes_what_the_codec_takes_and_refuses_what_it_refuses(run):
    validator = jsonschema.Draft202012Validator(json.loads(run("schema", "interactions").stdout))
    event = InteractionEvent(user="u", item="i", action="click", event_ms=1)
    good = json.loads(codec.encode(INTERACTIONS, event))
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "action": "stare"})
    assert not validator.is_valid({**good, "event_ms": -1})


def test_topics_list_shows_each_topic_with_the_prefix(run, monkeypatch):
    monkeypatch.setenv("REKI__KAFKA__PREFIX", "test.")
    rows = json.loads(run("topics", "list", "--json").stdout)
    assert [row["name"] for row in rows] == [f"test.{topic.name}" for topic in TOPICS]
    assert len(run("topics", "list").stdout.splitlines()) == len(TOPICS)


def test_settings_masks_secrets_and_prints_toml_that_reads_back(run, monkeypatch):
    monkeypatch.setenv("REKI__EXTRACT__API_KEY", "hunter2")
    answer = run("settings")
    assert "hunter2" not in answer.stdout + run("settings", "--json").stdout
    assert tomllib.loads(answer.stdout) == json.loads(run("settings", "--json").stdout)


def test_the_settings_page_is_up_to_date():
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == to_markdown(), "run: reki settings --markdown > docs/settings.md"


def test_status_and_down_say_that_nothing_runs(run):
    assert run("status").exit_code == 1
    answer = run("status", "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["running"] is False
    assert run("down").exit_code == 1
