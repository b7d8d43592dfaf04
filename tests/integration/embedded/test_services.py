"""The embedded broker and vector store: real records and rows, kept over a restart."""

import gc

import pytest
from kafka import KafkaConsumer, KafkaProducer
from pymilvus import MilvusClient

from streams.embedded.processes import AlreadyRunningError, EmbeddedServices
from streams.embedded.programs import LOOPBACK, PortTakenError, accepts
from streams.topics import create_topics

pytestmark = pytest.mark.integration


def send(settings, value):
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    producer.send("items", key=b"k", value=value).get(timeout=20)
    producer.close()


def receive(settings, n):
    consumer = KafkaConsumer(
        "items", bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    values = []
    for record in consumer:
        values.append(record.value)
        if len(values) == n:
            break
    consumer.close()
    return values


def test_records_and_rows_go_in_and_out_and_outlive_a_restart(settings, ours):
    with EmbeddedServices(settings) as services:
        create_topics(settings)
        send(settings, b"first")
        client = MilvusClient(uri=settings.milvus_uri)
        client.create_collection("c", dimension=4)
        client.upsert("c", [{"id": 1, "vector": [1.0, 0.0, 0.0, 0.0]}])
        client.close()
        second = EmbeddedServices(settings)
        with pytest.raises(AlreadyRunningError, match=r"pid \d+, since \d{4}-"):
            second.start()
        second.stop()  # must not stop what it did not start
        assert services.alive()
    assert ours(settings.home) == []
    assert not accepts(settings.kafka.embedded_port)
    with EmbeddedServices(settings):
        send(settings, b"second")
        assert receive(settings, 2) == [b"first", b"second"]
        client = MilvusClient(uri=settings.milvus_uri)
        client.load_collection("c")
        assert [row["id"] for row in client.get("c", ids=[1])] == [1]
        client.close()
    gc.collect()


def test_both_listen_on_loopback_only(settings, ours):
    import psutil

    with EmbeddedServices(settings):
        addresses = {
            connection.laddr.ip.removeprefix("::ffff:")
            for pid in ours(settings.home)
            for connection in psutil.Process(pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    assert addresses == {LOOPBACK}


def test_with_both_addresses_set_none_is_started(settings, ours):
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    milvus = settings.milvus.model_copy(update={"uri": "http://127.0.0.1:1"})
    with EmbeddedServices(settings.model_copy(update={"kafka": kafka, "milvus": milvus})):
        assert len(ours(settings.home)) == 1  # the supervisor alone
        assert not accepts(settings.kafka.embedded_port)


def test_a_taken_port_stops_the_start_before_anything_runs(settings, ours):
    import socket

    with (
        socket.create_server((LOOPBACK, settings.milvus.embedded_port)),
        pytest.raises(PortTakenError, match=r"milvus\.embedded_port"),
    ):
        EmbeddedServices(settings).start()
    assert ours(settings.home) == []
