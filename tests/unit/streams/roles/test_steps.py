"""The order in which a stateful role makes things safe, and a table between two writes."""

import threading

import pytest
from tenacity import wait_none

from contracts.codec import encode
from contracts.errors import RecordError, UnavailableError
from contracts.records import ItemEvent
from contracts.settings import load_settings
from contracts.topics import DEAD_LETTERS, ITEMS, PLANNED_ITEMS
from fakes.table import FakeTable
from streams.messages import RawRecord
from streams.roles.steps import FaultError, Steps
from streams.roles.tables import Table


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("streams.retrying._WAIT", wait_none())


class FakeMember:
    """A place in the group. ``log`` notes commits."""

    def __init__(self):
        self.mine = {0}
        self.out = False
        self.commits = []
        self.fail_commits = 0

    def partitions(self):
        return self.mine

    def was_out(self):
        out, self.out = self.out, False
        return out

    def commit(self, offsets):
        if self.fail_commits:
            self.fail_commits -= 1
            raise UnavailableError("no answer", wanted="a broker", todo="wait")
        self.commits.append(offsets)
        return True


class FailingTable(FakeTable):
    """Its next writes fail as often as ``fail_writes`` says; ``seen`` notes what was acknowledged at each."""

    def __init__(self, publisher):
        super().__init__(str.encode, bytes.decode)
        self.fail_writes = 0
        self.seen = []
        self._publisher = publisher

    def write(self):
        self.seen.append(len(self._publisher.acked))
        if self.fail_writes:
            self.fail_writes -= 1
            raise UnavailableError("no answer", wanted="a broker", todo="wait")
        super().write()


@pytest.fixture
def member():
    return FakeMember()


@pytest.fixture
def table(publisher):
    return FailingTable(publisher)


@pytest.fixture
def stop():
    return threading.Event()


@pytest.fixture
def steps(publisher, table, stop):
    return Steps("plan", publisher, [table], stop)


def raw(offset, value=None):
    value = encode(ITEMS, ItemEvent(item=f"n{offset}", published_ms=1, title="T")) if value is None else value
    return RawRecord(topic=ITEMS, partition=0, offset=offset, key=f"n{offset}".encode(), value=value, at_ms=1_000)


def passing_on(one):
    return [(ITEMS, one.record)]


def failing(error, *keys):
    def take(one):
        if not keys or one.key in keys:
            raise error
        return passing_on(one)

    return take


def letters(publisher):
    return [(letter.offset, letter.reason) for letter in publisher.of(DEAD_LETTERS)]


def test_results_then_tables_then_offsets(steps, table, member, publisher):
    publisher.fail_flushes = table.fail_writes = member.fail_commits = 2  # the broker is away at each step
    messages = [raw(0), raw(1)]
    steps.take(messages, {ITEMS: passing_on})
    steps.finish(member, messages)
    assert [record.item for record in publisher.of(ITEMS)] == ["n0", "n1"]
    assert table.seen == [2, 2, 2]  # never before the results were acknowledged
    assert member.commits == [{(ITEMS, 0): 2}]


def test_a_result_that_is_too_long_to_be_sent_becomes_a_dead_letter(steps, member, publisher):
    long = ItemEvent(item="n0", published_ms=1, title="T", text="word " * 250_000)
    steps.take([raw(0)], {ITEMS: lambda _: [(ITEMS, long)]})
    steps.finish(member, [raw(0)])
    ((offset, reason),) = letters(publisher)
    assert offset == -1
    assert "cannot be sent" in reason
    assert member.commits == [{(ITEMS, 0): 1}]


def test_nothing_is_committed_by_a_role_that_was_stopped_while_the_broker_was_away(steps, member, publisher, stop):
    publisher.fail_flushes = 10**6
    stop.set()
    steps.take([raw(0)], {ITEMS: passing_on})
    with pytest.raises(UnavailableError):
        steps.finish(member, [raw(0)])
    assert member.commits == []


