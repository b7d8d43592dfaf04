"""Java and Kafka's jars for the embedded broker: found, or fetched once into a cache outside the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import platformdirs
from filelock import FileLock

from contracts.errors import RekiError

KAFKA_VERSION = "4.3.0"  # as in kafka/pom.xml; a test holds them together
OLDEST_JAVA = 17  # Kafka 4's brokers need it
_FETCH_DEADLINE_S = 600

_WAYS_ON = (
    "there are three ways on: (1) install Java 17 or newer and Maven (Debian: apt install openjdk-17-jre-headless maven); "
    "(2) set KAFKA_HOME to the folder of an unpacked Apache Kafka 4 (Java 17 is still needed); "
    "(3) set kafka.bootstrap_servers to a broker that runs already"
)


class KafkaMissingError(RekiError):
    """Java, Maven or Kafka's jars are missing, so the embedded broker cannot start."""


def find_java() -> str:
    """Path of a Java of at least version 17: from JAVA_HOME, then from PATH.

    Raises:
        KafkaMissingError: With the three ways on.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if java is None:
        raise KafkaMissingError("no `java` on PATH", wanted=f"Java {OLDEST_JAVA} or newer for the embedded broker", todo=_WAYS_ON)
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - no shell, a path we found
    found = re.search(r'version "(\d+)', answer.stderr + answer.stdout)
    if found is None or int(found[1]) < OLDEST_JAVA:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        got = f"{java}: {said[0] if said else 'no version'}"
        raise KafkaMissingError(got, wanted=f"Java {OLDEST_JAVA} or newer for the embedded broker", todo=_WAYS_ON)
    return java


def kafka_jars(report: Callable[[str], None] = lambda _: None) -> Path:
    """Folder of Kafka's jars: KAFKA_HOME/libs, or the cache, filled by Maven the first time (44 MB).

    Args:
        report: Told before something slow happens.

    Raises:
        KafkaMissingError: With the three ways on.
    """
    if home := os.environ.get("KAFKA_HOME"):
        libs = Path(home) / "libs"
        if not list(libs.glob("kafka_*.jar")):
            raise KafkaMissingError(
                f"KAFKA_HOME={home} without libs/kafka_*.jar", wanted="an unpacked Apache Kafka", todo=_WAYS_ON
            )
        return libs
    cache = Path(platformdirs.user_cache_dir("reki"))
    jars = cache / f"kafka-{KAFKA_VERSION}"
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"kafka-{KAFKA_VERSION}.lock"):  # two set-ups at once: the second finds the folder
            if not jars.is_dir():
                report(f"fetching Apache Kafka {KAFKA_VERSION} with Maven (44 MB, once)")
                _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    """Fill a folder beside the final one, then rename: a cache that exists is whole."""
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaMissingError("no `mvn` on PATH", wanted=f"Maven, to fetch Apache Kafka {KAFKA_VERSION}", todo=_WAYS_ON)
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=f"{jars.name}.") as temporary:
        pom = Path(temporary) / "pom.xml"
        pom.write_bytes((files("streams.embedded") / "kafka" / "pom.xml").read_bytes())
        unfinished = Path(temporary) / "libs"
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={unfinished}", "-DincludeScope=runtime"]
        command = [maven, "-q", "-B", "-C", "-f", str(pom), *goal]  # -C: checksums must fit
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FETCH_DEADLINE_S)  # noqa: S603 - no shell
        except subprocess.TimeoutExpired as error:
            raise KafkaMissingError(
                f"no answer from Maven in {_FETCH_DEADLINE_S} s", wanted="Kafka's jars from Maven Central", todo=_WAYS_ON
            ) from error
        if answer.returncode or not list(unfinished.glob("kafka_*.jar")):
            said = "\n".join((answer.stdout + answer.stderr).strip().splitlines()[-5:])
            raise KafkaMissingError(f"Maven failed:\n{said}\n", wanted="Kafka's jars from Maven Central", todo=_WAYS_ON)
        unfinished.rename(jars)
