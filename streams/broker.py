"""Connections to the broker in force, and the one message for a broker that does not answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, TopicAlreadyExistsError

from contracts.errors import UnavailableError
from contracts.settings import Settings

_MAX_RECORDS = 2000  # in one poll


def unavailable(settings: Settings, error: Exception) -> UnavailableError:
    """The one message for a broker that does not answer."""
    return UnavailableError(
        f"no answer from the broker at {settings.bootstrap_servers} ({type(error).__name__}: {error})",
        wanted="a Kafka broker",
        todo="start one with `reki up`, or set kafka.bootstrap_servers",
    )


@contextmanager
def answering(settings: Settings) -> Iterator[None]:
    """What the broker is asked in here.

    Raises:
        UnavailableError: It does not answer.
    """
    try:
        yield
    except KafkaError as error:
        raise unavailable(settings, error) from error


@contextmanager
def admin(settings: Settings) -> Iterator[Any]:
    """An admin client. `TopicAlreadyExistsError` comes through as it is.

    Raises:
        UnavailableError: The broker does not answer.
    """
    with answering(settings):
        client = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers, bootstrap_timeout_ms=_wait_ms(settings))
    try:
        yield client
    except TopicAlreadyExistsError:
        raise
    except KafkaError as error:
        raise unavailable(settings, error) from error
    finally:
        client.close()


def open_consumer(settings: Settings, *, max_records: int = _MAX_RECORDS, **more: Any) -> Any:
    """A kafka-python consumer that commits nothing by itself, and begins where a topic begins.

    Raises:
        UnavailableError: The broker does not answer.
    """
    with answering(settings):
        return KafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers,
            bootstrap_timeout_ms=_wait_ms(settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=max_records,
            **more,
        )


def whole_log(settings: Settings, topic: str, partitions: Collection[int] | None = None) -> Iterator[Any]:
    """Every message that is now on some partitions (None: all) of a topic, by its name on the broker.

    Raises:
        UnavailableError: The broker does not answer.
    """
    consumer = open_consumer(settings)
    try:
        with answering(settings):
            numbers = sorted(consumer.partitions_for_topic(topic) or ()) if partitions is None else sorted(partitions)
            assigned = [TopicPartition(topic, number) for number in numbers]
            consumer.assign(assigned)
            if assigned:
                consumer.seek_to_beginning(*assigned)
            ends = consumer.end_offsets(assigned) if assigned else {}
            while any(consumer.position(one) < end for one, end in ends.items()):
                for messages in consumer.poll(timeout_ms=200).values():
                    yield from messages
    finally:
        consumer.close()


def _wait_ms(settings: Settings) -> int:
    return int(settings.kafka.wait_s * 1000)
