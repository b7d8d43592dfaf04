"""The cluster role: what it learns, when it asks, and what it commits after what."""

import threading

import msgspec
import numpy as np
import pytest

from contracts.codec import encode
from contracts.errors import UnavailableError
from contracts.ports import VectorRow
from contracts.records import Cluster, EncodedKnowledge, Knowledge
from contracts.settings import load_settings
from contracts.topics import CLUSTERS, ENCODINGS, REQUESTS
from hein.stores.memory import MemoryVectorStore
from streams.messages import RawRecord
from streams.roles import cluster as module
from streams.roles.cluster import ClusterRole
from streams.tail import Tailed

D_TEXT = 6


class Member:
    """A place in the group that notes commits."""

    def __init__(self, partitions=(0,)):
        self.commits = []
        self.mine = set(partitions)

    def partitions(self):
        return self.mine

    def commit(self, offsets):
        self.commits.append(offsets)
        return True


class Log:
    """Stands in for `streams.tail.Tail` over the topic `clusters`."""

    kept: tuple = ()

    def __init__(self, _settings, topics):
        assert topics == [CLUSTERS]

    def to_end(self):
        return iter(self.kept)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def member():
    return Member()


@pytest.fixture
def store():
    return MemoryVectorStore(D_TEXT)


@pytest.fixture
def settings():
    return load_settings(
        collective={"item_clusters": 2, "user_clusters": 2, "min_members": 3, "publish_every_s": 1e-9}, kafka={"partitions": 1}
    )


@pytest.fixture
def role(settings, store, publisher):
    return ClusterRole(settings, store, publisher)


@pytest.fixture
def boot(settings, store, publisher, monkeypatch):
    """A role that found this in the log."""

    def make(records):
        monkeypatch.setattr(module, "Tail", Log)
        kept = [
            Tailed(topic=CLUSTERS, key=key, record=record, partition=0, offset=n, at_ms=1)
            for n, (key, record) in enumerate(records)
        ]
        monkeypatch.setattr(Log, "kept", kept)
        made = ClusterRole(settings, store, publisher)
        made._boot(threading.Event())
        return made

    return make


def vector(seed, topic=0):
    near = np.eye(D_TEXT)[topic] + 0.05 * np.random.default_rng(seed).standard_normal(D_TEXT)
    return near.astype("<f4")


def encoded(subject, seed=0, topic=0, **more):
    fields = {"encoder": "e", "tier": "attributes", "as_of_ms": 10 + seed, "vector": vector(seed, topic).tobytes()} | more
    return EncodedKnowledge(subject=subject, trigger_ms=5, text_hash="t", **fields)


def message(offset, record, at_ms=1_000, partition=0):
    is_key = isinstance(record, str)
    key = record.encode() if is_key else record.subject.encode()
    value = None if is_key else encode(ENCODINGS, record)
    return RawRecord(topic=ENCODINGS, partition=partition, offset=offset, key=key, value=value, at_ms=at_ms)


def items(n, start=0, **more):
    return [message(start + one, encoded(f"item:{start + one}", start + one, **more)) for one in range(n)]


def keep(store, n, kind="item", tier="attributes"):
    """What the encode stage has kept of some subjects."""
    rows = []
    for seed in range(n):
        subject = f"{kind}:{seed}"
        known = Knowledge(
            subject=subject, factors={"genre": "Crime"}, summary=f"Film {seed}", tier=tier, backend="b", scenario="movies",
            prompt_version="1", model="m", as_of_ms=10 + seed,
        )  # fmt: skip
        row = VectorRow(
            subject=subject, vector=vector(seed), tier=tier, as_of_ms=10 + seed, document=msgspec.json.encode(known).decode()
        )
        rows.append(row)
    store.upsert(rows)


def test_encodings_become_clusters_requests_and_a_commit(role, store, publisher, member):
    keep(store, 4)
    role._step(items(4), member)
    clusters = {one.subject: one for one in publisher.of(CLUSTERS)}
    assert sum(one.n_members for one in clusters.values()) == 4
    assert {one.space for one in clusters.values()} == {"e>gauss32-1"}
    (request,) = publisher.of(REQUESTS)
    assert (request.subject, request.reason, request.mode, request.trigger_ms) == (
        "cluster:item-0",
        "new_cluster",
        "collective",
        1_000,
    )
    assert {member.text for member in request.members} <= {f"Film {n} (Crime)" for n in range(4)}
    assert clusters["cluster:item-0"].asked_n_members == clusters["cluster:item-0"].n_members
    assert member.commits == [{(ENCODINGS, 0): 4}]


