"""The embedded broker: the real Apache Kafka in KRaft mode, one JVM, on loopback, all of it under one folder."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from contracts.errors import UnavailableError
from contracts.settings import Settings
from streams.embedded.jars import find_java, kafka_jars
from streams.embedded.programs import LOOPBACK, Listening, Program

_FORMAT_DEADLINE_S = 60

_PROPERTIES = """\
# Written by `reki up` at every start; change settings of reki instead.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
num.partitions={partitions}
default.replication.factor=1
min.insync.replicas=1
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# one machine, small logs: few threads, and a cleaner that does not take 128 MB of the heap
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
"""


def broker_program(settings: Settings, report: Callable[[str], None] = lambda _: None) -> Program:
    """The embedded broker as a supervised program; fetches, configures and formats what is not there yet.

    Args:
        settings: ``home`` holds its data, ``kafka.embedded_port`` and the next port are where it listens.
        report: Told before something slow happens.

    Raises:
        KafkaMissingError: Without Java 17 or Kafka's jars, with the ways on.
        UnavailableError: If the data folder cannot be formatted.
    """
    java = find_java()
    jars = kafka_jars(report)
    folder = (settings.home / "kafka").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    port = settings.kafka.embedded_port
    properties = folder / "server.properties"
    log_dir = folder / "logs"
    properties.write_text(
        _PROPERTIES.format(
            host=LOOPBACK,
            port=port,
            controller_port=port + 1,
            log_dir=str(log_dir).replace("\\", "\\\\"),
            partitions=settings.kafka.partitions,
        ),
        encoding="utf-8",
    )
    logging = folder / "log4j2.yaml"
    logging.write_bytes((files("streams.embedded") / "kafka" / "log4j2.yaml").read_bytes())
    _format_once(java, jars, properties, log_dir)
    return Program(
        name="broker",
        kind="services",
        command=(
            *(java, "-Xms128m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError", f"-Dlog4j2.configurationFile={logging}"),
            *("-cp", f"{jars}/*", "kafka.Kafka", str(properties)),
        ),
        listens=(
            Listening(port=port, setting="kafka.embedded_port"),
            Listening(port=port + 1, setting="kafka.embedded_port + 1"),
        ),
        probe="port",
        stop_s=30,  # it closes its logs; killed, it would check them all at the next start
    )


def _format_once(java: str, jars: Path, properties: Path, log_dir: Path) -> None:
    """Give the data folder its cluster id, once. Only a marker written afterwards says that it was done whole."""
    marker = log_dir.with_name("formatted")
    if marker.exists():
        return
    tool = [java, "-Xmx128m", "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format"]
    cluster = _cluster_id()
    answer = subprocess.run(  # noqa: S603 - no shell, a path we found
        [*tool, "-t", cluster, "--ignore-formatted", "-c", str(properties)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_FORMAT_DEADLINE_S,
    )
    if answer.returncode:
        said = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-5:])
        todo = f"look into {log_dir}; moving it away starts an empty broker"
        raise UnavailableError(f"Kafka's StorageTool failing:\n{said}\n", wanted="a formatted data folder", todo=todo)
    marker.write_text(f"{cluster}\n", encoding="ascii")


def _cluster_id() -> str:
    """A random id as Kafka writes them: 22 letters of base64, never with a dash in front (it would read as an option)."""
    while True:
        ident = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not ident.startswith("-"):
            return ident
