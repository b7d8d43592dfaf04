"""A real Milvus Lite server for the vector stores' suite: started once, on loopback, ended by its pid."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_START_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MilvusLite:
    """One server process; `kill` is kill -9, `start` starts it again on the same folder and port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = Path(sys.executable).with_name("milvus-lite")
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--max-workers", "1", "--data-dir", str(self.folder / "rows")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen([str(program), "server", *options], stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "milvus-lite did not open its port"

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=30)
            self.process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
        except OSError:
            return False
        return True


def _running(folder: Path) -> Iterator[MilvusLite]:
    server = MilvusLite(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    """The server that the whole session shares: use random collection names."""
    yield from _running(tmp_path_factory.mktemp("milvus"))


@pytest.fixture
def own_milvus(tmp_path: Path) -> Iterator[MilvusLite]:
    """A server of this test alone, to be killed."""
    yield from _running(tmp_path)
