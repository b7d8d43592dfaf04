"""The embedded default: broker, vector store and all roles on one machine, as supervised processes.

    with EmbeddedDefault(settings) as running:   # everything answers from here on
        ...                                      # everything has stopped after this

`EmbeddedServices` is the narrower one: broker and vector store only (tests, notebooks).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from contracts.errors import RekiError, UnavailableError
from contracts.settings import Settings, environment_of
from streams.embedded.broker import broker_program
from streams.embedded.milvus import milvus_program
from streams.embedded.programs import Listening, Program, check_free, reachable
from streams.embedded.supervision import Running, Supervisor, end_left_over

Roles = tuple[str, ...]

ROLE_GROUPS: tuple[Roles, ...] = (("plan", "extract", "cluster"), ("encode",), ("augment", "join", "train"), ("rank",))
"""Few processes, few that load torch, and never rank beside train: in a peer that cost 20x at p50."""

ROLE_COMMAND = (sys.executable, "-P", "-u", "-m", "streams.cli.main", "run")
_ARENAS = "2"  # of malloc (glibc): a role has a dozen threads, and an arena for each cost 70 to 180 MB
_HOPELESS_STARTS = 4  # a program that came up and died this often before it answered will not answer


class AlreadyRunningError(RekiError):
    """A `reki up` runs for this home."""


class EmbeddedServices:
    """The embedded broker and vector store; of each only where no address of another one is set.

    Args:
        settings: ``home`` and the ports decide where everything is.
        tied: Whether all of it ends with the ``with`` block and with this process, however that ends. False for `--detach`.
        report: Told of progress, one line each.
    """

    def __init__(self, settings: Settings, *, tied: bool = True, report: Callable[[str], None] = lambda _: None) -> None:
        home = settings.home.resolve()
        self.settings = settings.model_copy(update={"home": home})
        self._home = home
        self._tied = tied
        self._report = report
        self._begun: dict[str, float] = {}
        self._programs: list[Program] = []
        self._supervisor = Supervisor(home, ())

    @property
    def page(self) -> str:
        """Address of the page (served by the role rank)."""
        rank = self.settings.rank
        return f"http://{reachable(rank.host)}:{rank.port}/"

    def start(self) -> None:
        """Start everything; `wait_ready` waits until it answers.

        Raises:
            AlreadyRunningError: If one runs for this home.
            PortTakenError: If a port is taken; nothing was started.
            KafkaMissingError: If Java or Kafka's jars are missing; nothing was started.
        """
        (self._home / "supervisor").mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._home / "supervisor" / "start.lock", timeout=0):
                self._start()
        except Timeout:
            got = f"another `reki up` that is just starting in {self._home}"
            raise AlreadyRunningError(got, wanted="one per home", todo="wait for it, or use another --home") from None

    def wait_ready(self, timeout_s: float = 120) -> None:
        """Return when every program answers.

        Raises:
            UnavailableError: If one does not in time, or dies again and again; with the end of its log.
        """
        self._wait(self._programs, time.monotonic() + timeout_s)

    def stop(self) -> None:
        """Stop roles, then services, of what this object started. Data stays."""
        self._supervisor.stop()

    def alive(self) -> bool:
        """Whether the supervisor runs (it restarts everything else)."""
        return self._supervisor.alive()

    def was_told_to_end(self) -> bool:
        """Whether another process (`reki down`) stopped it."""
        return self._supervisor.was_told_to_end()

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:  # also Ctrl-C: what was started must not stay
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._tied or error is not None:
            self.stop()

    def _role_programs(self) -> list[Program]:
        return []

    def _start(self) -> None:
        if running := Running.read(self._home):
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(running.created_s))
            got = f"one that runs in {self._home}: pid {running.pid}, since {since}"
            raise AlreadyRunningError(got, wanted="one `reki up` per home", todo="`reki status`, `reki down`, or another --home")
        if n_left := end_left_over(self._home):
            self._report(f"ended {n_left} process(es) that an earlier run had left behind")
        self._programs = [*self._service_programs(), *self._role_programs()]
        check_free(self._programs)
        self._supervisor = Supervisor(self._home, self._programs)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REKI_")}
        serves_page = any(program.port == self.settings.rank.port for program in self._programs)
        page = self.page if serves_page else ""
        self._supervisor.launch({**environment, **environment_of(self.settings)}, tied=self._tied, page=page)
        self._begin(program for program in self._programs if program.kind == "services")

    def _service_programs(self) -> list[Program]:
        programs = []
        if not self.settings.kafka.bootstrap_servers:
            programs.append(broker_program(self.settings, self._report))
        if not self.settings.milvus.uri:
            programs.append(milvus_program(self.settings))
        return programs

    def _begin(self, programs: Iterable[Program]) -> None:
        for program in programs:
            self._begun[program.name] = time.monotonic()
            self._supervisor.begin(program)

    def _wait(self, programs: Sequence[Program], deadline: float) -> None:
        waiting = list(programs)
        while waiting:
            for program in list(waiting):
                answer = program.answer()
                if answer == "silent":
                    self._check_hope(program, deadline)
                    continue
                waiting.remove(program)
                took_s = time.monotonic() - self._begun[program.name]
                self._report(f"{program.name}: ready on port {program.port} after {took_s:.1f} s")
                if answer == "no model yet":
                    self._report(f"{program.name}: no model yet; it answers once `reki train` has made one")
            time.sleep(0.1 if waiting else 0)

    def _check_hope(self, program: Program, deadline: float) -> None:
        if not self._supervisor.alive():
            got = "a supervisor that ended"
        elif self._supervisor.starts(program) >= _HOPELESS_STARTS:
            got = f"{program.name} dying again and again"
        elif time.monotonic() > deadline:
            got = f"{program.name} not answering on port {program.port} in time"
        else:
            return
        log = self._home / "logs" / f"{program.name}.log"
        raise UnavailableError(
            f"{got}; the end of {log}:\n{self._supervisor.tail(program)}\n",
            wanted=f"{program.name} on port {program.port}",
            todo="mend what its log says and start again",
        )


class EmbeddedDefault(EmbeddedServices):
    """Broker, vector store, topics and the roles.

    Args:
        settings: As for `EmbeddedServices`.
        groups: Which roles share a process; all of them by default.
        tied: As for `EmbeddedServices`.
        report: As for `EmbeddedServices`.
        role_command: What runs the roles named after it. Tests give a stand-in.
    """

    def __init__(
        self,
        settings: Settings,
        groups: Sequence[Roles] = ROLE_GROUPS,
        *,
        tied: bool = True,
        report: Callable[[str], None] = lambda _: None,
        role_command: Sequence[str] = ROLE_COMMAND,
    ) -> None:
        super().__init__(settings, tied=tied, report=report)
        self._groups = groups
        self._role_command = tuple(role_command)

    def start(self) -> None:
        """Start services, make topics once the broker answers, then start the roles."""
        super().start()
        try:
            self._wait([program for program in self._programs if program.kind == "services"], time.monotonic() + 60)
            self._create_topics()
            self._begin(program for program in self._programs if program.kind == "roles")
        except BaseException:  # also Ctrl-C: a caller who got no start need not stop
            self.stop()
            raise

    def wait_ready(self, timeout_s: float = 120) -> None:
        """Return when every role answers ``/readyz`` (a ranker may still lack its first model); services do since `start`."""
        self._wait([program for program in self._programs if program.kind == "roles"], time.monotonic() + timeout_s)

    def _create_topics(self) -> None:
        from streams.topics import create_topics

        if created := create_topics(self.settings):
            self._report(f"topics: created {len(created)}")

    def _role_programs(self) -> list[Program]:
        return [self._role_program(index, roles) for index, roles in enumerate(self._groups)]

    def _role_program(self, index: int, roles: Roles) -> Program:
        metrics = Listening(port=self.settings.metrics_port + index, setting=f"metrics_port + {index}")
        rank = self.settings.rank
        serves = Listening(port=rank.port, setting="rank.port", host=reachable(rank.host))
        return Program(
            name="-".join(roles),
            kind="roles",
            command=(*self._role_command, *roles),
            listens=(serves,) if "rank" in roles else (metrics,),
            probe="http",
            environment={"REKI__METRICS_PORT": str(metrics.port), "MALLOC_ARENA_MAX": _ARENAS},
        )


def parse_groups(words: Sequence[str], known: Sequence[str]) -> tuple[Roles, ...]:
    """Role groups from the command line: ``["plan,extract", "rank"]`` -> ``(("plan", "extract"), ("rank",))``.

    Raises:
        ValueError: For a role that does not exist, or one named twice.
    """
    groups = tuple(tuple(word.split(",")) for word in words)
    named = [role for group in groups for role in group]
    unknown = sorted(set(named) - set(known))
    twice = sorted({role for role in named if named.count(role) > 1})
    if unknown or twice:
        got = ", ".join([*(f"unknown role {role!r}" for role in unknown), *(f"{role!r} twice" for role in twice)])
        raise ValueError(f"got {got}; wanted groups of {', '.join(known)}, comma separated, each role once")
    return groups
