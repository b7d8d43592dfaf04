"""What every agent does with a batch: admit, work, send, wait for the acknowledgement.

Retriable errors hold the partition, bad records do not.

faust acknowledges a batch when the agent asks for the next one, so nothing may leave here before its results are safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from faust.types import EventT
from prometheus_client import Counter

from contracts.codec import Record
from contracts.errors import RekiError
from contracts.topics import Topic
from streams.edge import Admitted, admit, dead_letter
from streams.messages import RawRecord
from streams.publisher import KafkaPublisher
from streams.retrying import a_few_tries, held, retrying

log = logging.getLogger(__name__)

RECORDS_OUT = Counter("reki_records_out", "records written by a role", ["role", "topic"])

_FAULT = 10  # records, all that a batch has: fewer may all be bad

Output = tuple[Topic, Record | str]  # a record, or the key of a tombstone
Work = Callable[[list[Admitted]], Awaitable[list[Output]]]
Settle = Callable[[list[Admitted]], None]


class FaultError(RekiError):
    """A stage fails on everything: a fault in the code, not in the records. Held, and tried again in case it was the moment's."""

    retriable = True


class BatchHandler:
    """Handles the batches of one role.

    Args:
        role: For dead letters and metrics.
        publisher: Where results go.
    """

    def __init__(self, role: str, publisher: KafkaPublisher) -> None:
        self.role = role
        self._publisher = publisher
        self._own: dict[Topic, KafkaPublisher] = {}

    def publisher(self, topic: Topic) -> KafkaPublisher:
        """The publisher of the agent that reads this topic: what it flushes is its own, whoever else sends meanwhile."""
        if topic not in self._own:
            self._own[topic] = self._publisher.own()
        return self._own[topic]

    async def handle(self, topic: Topic, events: Sequence[EventT[bytes]], work: Work, settle: Settle | None = None) -> None:
        """Admit a batch, work on it, send the results; returns when they are acknowledged.

        Args:
            topic: Where the events came from.
            events: As faust gives them.
            work: Results of records; called again with the same ones after a retriable error, and with single ones after another.
            settle: Called last: remembers what must not be remembered before the results are safe.
        """
        messages = [
            RawRecord(
                topic=topic,
                partition=event.message.partition,
                offset=event.message.offset,
                key=event.message.key,
                value=event.message.value,
                at_ms=int(event.message.timestamp * 1000),
            )
            for event in events
        ]
        publisher = self.publisher(topic)
        admitted: list[Admitted] = []
        async for attempt in retrying():
            with attempt:
                admitted = await self._admit(messages, publisher)
        async for attempt in retrying():
            with attempt:
                await self._once(admitted, work, settle, publisher)

    async def _admit(self, messages: list[RawRecord], publisher: KafkaPublisher) -> list[Admitted]:
        """The good ones; the dead letters of the others are safe then, and not written again with every try of the work."""
        admitted = admit(self.role, messages, publisher)
        if len(admitted) < len(messages):
            await asyncio.to_thread(publisher.flush)
        return admitted

    async def _once(self, admitted: list[Admitted], work: Work, settle: Settle | None, publisher: KafkaPublisher) -> None:
        try:
            outputs = await work(admitted) if admitted else []
        except Exception as error:
            if held(error):
                raise
            outputs = await self._one_by_one(admitted, work, publisher)
        self._send(outputs, publisher)
        await asyncio.to_thread(publisher.flush)
        if settle is not None:
            settle(admitted)

    async def _one_by_one(self, admitted: list[Admitted], work: Work, publisher: KafkaPublisher) -> list[Output]:
        """Find the records that a batch fails on; each has a few more tries before it becomes a dead letter."""
        outputs: list[Output] = []
        failed: list[tuple[Admitted, Exception]] = []
        for one in admitted:
            try:
                outputs += await work([one])
            except Exception as error:
                if held(error):
                    raise
                failed.append((one, error))
        self._raise_for_fault(admitted, [reason for _, reason in failed])
        for one, _ in failed:
            try:
                async for attempt in a_few_tries():
                    with attempt:
                        outputs += await work([one])
            except Exception as error:
                if held(error):
                    raise
                dead_letter(self.role, one.raw, f"{type(error).__name__}: {error}", publisher)
        return outputs

    def _raise_for_fault(self, admitted: list[Admitted], errors: list[Exception]) -> None:
        """Where a whole batch fails, and not with an error raised on purpose, the fault is in the code: hold the batch."""
        if len(errors) < max(_FAULT, len(admitted)) or any(isinstance(error, RekiError) for error in errors):
            return
        log.error("role %s fails on every record", self.role, exc_info=errors[-1])
        raise FaultError(
            f"{type(errors[-1]).__name__} on each of {len(errors)} records ({errors[-1]})",
            wanted="at least one that can be used",
            todo="mend the code and start the role again: the records wait on Kafka",
        ) from errors[-1]

    def _send(self, outputs: Sequence[Output], publisher: KafkaPublisher) -> None:
        for topic, output in outputs:
            RECORDS_OUT.labels(self.role, topic.name).inc()
            if isinstance(output, str):
                publisher.tombstone(topic, output)
            else:
                publisher.send(topic, output)


def removals_first(admitted: Sequence[Admitted]) -> tuple[list[str], list[Admitted]]:
    """Keys that were removed in a batch, and the records that came after their key's last removal (or had none).

    A stage that forgets the keys first and then works on the records comes to what one by one would have come to.
    """
    removed_at = {one.key: place for place, one in enumerate(admitted) if one.record is None}
    kept = [one for place, one in enumerate(admitted) if one.record is not None and place > removed_at.get(one.key, -1)]
    return list(removed_at), kept
