"""What runs under a home, one plain row per process (for `reki status` and the demo's summary)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from streams.embedded.programs import answer
from streams.embedded.supervision import Running, n_starts, states

_WORDS = {"STARTING": "starting", "RUNNING": "starting", "BACKOFF": "waiting to restart", "STOPPING": "stopping"}


def overview(home: Path, running: Running) -> list[dict[str, Any]]:
    """State of every supervised process.

    Returns:
        Per process: ``name``, ``kind``, ``pid`` (None: not running), ``state`` (ready, no model yet, starting, waiting to
        restart, stopping, stopped), ``uptime_s``, ``restarts``, ``rss_bytes``, ``port``, ``log``.

    Raises:
        UnavailableError: If supervisord does not answer.
    """
    told = states(home)
    rows = []
    for program in running.programs:
        one = told[program["name"]]
        pid = one["pid"] or None
        state = _WORDS.get(one["statename"], "stopped")
        if state == "starting":
            said = answer("http" if program["kind"] == "roles" else "port", program["port"], program["host"])
            state = state if said == "silent" else said
        rows.append(
            {
                "name": program["name"],
                "kind": program["kind"],
                "pid": pid,
                "state": state,
                "uptime_s": one["now"] - one["start"] if pid else None,
                "restarts": max(0, n_starts(home, program["name"]) - 1),
                "rss_bytes": _rss_bytes(pid),
                "port": program["port"],
                "log": program["log"],
            }
        )
    return rows


def _rss_bytes(pid: int | None) -> int | None:
    try:
        return None if pid is None else int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None
