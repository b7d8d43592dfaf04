"""A failed delivery is told to whoever sent the record, not to whoever flushes first."""

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from contracts.errors import RecordError, UnavailableError
from contracts.records import ItemEvent
from contracts.settings import load_settings
from contracts.topics import ITEMS
from streams.publisher import KafkaPublisher

ITEM = ItemEvent(item="n1", published_ms=1, title="T")


class FakeFuture:
    """A delivery that has ended."""

    def __init__(self, error=None):
        self.error = error

    def get(self, timeout):
        assert timeout >= 0
        if self.error:
            raise self.error

    def succeeded(self):
        return self.error is None


class FakeProducer:
    """Stands in for kafka-python's producer; ``fate`` is what becomes of the next record."""

    def __init__(self):
        self.fate = None

    def send(self, _topic, **_record):
        if isinstance(self.fate, MessageSizeTooLargeError):
            raise self.fate
        return FakeFuture(self.fate)


@pytest.fixture
def producer():
    return FakeProducer()


@pytest.fixture
def publisher(producer):
    return KafkaPublisher(load_settings(), producer)


def test_a_failure_is_told_to_the_one_whose_record_it_was(publisher, producer):
    join, train = publisher.own(), publisher.own()
    producer.fate = KafkaTimeoutError()
    join.send(ITEMS, ITEM)
    producer.fate = None
    train.send(ITEMS, ITEM)
    train.flush()
    with pytest.raises(UnavailableError):
        join.flush()
    join.flush()  # told once; what was sent since the flush before has to be sent again


def test_a_failure_survives_the_forgetting_of_what_succeeded(publisher, producer, monkeypatch):
    monkeypatch.setattr("streams.publisher._KEPT_FUTURES", 3)
    producer.fate = KafkaTimeoutError()
    publisher.send(ITEMS, ITEM)
    producer.fate = None
    for _ in range(10):
        publisher.send(ITEMS, ITEM)
    with pytest.raises(UnavailableError):
        publisher.flush()


def test_a_record_that_no_broker_takes_is_the_records_fault(publisher, producer):
    producer.fate = MessageSizeTooLargeError()
    with pytest.raises(RecordError, match="items"):
        publisher.send(ITEMS, ITEM)
