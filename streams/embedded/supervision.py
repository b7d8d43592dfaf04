"""supervisord (the PyPI package `supervisor`) under one home: its configuration, its start, its answers, its end.

The only module that knows supervisord. It restarts what dies with a growing delay (1 s, 2 s, 3 s, ...) for as long as it takes.
Nothing outlives it: every child is tied to it, and it to the process that started it (`launch.py`); what is left all the same,
because the system has no such tie, carries the home in its environment and is found by that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from contracts.errors import SettingsError, UnavailableError
from streams.embedded.programs import Program

HOME_MARK = "REKI_EMBEDDED_HOME"  # in the environment of everything started for a home
_LAUNCH = str(Path(__file__).with_name("launch.py"))
_SOCKET_PATH_MAX_BYTES = 100  # the kernel's limit is 108
_OURS_ALONE = 0o700  # mode of a folder
_STOP_DEADLINE_S = 75  # roles, then services: each with its own grace, then killed by supervisord

_CONFIGURATION = """\
; Written by `reki up` at every start; change settings of reki instead.
[supervisord]
nodaemon=true
silent=true
logfile={logs}/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile={folder}/supervisord.pid
childlogdir={logs}
[unix_http_server]
file={socket}
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

_PROGRAM = """\
[program:{name}]
command={command}
environment={environment}
autostart=false
autorestart=true
startsecs=20
startretries=1000000
stopsignal={stop_signal}
stopwaitsecs={stop_s}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A supervisord that runs: written beside its configuration, read by `reki up`, `down` and `status`."""

    pid: int
    created_s: float
    page: str
    programs: tuple[dict[str, Any], ...]

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The one that runs for this home, or None. A recorded pid that is another process by now does not count."""
        try:
            raw = json.loads(_record(home).read_text(encoding="utf-8"))
            found = cls(**{**raw, "programs": tuple(raw["programs"])})
            process = psutil.Process(found.pid)
            if process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - found.created_s) < 1:
                return found
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            pass
        return None

    def write(self, home: Path) -> None:
        """Leave the record for the other commands."""
        temporary = _record(home).with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        temporary.replace(_record(home))


class Supervisor:
    """One supervisord and its programs.

    Args:
        home: The folder of everything that lasts.
        programs: What it supervises. Nothing runs before `begin`.
    """

    def __init__(self, home: Path, programs: Sequence[Program]) -> None:
        self._home = home.resolve()
        self._programs = programs
        self._folder = self._home / "supervisor"
        self._logs = self._home / "logs"
        self._daemon: subprocess.Popen[bytes] | None = None

    def launch(self, environment: Mapping[str, str], *, tied: bool, page: str) -> Running:
        """Write the configuration and start supervisord, with no program running yet.

        Args:
            environment: Of supervisord and all its children, whole.
            tied: Whether it ends when this process does, however that happens.
            page: Address that `reki status` shows.

        Raises:
            UnavailableError: If supervisord does not answer.
        """
        (self._folder / "starts").mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        self._logs.mkdir(parents=True, exist_ok=True)
        for file in (self._folder / "starts").iterdir():
            file.unlink()
        configuration = self._folder / "supervisord.conf"
        configuration.write_text(self._configuration(), encoding="utf-8")
        # the kernel ties a child to the thread that made it, so only the main thread may ask for it
        end_with_us = signal.SIGTERM if tied and threading.current_thread() is threading.main_thread() else 0
        with (self._logs / "supervisord.stderr").open("wb") as said:
            self._daemon = subprocess.Popen(  # noqa: S603 - no shell, our own interpreter
                [
                    *(sys.executable, "-I", "-S", _LAUNCH, "-", str(int(end_with_us))),
                    *(sys.executable, "-P", "-m", "supervisor.supervisord", "-n", "-c", str(configuration)),
                ],
                env={**environment, HOME_MARK: str(self._home)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the rest in order
            )
        self._await_answer(deadline=time.monotonic() + 20)
        running = Running(
            pid=self._daemon.pid,
            created_s=psutil.Process(self._daemon.pid).create_time(),
            page=page,
            programs=tuple(
                {"name": p.name, "kind": p.kind, "port": p.port, "host": p.listens[0].host, "log": str(self._log(p.name))}
                for p in self._programs
            ),
        )
        running.write(self._home)
        return running

    def begin(self, program: Program) -> None:
        """Let supervisord start a program, and keep it running from now on."""
        with _asking(self._home) as daemon:
            daemon.supervisor.startProcess(f"{program.kind}:{program.name}", False)

    def alive(self) -> bool:
        """Whether supervisord runs."""
        return self._daemon is not None and self._daemon.poll() is None

    def was_told_to_end(self) -> bool:
        """Whether it ended in order, by a signal of another process (`reki down`), and did not break."""
        return self._daemon is not None and self._daemon.poll() == 0

    def starts(self, program: Program) -> int:
        """How often a program was started so far."""
        return n_starts(self._home, program.name)

    def tail(self, program: Program, n_lines: int = 15) -> str:
        """The last lines of a program's log."""
        try:
            with self._log(program.name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return "\n".join(f"    {line}" for line in lines[-n_lines:]) or "    (empty)"

    def stop(self) -> None:
        """Stop roles, then services, then supervisord: this one, never another that runs for the same home."""
        if self._daemon is None:
            return
        self._daemon.terminate()
        try:
            self._daemon.wait(timeout=_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait(timeout=5)
        end_left_over(self._home)
        _record(self._home).unlink(missing_ok=True)
        self._daemon = None

    def _await_answer(self, deadline: float) -> None:
        while True:
            try:
                with _asking(self._home) as daemon:
                    daemon.supervisor.getState()
            except (OSError, xmlrpc.client.Error):
                if time.monotonic() < deadline and self.alive():
                    time.sleep(0.05)
                    continue
                said = (self._logs / "supervisord.stderr").read_text(errors="replace").strip()
                todo = f"look into {self._logs}"
                raise UnavailableError(f"no answer from supervisord: {said}", wanted="a supervisor", todo=todo) from None
            return

    def _configuration(self) -> str:
        path = {"folder": _plain(self._folder), "logs": _plain(self._logs)}
        parts = [_CONFIGURATION.format(socket=_plain(_socket(self._home)), **path)]
        for program in self._programs:
            starts = str(self._folder / "starts" / program.name)
            death_signal = str(int(signal.Signals[f"SIG{program.stop_signal}"]))
            command = [sys.executable, "-I", "-S", _LAUNCH, starts, death_signal, *program.command]
            environment = ",".join(f"{key}={json.dumps(value)}" for key, value in program.environment.items())
            parts.append(
                _PROGRAM.format(
                    name=program.name,
                    command=_plain(shlex.join(command)),
                    environment=_plain(environment),
                    stop_signal=program.stop_signal,
                    stop_s=program.stop_s,
                    logs=path["logs"],
                )
            )
        for priority, kind in ((10, "services"), (20, "roles")):  # stopped from the highest down
            if names := [program.name for program in self._programs if program.kind == kind]:
                parts.append(f"[group:{kind}]\nprograms={','.join(names)}\npriority={priority}\n")
        return "\n".join(parts)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


def states(home: Path) -> dict[str, dict[str, Any]]:
    """What supervisord says of every program, by name: ``statename``, ``pid``, ``start`` and ``now`` in seconds.

    Raises:
        UnavailableError: If it does not answer.
    """
    try:
        with _asking(home) as daemon:
            return {answer["name"]: answer for answer in daemon.supervisor.getAllProcessInfo()}
    except (OSError, xmlrpc.client.Error) as error:
        todo = "`reki down`, then `reki up`"
        raise UnavailableError(f"no answer from supervisord ({error})", wanted="the state of each process", todo=todo) from error


def n_starts(home: Path, name: str) -> int:
    """How often a program was started since `reki up`."""
    try:
        return len((home.resolve() / "supervisor" / "starts" / name).read_bytes().splitlines())
    except OSError:
        return 0


def end(home: Path, running: Running) -> None:
    """Let a supervisord stop its programs in order and end; kill what does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(running.pid)
        process.terminate()
        try:
            process.wait(_STOP_DEADLINE_S)
        except psutil.TimeoutExpired:
            process.kill()
    end_left_over(home)
    _record(home).unlink(missing_ok=True)


def end_left_over(home: Path) -> int:
    """End processes of this home that no supervisord looks after any more; only those that carry its mark are ours.

    Returns:
        How many there were.
    """
    left = list(_marked(str(home.resolve())))
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=20)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return len(left)


def _marked(home: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            ours = process.environ().get(HOME_MARK) == home
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _record(home: Path) -> Path:
    return home.resolve() / "supervisor" / "running.json"


def _socket(home: Path) -> Path:
    """Supervisord's socket: beside its configuration, or in the temporary folder where that path is too long for a socket.

    Raises:
        SettingsError: Our folder there is somebody else's, or open to others.
    """
    path = home.resolve() / "supervisor" / "supervisor.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX_BYTES:
        return path
    folder = Path(tempfile.gettempdir()) / f"reki-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_OURS_ALONE)
    found = folder.lstat()  # whoever else made it could answer in supervisord's place
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != _OURS_ALONE:
        got = f"{folder}, {stat.filemode(found.st_mode)} of user {found.st_uid}"
        todo = "remove it, or set TMPDIR to a folder of your own, or home to a shorter path"
        raise SettingsError(got, wanted=f"drwx------ of user {os.getuid()}", todo=todo)
    return folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"


@contextlib.contextmanager
def _asking(home: Path) -> Iterator[Any]:
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{_socket(home)}")
    try:
        yield xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
    finally:
        transport.close()


def _plain(value: object) -> str:
    """A value without meaning for supervisord's own substitution."""
    return str(value).replace("%", "%%")
