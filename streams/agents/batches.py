"""What every agent does with a batch: admit, work, send, wait for the acknowledgement. Retriable errors hold the partition, bad records do not.

faust acknowledges a batch when the agent asks for the next one, so nothing may leave here before its results are safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from faust.types import EventT
from prometheus_client import Counter
from tenacity import AsyncRetrying, before_sleep_log, retry_if_exception, wait_exponential_jitter

from contracts.codec import Record
from contracts.errors import RekiError
from contracts.topics import Topic
from streams.edge import Admitted, RawRecord, admit, dead_letter
from streams.publisher import KafkaPublisher

log = logging.getLogger(__name__)

RECORDS_OUT = Counter("reki_records_out", "records written by a role", ["role", "topic"])

Output = tuple[Topic, Record | str]  # a record, or the key of a tombstone
Work = Callable[[list[Admitted]], Awaitable[list[Output]]]


def retriable(error: BaseException) -> bool:
    """Whether trying again may help: the error's class says so."""
    return isinstance(error, RekiError) and error.retriable


def retrying() -> AsyncRetrying:
    """Tries for ever with back-off and jitter (0.5 s to 30 s): what waits here is held by Kafka, nothing is lost."""
    return AsyncRetrying(
        retry=retry_if_exception(retriable),
        wait=wait_exponential_jitter(initial=0.5, max=30),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )


class BatchHandler:
    """Handles the batches of one role.

    Args:
        role: For dead letters and metrics.
        publisher: Where results go.
    """

    def __init__(self, role: str, publisher: KafkaPublisher) -> None:
        self.role = role
        self.publisher = publisher

    async def handle(self, topic: Topic, events: Sequence[EventT[bytes]], work: Work) -> None:
        """Admit a batch, work on it, send the results; returns when they are acknowledged."""
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
        async for attempt in retrying():
            with attempt:
                await self._once(messages, work)

    async def _once(self, messages: list[RawRecord], work: Work) -> None:
        admitted = admit(self.role, messages, self.publisher)
        try:
            outputs = await work(admitted) if admitted else []
        except Exception as error:  # noqa: BLE001 a batch holds records of many subjects: find the one it failed on
            if retriable(error):
                raise
            outputs = await self._one_by_one(admitted, work)
        self.send(outputs)
        await asyncio.to_thread(self.publisher.flush)

    async def _one_by_one(self, admitted: list[Admitted], work: Work) -> list[Output]:
        outputs: list[Output] = []
        for one in admitted:
            try:
                outputs += await work([one])
            except Exception as error:  # noqa: BLE001 whatever it is, it must not stop the partition: the record goes to dead-letters
                if retriable(error):
                    raise
                log.debug("failed on one record", exc_info=error)
                dead_letter(self.role, one.raw, f"{type(error).__name__}: {error}", self.publisher)
        return outputs

    def send(self, outputs: Sequence[Output]) -> None:
        """Send results, buffered."""
        for topic, output in outputs:
            RECORDS_OUT.labels(self.role, topic.name).inc()
            if isinstance(output, str):
                self.publisher.tombstone(topic, output)
            else:
                self.publisher.send(topic, output)
