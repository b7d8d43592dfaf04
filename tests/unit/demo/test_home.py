import socket
from types import SimpleNamespace

import pytest

from contracts.errors import SettingsError
from contracts.settings import Settings
from streams.demo.home import MARK, prepare
from streams.embedded.programs import is_free

NEWS = SimpleNamespace(name="news", scenario="news", simulated=True)
MOVIES = SimpleNamespace(name="ml-1m", scenario="movies", simulated=False)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_new_folder_is_marked_and_the_scenario_set(tmp_path):
    settings = prepare(Settings(home=tmp_path / "home"), None, MOVIES, fresh=False)
    assert settings.home.parent == tmp_path / "home"
    assert [file.name for file in settings.home.iterdir()] == [MARK]
    assert (settings.extract.scenario, settings.rank.dataset, settings.rank.simulated) == ("movies", "ml-1m", False)
    assert settings.rank.clock == "stream"


def test_a_folder_of_others_is_never_emptied_and_ours_only_when_asked(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letter").write_text("dear")
    for fresh in (False, True):
        with pytest.raises(SettingsError, match="not empty"):
            prepare(Settings(), tmp_path / "theirs", NEWS, fresh=fresh)
    ours = prepare(Settings(), tmp_path / "ours", NEWS, fresh=False).home
    (ours / "old").touch()
    with pytest.raises(SettingsError, match="--fresh"):
        prepare(Settings(), ours, NEWS, fresh=False)
    prepare(Settings(), ours, NEWS, fresh=True)
    assert not (ours / "old").exists()
    assert (tmp_path / "theirs" / "letter").exists()


def test_taken_ports_are_replaced(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        base = Settings().model_copy(update={"rank": Settings().rank.model_copy(update={"port": port})})
        settings = prepare(base, tmp_path / "home", NEWS, fresh=False)
        assert settings.rank.port != port
        assert all(map(is_free, (settings.rank.port, settings.kafka.embedded_port, settings.kafka.embedded_port + 1)))


def test_a_broker_and_store_of_others_get_names_of_our_own(tmp_path):
    base = Settings(kafka={"bootstrap_servers": "kafka:9092", "prefix": "p."}, milvus={"uri": "http://milvus:19530"})
    settings = prepare(base, tmp_path / "home", NEWS, fresh=False)
    assert settings.kafka.prefix.startswith("p.demo-")
    assert settings.milvus.prefix.startswith("demo_")
    assert settings.bootstrap_servers == "kafka:9092"
