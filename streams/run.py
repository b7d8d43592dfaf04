"""Runs roles in this process: waits for the broker, builds them, starts them, and ends when one of them ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event

import mode
from prometheus_client import disable_created_metrics

from contracts.errors import UnavailableError
from contracts.settings import Settings
from streams.publisher import KafkaPublisher
from streams.retrying import retrying_until
from streams.status import HttpThread, status_app
from streams.topics import missing_topics
from streams.wiring import Part, build

log = logging.getLogger(__name__)

_QUIET = ("kafka", "aiokafka", "faust", "mode", "uvicorn", "httpx", "httpx2", "pymilvus")


def run_roles(settings: Settings, roles: Sequence[str]) -> int:
    """Run roles until SIGTERM or SIGINT (returns 0), or until one of them fails (returns 1; a supervisor starts it again).

    Args:
        settings: The settings in force.
        roles: Names out of `contracts.roles.ROLES`, each once.
    """
    logging.basicConfig(
        level=settings.logs.level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S"
    )
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a counter's birthday is noise
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    publisher = _connected(settings)
    parts = [build(role, settings, publisher.own()) for role in dict.fromkeys(roles)]
    http = _http(settings, parts)
    http.start()
    log.info("roles %s started", ", ".join(part.role for part in parts))
    services = [service for part in parts for service in part.services]
    worker = mode.Worker(*services, override_logging=False, redirect_stdouts=False, quiet=True, daemon=True)
    try:
        worker.execute_from_commandline()
    except SystemExit as end:
        return int(end.code or 0) if isinstance(end.code, int | None) else 1
    finally:
        http.stop()
        for part in parts:
            for close in part.close:
                close()
        publisher.close()


def _connected(settings: Settings) -> KafkaPublisher:
    """A producer, once the broker answers and its topics are there; until then a message and another try."""
    for attempt in retrying_until(Event()):
        with attempt:
            missing = missing_topics(settings)
            if missing:
                raise UnavailableError(
                    f"no topic {', '.join(missing)} on {settings.bootstrap_servers}",
                    wanted="all topics",
                    todo="run `reki topics create`",
                )
            return KafkaPublisher(settings)
    raise AssertionError("retrying_until ends with a result or an error")


def _http(settings: Settings, parts: Sequence[Part]) -> HttpThread:
    """The ranker's server where this process ranks, else the three pages of a role."""
    for part in parts:
        if part.http is not None:
            return HttpThread(part.http, settings.rank.host, settings.rank.port)
    return HttpThread(
        status_app(lambda: {part.role: words for part in parts if (words := part.missing())}),
        "127.0.0.1",
        settings.metrics_port,
    )
