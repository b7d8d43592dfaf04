"""Messages as stages get them, and a publisher that keeps what it is told."""

import itertools

import pytest

from contracts.codec import encode, key_of
from extractor.scenario import load_scenario
from fakes.publisher import FakePublisher
from streams.edge import Admitted
from streams.messages import RawRecord


@pytest.fixture(scope="session")
def news():
    return load_scenario("news")


@pytest.fixture
def publisher():
    return FakePublisher()


@pytest.fixture
def admitted():
    """Makes an admitted record (a key instead: its tombstone), offsets ascending."""
    offsets = itertools.count()

    def make(topic, record, at_ms=1_000, partition=0):
        key = record.encode() if isinstance(record, str) else key_of(topic, record)
        value = None if isinstance(record, str) else encode(topic, record)
        raw = RawRecord(topic=topic, partition=partition, offset=next(offsets), key=key, value=value, at_ms=at_ms)
        return Admitted(record=None if isinstance(record, str) else record, raw=raw)

    return make