def test_users_and_items_have_clusters_of_their_own_and_clusters_have_none(role, publisher, member):
    subjects = ("item:a", "user:a", "cluster:item-0")
    role._step([message(n, encoded(subject)) for n, subject in enumerate(subjects)], member)
    assert {one.subject for one in publisher.of(CLUSTERS)} == {"cluster:item-0", "cluster:user-0"}


def test_a_cluster_is_asked_about_once(role, store, publisher, member):
    keep(store, 4)
    role._step(items(4), member)
    role._step([], member)
    assert len(publisher.of(REQUESTS)) == 1


def test_nothing_is_asked_while_nothing_is_known_of_the_members(role, store, publisher, member):
    role._step(items(4), member)
    assert publisher.of(REQUESTS) == []
    keep(store, 4)
    role._step([], member)
    assert len(publisher.of(REQUESTS)) == 1


def test_a_broken_document_counts_as_unknown(role, store, publisher, member):
    keep(store, 4)
    rows = store.fetch([f"item:{n}" for n in range(4)])
    store.upsert([VectorRow(subject="item:1", vector=rows["item:1"].vector, tier="attributes", as_of_ms=1, document="{")])
    role._step(items(4), member)
    (request,) = publisher.of(REQUESTS)
    assert "item:1" not in {one.subject for one in request.members}


def test_what_a_flush_did_not_confirm_is_sent_again_and_nothing_is_committed_before(role, store, publisher, member):
    keep(store, 4)
    messages = items(4)
    publisher.fail_flushes = 1
    with pytest.raises(UnavailableError):
        role._step(messages, member)
    assert (publisher.of(CLUSTERS), publisher.of(REQUESTS), member.commits) == ([], [], [])
    role._step(messages, member)
    assert sum(one.n_learnt for one in publisher.of(CLUSTERS)) == 4  # learnt once
    assert len(publisher.of(REQUESTS)) == 1
    assert member.commits == [{(ENCODINGS, 0): 4}]


def test_clusters_that_were_not_confirmed_are_told_with_the_next_try(role, publisher, member):
    messages = items(4)
    publisher.fail_flushes = 1
    with pytest.raises(UnavailableError):
        role._step(messages, member)
    role._step([], member)
    assert sum(one.n_members for one in publisher.of(CLUSTERS)) == 4
    assert member.commits == [{(ENCODINGS, 0): 4}]


def test_between_two_publications_nothing_goes_out(store, publisher, member):
    slow = load_settings(collective={"item_clusters": 2, "publish_every_s": 3_600})
    role = ClusterRole(slow, store, publisher)
    role._step(items(4), member)
    assert (publisher.of(CLUSTERS), member.commits) == ([], [])
    role._publish(member)
    assert sum(one.n_members for one in publisher.of(CLUSTERS)) == 4
    assert len(member.commits) == 1
    role._publish(member)
    assert len(member.commits) == 1  # nothing new


def test_only_partitions_of_its_own_are_committed(role, member):
    role._step([message(0, encoded("item:a")), message(5, encoded("item:b", 1), partition=3)], member)
    assert member.commits == [{(ENCODINGS, 0): 1}]


def test_records_that_cannot_be_used_are_passed_over(role, publisher, member):
    nan = np.full(D_TEXT, np.nan, dtype="<f4").tobytes()
    bad = RawRecord(topic=ENCODINGS, partition=0, offset=0, key=b"item:x", value=b"\xff", at_ms=1)
    odd = [message(1, encoded("item:odd", vector=b"12345")), message(2, encoded("item:nan", vector=nan))]
    role._step([bad, *odd, message(3, encoded("item:a"))], member)
    (told,) = publisher.of(CLUSTERS)
    assert (told.n_members, told.n_learnt) == (1, 1)
    assert member.commits == [{(ENCODINGS, 0): 4}]


def test_a_removed_item_leaves_its_cluster_in_the_order_of_the_log(role, publisher, member):
    messages = [message(0, encoded("item:a")), message(1, "item:a"), message(2, encoded("item:b", 1)), message(3, "item:b")]
    role._step([*messages, message(4, encoded("item:b", 2))], member)
    (told,) = publisher.of(CLUSTERS)
    assert (told.n_members, told.n_learnt) == (1, 3)


