"""Settings: one tree from file and environment, every mistake in one message, secrets never shown."""

import os
from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.settings import ENV_PREFIX, Extract, Settings, environment_of, load_settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("REKI_")]:
        monkeypatch.delenv(variable)
    return tmp_path


def test_defaults_stand_without_file_and_environment():
    assert load_settings() == Settings()
    assert load_settings().bootstrap_servers == "127.0.0.1:29092"


def test_environment_goes_over_the_file_and_the_file_over_the_defaults(empty_folder, monkeypatch):
    (empty_folder / "reki.toml").write_text('[kafka]\npartitions = 6\nprefix = "a."\n')
    monkeypatch.setenv("REKI__KAFKA__PARTITIONS", "8")
    kafka = load_settings().kafka
    assert (kafka.partitions, kafka.prefix, kafka.replication) == (8, "a.", 1)


def test_all_mistakes_are_in_one_message(empty_folder, monkeypatch):
    (empty_folder / "reki.toml").write_text("[kafka]\npartitions = 0\n[nope]\nx = 1\n")
    monkeypatch.setenv("REKI__RANK__PORT", "70000")
    monkeypatch.setenv("REKI__RANK__PROT", "1")
    monkeypatch.setenv("REKI__TYPO__X", "1")
    monkeypatch.setenv("REKI__TYPO", "1")
    monkeypatch.setenv("REKI__HOME__DEEPER", "1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    wanted = [
        "kafka.partitions",
        "nope",
        "rank.port",
        "rank.prot",
        "REKI__TYPO__X",
        "REKI__TYPO:",
        "REKI__HOME__DEEPER",
        "7 wrong",
    ]
    assert [part for part in wanted if part not in message] == []


def test_a_file_that_was_asked_for_must_be_there(empty_folder, monkeypatch):
    monkeypatch.setenv("REKI_CONFIG", str(empty_folder / "other.toml"))
    with pytest.raises(SettingsError, match=r"other\.toml: no such file"):
        load_settings()


@pytest.mark.parametrize("content", [b"[kafka", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(empty_folder, content):
    (empty_folder / "reki.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"reki\.toml: not TOML"):
        load_settings()


def test_a_section_that_is_not_json_is_a_mistake_not_a_traceback(monkeypatch):
    monkeypatch.setenv("REKI__KAFKA", "localhost")
    with pytest.raises(SettingsError, match="kafka"):
        load_settings()


@pytest.mark.parametrize("key", ["api_key", "apikey", "token"])
def test_a_mistake_never_shows_a_secret(empty_folder, key):
    (empty_folder / "reki.toml").write_text(f'[extract]\n{key} = ["hunter2"]\n')
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_environment_of_gives_another_process_the_same_settings(monkeypatch):
    settings = Settings(home=Path("/somewhere"), extract=Extract(api_key="hunter2", model="m", timeout_s=1.5))
    for variable, value in environment_of(settings).items():
        assert variable.startswith(ENV_PREFIX)
        monkeypatch.setenv(variable, value)
    assert load_settings() == settings
