"""What can be told without starting anything: ways on without Java, ports, groups, the cache of jars."""

import http.server
import os
import re
import socket
import stat
import threading
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from contracts.errors import SettingsError
from contracts.roles import ROLES
from streams.embedded import jars, supervision
from streams.embedded.jars import KAFKA_VERSION, KafkaMissingError, find_java, kafka_jars
from streams.embedded.processes import ROLE_GROUPS, parse_groups
from streams.embedded.programs import LOOPBACK, Listening, PortTakenError, Program, answer, check_free, free_port
from streams.embedded.supervision import Running


def program(*listens):
    return Program(name="p", kind="roles", command=("true",), listens=listens, probe="port")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A PATH with nothing on it, and a way to put a script there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for variable in ("JAVA_HOME", "KAFKA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(jars.platformdirs, "user_cache_dir", lambda _: str(tmp_path / "cache"))

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)

    return put


def names_three_ways_on(error):
    return [word for word in ("Java 17", "KAFKA_HOME", "kafka.bootstrap_servers") if word not in str(error)] == []


def test_without_java_the_message_names_three_ways_on(tools):
    with pytest.raises(KafkaMissingError, match="no `java` on PATH") as caught:
        find_java()
    assert names_three_ways_on(caught.value)


def test_an_old_java_is_refused_by_its_version(tools):
    tools("java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    with pytest.raises(KafkaMissingError, match=r"11\.0\.2.*wanted Java 17") as caught:
        find_java()
    assert names_three_ways_on(caught.value)


def test_without_maven_the_message_names_three_ways_on(tools):
    with pytest.raises(KafkaMissingError, match="no `mvn` on PATH") as caught:
        kafka_jars()
    assert names_three_ways_on(caught.value)


def test_maven_that_fails_leaves_no_cache_behind(tools, tmp_path):
    tools("mvn", "echo no route to host; exit 1")
    with pytest.raises(KafkaMissingError, match="no route to host"):
        kafka_jars()
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_two_setups_at_once_fetch_once_and_both_get_the_jars(tools, tmp_path):
    tools(
        "mvn",
        f"""echo run >> {tmp_path}/runs
for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${{word#-DoutputDirectory=}}";; esac; done
/bin/mkdir -p "$out"; : > "$out/kafka_2.13.jar\"""",
    )
    found = []
    threads = [threading.Thread(target=lambda: found.append(kafka_jars())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert (found[0] / "kafka_2.13.jar").exists()
    assert (tmp_path / "runs").read_text().split() == ["run"]


def test_kafka_home_is_taken_as_it_is_and_checked(tools, tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    with pytest.raises(KafkaMissingError, match="KAFKA_HOME="):
        kafka_jars()
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-4.2.0.jar").touch()
    assert kafka_jars() == tmp_path / "libs"


def test_the_pom_fetches_the_version_that_names_the_cache():
    pom = ET.parse(Path(jars.__file__).with_name("kafka") / "pom.xml").getroot()  # noqa: S314 - our own file
    space = {"m": re.match(r"\{(.*)\}", pom.tag)[1]}
    versions = {
        d.findtext("m:artifactId", None, space): d.findtext("m:version", None, space)
        for d in pom.iterfind(".//m:dependency", space)
    }
    assert versions["kafka_2.13"] == KAFKA_VERSION


def test_a_taken_port_is_named_with_its_setting():
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"port {port} .*kafka\.embedded_port.*nothing was started"):
            check_free([program(Listening(port=port, setting="kafka.embedded_port"))])
    check_free([program(Listening(port=free_port(), setting="x"))])


def test_two_settings_with_one_port_are_named():
    port = free_port()
    with pytest.raises(PortTakenError, match=r"rank\.port and metrics_port"):
        check_free([program(Listening(port=port, setting="rank.port"), Listening(port=port, setting="metrics_port"))])


def test_free_ports_in_a_row_can_all_be_bound():
    first = free_port(3)
    for port in range(first, first + 3):
        socket.create_server((LOOPBACK, port)).close()


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (200, b"", "ready"),
        (503, b'{"missing": ["model"]}', "no model yet"),
        (503, b'{"missing": ["model", "items"]}', "silent"),
        (503, b"[", "silent"),
    ],
)
def test_a_ranker_that_lacks_its_first_model_only_is_up(status, body, wanted):
    class Role(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer((LOOPBACK, 0), Role) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert answer("http", server.server_port) == wanted
        thread.join()
    assert answer("http", server.server_port) == "silent"


def test_groups_of_the_command_line():
    assert parse_groups(["plan,extract", "rank"], ROLES) == (("plan", "extract"), ("rank",))
    assert parse_groups([], ROLES) == ()
    with pytest.raises(ValueError, match=r"unknown role 'plam'.*'rank' twice"):
        parse_groups(["plam", "rank", "rank"], ROLES)


def test_the_groups_carry_every_role_once():
    assert sorted(role for group in ROLE_GROUPS for role in group) == sorted(ROLES)


def test_rank_never_shares_a_process_with_train():
    assert [group for group in ROLE_GROUPS if {"rank", "train"} <= set(group)] == []


def test_a_recorded_pid_that_is_another_process_by_now_does_not_count(tmp_path):
    (tmp_path / "supervisor").mkdir()
    Running(pid=os.getpid(), created_s=1.0, page="", programs=()).write(tmp_path)
    assert Running.read(tmp_path) is None
    (tmp_path / "supervisor" / "running.json").write_text("{")
    assert Running.read(tmp_path) is None


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """A home too deep for a socket, and the folder in the temporary one that is taken instead."""
    monkeypatch.setattr(supervision.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / ("d" * 120), tmp_path / f"reki-{os.getuid()}"


def test_the_socket_of_a_deep_home_lies_in_a_folder_of_ours_alone(deep):
    home, folder = deep
    assert supervision._socket(home) == supervision._socket(home)
    assert supervision._socket(home).parent == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_socket_folder_that_others_may_write_to_is_refused(deep):
    home, folder = deep
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(SettingsError, match=rf"{folder}, drwxrwxrwx.*wanted drwx------ of user {os.getuid()}.*TMPDIR"):
        supervision._socket(home)


def test_a_socket_folder_of_another_user_is_refused(deep, monkeypatch):
    home, folder = deep
    folder.mkdir(mode=0o700)
    another = os.getuid() + 1
    folder.rename(folder.with_name(f"reki-{another}"))
    monkeypatch.setattr(supervision.os, "getuid", lambda: another)
    with pytest.raises(SettingsError, match=f"of user {another - 1}; wanted"):
        supervision._socket(home)


def test_a_link_in_place_of_the_socket_folder_is_refused(deep, tmp_path):
    home, folder = deep
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match=r"lrwx"):
        supervision._socket(home)