def test_a_killed_role_goes_on_from_the_log_and_the_store(boot, role, store, publisher, member):
    keep(store, 4)
    role._step(items(4), member)
    told = [(one.subject, one) for one in publisher.of(CLUSTERS)]
    again = boot(told)
    again._step([], member)
    assert len(publisher.of(REQUESTS)) == 1  # asked about before
    again._step(items(2, start=4), Member())
    newest = {one.subject: one for one in publisher.of(CLUSTERS)}
    assert sum(one.n_members for one in newest.values()) == 6
    assert sum(one.n_learnt for one in newest.values()) == 6


def test_what_was_read_but_not_committed_is_learnt_again_and_counts_once(boot, role, store, publisher, member):
    keep(store, 4)
    role._step(items(4), member)
    again = boot([(one.subject, one) for one in publisher.of(CLUSTERS)])
    again._step(items(4), Member())
    told = again._by_kind["item"].clusters()
    assert (sum(one.n_members for one in told), sum(one.n_learnt for one in told)) == (4, 8)


def test_a_removed_cluster_in_the_log_stays_away(boot, role, publisher, member):
    role._step(items(4), member)
    told = [(one.subject, one) for one in publisher.of(CLUSTERS)]
    again = boot([*told, ("cluster:item-0", None)])
    assert [one.subject for one in again._by_kind["item"].clusters()] == ["cluster:item-1"]


def test_a_damaged_cluster_in_the_log_does_not_keep_the_role_from_starting(boot, publisher, member):
    fields = {"space": "e>gauss32-1", "n_learnt": 1, "n_members": 1, "as_of_ms": 1}
    damaged = [Cluster(subject="item:x", centre=b"1234", **fields), Cluster(subject="cluster:item-0", centre=b"1234", **fields)]
    again = boot([(one.subject, one) for one in damaged])
    again._step(items(1), member)
    assert [one.subject for one in publisher.of(CLUSTERS)] == ["cluster:item-0"]


def test_clusters_that_the_settings_no_longer_want_are_removed(boot, publisher, member):
    fields = {"space": "e>gauss32-1", "n_learnt": 1, "n_members": 1, "as_of_ms": 1}
    rng = np.random.default_rng(0)
    kept = [
        Cluster(subject=f"cluster:item-{n}", centre=rng.standard_normal(32).astype("<f4").tobytes(), **fields) for n in range(4)
    ]
    boot([(one.subject, one) for one in kept])._step([], member)
    assert publisher.of(CLUSTERS) == ["cluster:item-2", "cluster:item-3"]


def test_another_encoder_starts_clusters_with_numbers_of_their_own(boot, role, publisher, member):
    role._step(items(4), member)
    n_before = len(publisher.of(CLUSTERS))
    role._step(items(49, start=4, encoder="f"), member)
    assert len(publisher.of(CLUSTERS)) == n_before  # a few of another encoder may be a worker that is still upgrading
    role._step(items(1, start=53, encoder="f"), member)
    told = publisher.of(CLUSTERS)[n_before:]
    assert told[:2] == ["cluster:item-0", "cluster:item-1"]
    assert [(one.subject, one.space) for one in told[2:]] == [("cluster:item-2", "f>gauss32-1")]
    log = [(one, None) if isinstance(one, str) else (one.subject, one) for one in publisher.of(CLUSTERS)]
    assert boot(log)._by_kind["item"].space == "f>gauss32-1"


def test_another_encoder_that_comes_now_and_then_changes_nothing(role, member):
    for n in range(60):
        role._step([message(2 * n, encoded(f"item:{n}", n)), message(2 * n + 1, encoded(f"item:x{n}", n, encoder="f"))], member)
    assert role._by_kind["item"].space == "e>gauss32-1"


def test_it_says_once_that_it_is_not_the_only_owner(role, caplog):
    assert role.missing()
    role._follow({0})
    assert (role.missing(), caplog.records) == ("", [])
    role._settings = load_settings(kafka={"partitions": 4})
    role._follow({0, 1})
    role._follow({0, 1})
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    role._follow({0, 1, 2, 3})
    role._follow({0, 1})
    assert len(caplog.records) == 2
