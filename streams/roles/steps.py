"""What the stateful roles (plan, extract) do with a batch, and the one order that makes a crash harmless.

    take      every record into the stage: its state changes in memory, results gather here
    send      all results, until they are acknowledged
    write     the tables' changes, until they are acknowledged
    commit    the offsets

A crash in front of `commit` brings the batch again: with the state of before (the same results come out once more; every write
behind them is idempotent), or with the state of after (the results are safe, and the records change nothing).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from contracts.errors import RecordError, RekiError
from contracts.records import DeadLetter
from contracts.topics import DEAD_LETTERS, Topic
from streams.agents.batches import RECORDS_OUT, Output
from streams.edge import Admitted, admit, dead_letter
from streams.messages import RawRecord
from streams.publisher import KafkaPublisher, wall_ms
from streams.retrying import holding
from streams.roles.groups import Group, next_offsets
from streams.roles.tables import Table

log = logging.getLogger(__name__)

_FAULT = 10  # records in a row that fail in a way nobody foresaw: the fault is in the code, not in them

Take = Callable[[Admitted], Iterable[Output]]


class FaultError(RekiError):
    """A stage fails on everything: the role ends, and starts again with the records where they were."""


class Steps:
    """The steps of one role.

    Args:
        role: For dead letters and metrics.
        publisher: Where results go; nobody else flushes it.
        tables: Written after every batch.
        stop: Ends the waiting of whatever is held.
    """

    def __init__(self, role: str, publisher: KafkaPublisher, tables: Sequence[Table[Any]], stop: threading.Event) -> None:
        self._role = role
        self._publisher = publisher
        self._tables = tables
        self._stop = stop
        self._outbox: list[Output] = []
        self._failures = 0

    def follow(
        self, member: Group, arrived: Callable[[int], None] = lambda _: None, gone: Callable[[int], None] = lambda _: None
    ) -> None:
        """Come to the partitions that are this member's now.

        Args:
            member: Of the role's group, after a poll.
            arrived: Told of each partition whose tables are there now.
            gone: Told of each partition that is another's now, before its tables are forgotten.
        """
        held = {partition for table in self._tables for partition in table.partitions}
        mine = member.partitions()
        leaving = held if member.was_out() else held - mine
        for partition in leaving:
            gone(partition)
        for table in self._tables:
            table.drop(leaving)
        coming = mine - (held - leaving)
        if not coming:
            return
        for attempt in holding(self._stop):
            with attempt:
                for table in self._tables:
                    table.recover(coming)
        for partition in sorted(coming):
            arrived(partition)

    def take(self, messages: Iterable[RawRecord], take: Mapping[Topic, Take]) -> None:
        """Take records in, each by its topic; one that fails becomes a dead letter.

        Raises:
            FaultError: Everything fails.
        """
        for one in admit(self._role, messages, self):
            try:
                self._outbox += take[one.raw.topic](one)
                self._failures = 0
            except RecordError as error:
                dead_letter(self._role, one.raw, str(error), self)
            except Exception as error:
                self._failures += 1
                if self._failures >= _FAULT:
                    raise self._fault(error) from error
                log.exception("role %s on %s[%d]@%d", self._role, one.raw.topic.name, one.raw.partition, one.raw.offset)
                dead_letter(self._role, one.raw, f"{type(error).__name__}: {error}", self)

    def add(self, outputs: Iterable[Output]) -> None:
        """Results that no record of a batch has set off."""
        self._outbox += outputs

    def dead_letter(self, letter: DeadLetter) -> None:
        """A record that cannot be used goes out with the results."""
        self._outbox.append((DEAD_LETTERS, letter))

    def finish(self, member: Group | None = None, messages: Sequence[RawRecord] = ()) -> None:
        """Make everything safe, then commit these messages; waits while the broker is away.

        Raises:
            RekiError: What held the results when the role was told to stop; nothing was committed.
        """
        if self._outbox:
            for attempt in holding(self._stop):
                with attempt:
                    self._send()
        for table in self._tables:
            for attempt in holding(self._stop):
                with attempt:
                    table.write()
        if member is not None and messages and not holding(self._stop)(member.commit, next_offsets(messages)):
            log.info("partitions moved to another worker; it starts from the last commit")

    def _send(self) -> None:
        for topic, output in self._outbox:
            try:
                if isinstance(output, str):
                    self._publisher.tombstone(topic, output)
                else:
                    self._publisher.send(topic, output)
            except RecordError as error:  # of ours, and too long: waiting would not make it shorter
                reason = f"a result of role {self._role} for this topic cannot be sent: {error}"
                letter = DeadLetter(topic=topic.name, partition=-1, offset=-1, stage=self._role, reason=reason, at_ms=wall_ms())
                self._publisher.dead_letter(letter)
        self._publisher.flush()
        for topic, _ in self._outbox:
            RECORDS_OUT.labels(self._role, topic.name).inc()
        self._outbox.clear()

    def _fault(self, error: Exception) -> FaultError:
        log.error("role %s fails on every record", self._role, exc_info=error)
        return FaultError(
            f"{type(error).__name__} on each of {self._failures} records ({error})",
            wanted="at least one that can be used",
            todo="mend the code and start the role again: the records wait on Kafka",
        )
