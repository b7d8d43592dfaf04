"""Throw-away homes with free ports, and stand-in roles, for tests of the embedded default."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from contracts.settings import Kafka, Milvus, Rank, Settings
from streams.embedded.programs import free_port
from streams.embedded.supervision import HOME_MARK, end_left_over

STANDIN_ROLE = (sys.executable, str(Path(__file__).with_name("standin_role.py")))


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    yield Settings(
        home=home,
        metrics_port=free_port(4),
        kafka=Kafka(embedded_port=free_port(2), wait_s=10),
        milvus=Milvus(embedded_port=free_port()),
        rank=Rank(port=free_port()),
    )
    end_left_over(home)  # a failed test must not leave a broker behind


@pytest.fixture
def role_command():
    return STANDIN_ROLE


@pytest.fixture
def ours():
    """Pids of everything that runs for a home."""

    def find(home):
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(HOME_MARK) == str(home.resolve())
                if marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.Error, OSError):
                continue
        return found

    return find


@pytest.fixture
def until():
    """Wait for a condition, with a deadline."""

    def wait(condition, deadline_s=30):
        end = time.monotonic() + deadline_s
        while not (found := condition()):
            assert time.monotonic() < end, "not in time"
            time.sleep(0.05)
        return found

    return wait