def test_bad_records_and_those_that_fail_become_dead_letters_with_the_results(steps, member, publisher):
    messages = [raw(0), raw(1, b"{"), raw(2), raw(3)]
    publisher.fail_flushes = 1
    error = RecordError("no text", wanted="text", todo="send some")
    take = failing(error, "n2")
    steps.take(messages, {ITEMS: take})
    steps.finish(member, messages)
    assert [record.item for record in publisher.of(ITEMS)] == ["n0", "n3"]
    assert [offset for offset, _ in letters(publisher)] == [1, 2]
    assert letters(publisher)[1][1] == str(error)


def test_a_record_that_nobody_foresaw_is_a_dead_letter_but_a_stage_that_fails_on_all_ends_the_role(steps, member, publisher):
    steps.take([raw(0), raw(1)], {ITEMS: failing(TypeError("None"), "n0")})
    steps.finish(member, [raw(0), raw(1)])
    assert letters(publisher) == [(0, "TypeError: None")]
    with pytest.raises(FaultError, match="TypeError on each of 10 records"):
        steps.take([raw(n) for n in range(30)], {ITEMS: failing(TypeError("None"))})


def test_partitions_that_come_are_recovered_and_those_that_go_are_told_before_they_are_forgotten(steps, table, member):
    told = []
    table.packed = {0: {"a": b"1"}}
    member.mine = {0, 1}
    steps.follow(member, lambda p: told.append(("arrived", p)), lambda p: told.append(("gone", p, dict(table.items(p)))))
    assert told == [("arrived", 1)]
    member.mine = {1}
    steps.follow(member, lambda p: told.append(("arrived", p)), lambda p: told.append(("gone", p, dict(table.items(p)))))
    assert told[1:] == [("gone", 0, {"a": "1"})]
    assert table.partitions == [1]


def test_a_member_that_was_out_of_its_group_reads_everything_again(steps, table, member):
    table.packed = {0: {"a": b"old"}}
    member.out = True
    steps.follow(member)
    assert table.packed == {0: {}}  # as the changelog has it now


@pytest.fixture
def real_table(publisher, monkeypatch):
    table = Table(load_settings(), PLANNED_ITEMS, publisher, str.encode, bytes.decode)
    table._packed = {0: {}, 1: {}}
    return table


def test_a_table_writes_each_change_once_under_its_partition(real_table, publisher):
    real_table.put(0, "a", "1")
    real_table.put(0, "a", "2")
    real_table.put(1, "b", "3")
    assert real_table.get(0, "a") == "2"
    real_table.write()
    real_table.write()
    assert publisher.of(PLANNED_ITEMS) == [(0, b"a", b"2"), (1, b"b", b"3")]
    assert dict(real_table.items(0)) == {"a": "2"}


def test_a_table_forgets_a_key_by_an_empty_value(real_table, publisher):
    real_table.put(0, "a", "1")
    real_table.write()
    real_table.put(0, "a", None)
    assert real_table.get(0, "a") is None
    real_table.write()
    assert publisher.of(PLANNED_ITEMS)[-1] == (0, b"a", None)
    assert list(real_table.items(0)) == []


def test_a_write_that_was_not_acknowledged_is_written_again(real_table, publisher):
    real_table.put(0, "a", "1")
    publisher.fail_flushes = 1
    with pytest.raises(UnavailableError):
        real_table.write()
    assert real_table.get(0, "a") == "1"
    real_table.write()
    assert publisher.of(PLANNED_ITEMS) == [(0, b"a", b"1")]


def test_what_belongs_to_another_worker_is_neither_kept_nor_written(real_table, publisher):
    real_table.put(0, "a", "1")
    real_table.drop({0})
    real_table.put(0, "a", "2")
    real_table.write()
    assert real_table.get(0, "a") is None
    assert publisher.of(PLANNED_ITEMS) == []
