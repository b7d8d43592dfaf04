"""`reki up` with stand-in roles: order, restarts, stopping, nothing left behind."""

import json
import os
import signal
import subprocess
import sys

import pytest

from contracts.errors import UnavailableError
from contracts.settings import environment_of
from streams.embedded.overview import overview
from streams.embedded.processes import EmbeddedDefault
from streams.embedded.programs import accepts
from streams.embedded.supervision import Running

pytestmark = pytest.mark.integration


def started(settings):
    up = cli(settings, "up", "--services-only")
    while "Ctrl-C" not in (line := up.stdout.readline()):
        assert line, "it ended early"
    return up


@pytest.fixture
def elsewhere(settings):
    """Settings that name a broker and a store that are not there: nothing but roles is started."""
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    milvus = settings.milvus.model_copy(update={"uri": "http://127.0.0.1:1"})
    return settings.model_copy(update={"kafka": kafka, "milvus": milvus})


@pytest.fixture
def no_topics(monkeypatch):
    monkeypatch.setattr("streams.topics.create_topics", lambda _: [])


def rows(home):
    return {row["name"]: row for row in overview(home, Running.read(home))}


def cli(settings, *arguments):
    environment = {**os.environ, **environment_of(settings)}
    command = [sys.executable, "-m", "streams.cli.main", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_killed_role_is_started_again_and_counted(elsewhere, role_command, no_topics, until):
    with EmbeddedDefault(elsewhere, role_command=role_command):
        before = rows(elsewhere.home)
        assert set(before) == {"plan-extract-cluster", "encode", "augment-join-train", "rank"}
        assert {row["state"] for row in before.values()} == {"ready"}
        os.kill(before["encode"]["pid"], signal.SIGKILL)
        after = until(lambda: (row := rows(elsewhere.home)["encode"])["restarts"] == 1 and row["state"] == "ready" and row)
        assert after["pid"] != before["encode"]["pid"]
        assert rows(elsewhere.home)["rank"]["restarts"] == 0


def test_a_role_that_cannot_start_is_reported_with_its_log_and_all_is_stopped(
    elsewhere, role_command, no_topics, ours, monkeypatch
):
    monkeypatch.setenv("STANDIN_FAILS", "1")
    with (
        pytest.raises(UnavailableError, match=r"(?s)dying again and again.*a role that cannot start"),
        EmbeddedDefault(elsewhere, [("plan",)], role_command=role_command),
    ):
        pass
    assert ours(elsewhere.home) == []


def test_nothing_outlives_a_killed_supervisor(elsewhere, role_command, no_topics, ours, until):
    with EmbeddedDefault(elsewhere, role_command=role_command) as running:
        os.kill(Running.read(elsewhere.home).pid, signal.SIGKILL)
        until(lambda: not running.alive() and not ours(elsewhere.home))


def test_roles_see_the_settings_that_were_given_in_code(elsewhere, role_command, no_topics):
    with EmbeddedDefault(elsewhere, [("rank",), ("plan",)], role_command=role_command) as running:
        assert accepts(elsewhere.rank.port)
        assert accepts(elsewhere.metrics_port + 1)
        assert running.page == f"http://127.0.0.1:{elsewhere.rank.port}/"


def test_up_status_a_second_up_and_ctrl_c(settings, ours):
    up = started(settings)
    status = cli(settings, "status", "--json")
    answer = json.loads(status.communicate(timeout=60)[0])
    assert [(row["name"], row["state"], row["restarts"]) for row in answer["processes"]] == [
        ("broker", "ready", 0),
        ("milvus", "ready", 0),
    ]
    assert all(row["rss_bytes"] > 1_000_000 for row in answer["processes"])
    second = cli(settings, "up", "--services-only")
    output, _ = second.communicate(timeout=60)
    assert (second.returncode, "pid" in output, "Traceback" in output) == (1, True, False)
    up.send_signal(signal.SIGINT)
    output, _ = up.communicate(timeout=90)
    assert (up.returncode, output) == (0, "stopped\n")
    assert ours(settings.home) == []


def test_detached_it_runs_on_until_down(settings, ours):
    up = cli(settings, "up", "--services-only", "--detach")
    output, _ = up.communicate(timeout=90)
    assert up.returncode == 0, output
    assert accepts(settings.kafka.embedded_port)
    down = cli(settings, "down")
    output, _ = down.communicate(timeout=90)
    assert down.returncode == 0, output
    assert ours(settings.home) == []
    assert not accepts(settings.kafka.embedded_port)


def test_down_stops_an_up_in_the_foreground_and_a_killed_up_takes_everything_with_it(settings, ours, until):
    up = started(settings)
    down = cli(settings, "down")
    output, _ = down.communicate(timeout=90)
    assert down.returncode == 0, output
    output, _ = up.communicate(timeout=30)
    assert (up.returncode, output) == (0, "stopped by another process\n")
    up = started(settings)
    up.kill()
    up.communicate(timeout=60)
    until(lambda: not ours(settings.home), deadline_s=60)
