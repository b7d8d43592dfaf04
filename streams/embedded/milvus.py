"""The embedded vector store: one Milvus Lite server that owns its folder, on loopback.

One worker thread: with several writers milvus-lite acknowledged rows and lost them (docs/architecture.md). Its own default
address is 0.0.0.0 without a password, so the address is always given.
"""

from __future__ import annotations

import sys

from contracts.settings import Settings
from streams.embedded.programs import LOOPBACK, Listening, Program

_MAIN = "import sys; from milvus_lite.cmdline import main; sys.exit(main())"  # its console script may not be on PATH


def milvus_program(settings: Settings) -> Program:
    """The Milvus Lite server as a supervised program; its vectors live in ``home/milvus``."""
    folder = (settings.home / "milvus").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = settings.milvus.embedded_port
    server = ("server", "--data-dir", str(folder), "--host", LOOPBACK, "--port", str(port), "--max-workers", "1")
    return Program(
        name="milvus",
        kind="services",
        command=(sys.executable, "-P", "-u", "-c", _MAIN, *server),
        listens=(Listening(port=port, setting="milvus.embedded_port"),),
        probe="port",
        stop_signal="INT",  # it closes its store on KeyboardInterrupt only
        stop_s=15,
    )
