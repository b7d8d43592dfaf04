"""A consumer group on a real broker: what a member that is asked often and briefly must not miss."""

import time

import pytest
from kafka.admin import NewPartitions

from contracts.records import ItemEvent
from contracts.settings import Kafka
from contracts.topics import ITEMS
from streams.broker import admin
from streams.publisher import KafkaPublisher
from streams.roles import groups
from streams.roles.groups import Group
from streams.topics import create_topics, topic_name

pytestmark = pytest.mark.integration

DEADLINE_S = 30


@pytest.fixture
def settings(services):
    kafka = Kafka(bootstrap_servers=services.bootstrap_servers, prefix="groups-", partitions=2)
    settings = services.model_copy(update={"kafka": kafka})
    create_topics(settings)
    return settings


def send(settings, n, first=0):
    with KafkaPublisher(settings) as publisher:
        for number in range(first, first + n):
            publisher.send(ITEMS, ItemEvent(item=f"n{number}", published_ms=1, title="T"))
        publisher.flush()


def read_until(member, found, enough, timeout_ms=200):
    end_s = time.monotonic() + DEADLINE_S
    while not enough():
        assert time.monotonic() < end_s, f"{len(found)} messages from {member.partitions()}"
        found.update(message.key for message in member.poll(timeout_ms))


def test_a_member_that_polls_too_briefly_for_a_join_goes_on_when_partitions_are_added(settings, monkeypatch):
    monkeypatch.setattr(groups, "_METADATA_MS", 200)
    found = set()
    with Group(settings, "plan", [ITEMS]) as member:
        send(settings, 10)
        read_until(member, found, lambda: len(found) == 10)
        with admin(settings) as client:
            client.create_partitions({topic_name(settings, ITEMS): NewPartitions(total_count=6)})
        send(settings, 60, first=10)
        read_until(member, found, lambda: len(found) == 70, timeout_ms=1)  # each ends before the broker has answered
        assert member.partitions() == set(range(6))
