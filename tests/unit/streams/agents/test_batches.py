"""What happens to a batch: bad records aside, nothing acknowledged before its results are safe."""

import asyncio
from types import SimpleNamespace

import pytest
from tenacity import wait_none

from contracts.codec import encode
from contracts.errors import SettingsError, UnavailableError
from contracts.records import ItemEvent
from contracts.topics import DEAD_LETTERS, IMPRESSIONS, ITEMS, KNOWLEDGE
from streams.agents.batches import BatchHandler, removals_first


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("streams.retrying._WAIT", wait_none())


@pytest.fixture
def handler(publisher):
    return BatchHandler("plan", publisher)


def event(offset, value, key=None):
    key = f"n{offset}".encode() if key is None else key
    message = SimpleNamespace(partition=0, offset=offset, key=key, value=value, timestamp=1.5)
    return SimpleNamespace(message=message)


def good(offset):
    return event(offset, encode(ITEMS, ItemEvent(item=f"n{offset}", published_ms=1, title="T")))


class Stage:
    """Passes items on; does what ``script`` says with the next calls."""

    def __init__(self, *script):
        self.script = list(script)
        self.calls = []
        self.settled = []

    async def work(self, admitted):
        self.calls.append([one.key for one in admitted])
        if self.script:
            await self.script.pop(0)(admitted)
        return [(ITEMS, one.record) for one in admitted]

    def settle(self, admitted):
        self.settled += [one.key for one in admitted]


def failing(error, on=None):
    async def fail(admitted):
        if on is None or on in {one.key for one in admitted}:
            raise error

    return fail


UNAVAILABLE = UnavailableError("no answer", wanted="one", todo="wait")


def items(publisher):
    return [record.item for record in publisher.of(ITEMS)]


def letters(publisher):
    return [(letter.offset, letter.reason) for letter in publisher.of(DEAD_LETTERS)]


def test_results_are_acknowledged_before_they_are_remembered(handler, publisher):
    stage = Stage()
    publisher.fail_flushes = 1
    events = [good(0), good(1)]
    asyncio.run(handler.handle(ITEMS, events, stage.work, stage.settle))
    assert items(publisher) == ["n0", "n1"]
    assert stage.settled == ["n0", "n1"]
    assert len(stage.calls) == 2  # the first try's results were not acknowledged


def test_bad_records_become_dead_letters_and_the_others_go_on(handler, publisher):
    stage = Stage()
    broken, foreign, empty = event(1, b"{"), event(2, good(0).message.value, key=b"other"), event(3, None)
    asyncio.run(handler.handle(ITEMS, [good(0), broken, foreign, good(4)], stage.work))
    asyncio.run(handler.handle(IMPRESSIONS, [empty], stage.work))
    assert items(publisher) == ["n0", "n4"]
    assert [offset for offset, _ in letters(publisher)] == [1, 2, 3]
    assert "got key b'other'; wanted b'n0'" in letters(publisher)[1][1]


def test_a_dead_letter_is_written_once_however_often_the_rest_is_tried(handler, publisher):
    stage = Stage(failing(UNAVAILABLE), failing(UNAVAILABLE))
    asyncio.run(handler.handle(ITEMS, [good(0), event(1, b"{")], stage.work))
    assert items(publisher) == ["n0"]
    assert len(letters(publisher)) == 1


def test_a_dead_letter_that_was_not_acknowledged_is_written_again(handler, publisher):
    publisher.fail_flushes = 1
    asyncio.run(handler.handle(ITEMS, [event(1, b"{")], Stage().work))
    assert len(letters(publisher)) == 1


def test_of_a_batch_that_fails_only_the_poison_becomes_a_dead_letter(handler, publisher):
    poison = failing(ValueError("cannot be used"), on="n1")
    stage = Stage(*[poison] * 7)
    asyncio.run(handler.handle(ITEMS, [good(0), good(1), good(2)], stage.work))
    assert stage.calls == [["n0", "n1", "n2"], ["n0"], ["n1"], ["n2"], *[["n1"]] * 3]  # then a few more tries
    assert items(publisher) == ["n0", "n2"]
    assert letters(publisher) == [(1, "ValueError: cannot be used")]


def test_a_record_that_fails_for_a_moment_is_no_dead_letter(handler, publisher):
    stage = Stage(*[failing(OSError("for a moment"))] * 3)
    asyncio.run(handler.handle(ITEMS, [good(0)], stage.work))
    assert (items(publisher), letters(publisher)) == (["n0"], [])


def test_a_stage_that_fails_on_every_record_is_held_not_emptied_into_the_dead_letters(handler, publisher):
    fault = failing(TypeError("'NoneType' object is not iterable"))
    stage = Stage(*[fault] * 13)  # a batch of twelve, then each of them alone; the next try finds it mended
    asyncio.run(handler.handle(ITEMS, [good(n) for n in range(12)], stage.work))
    assert items(publisher) == [f"n{n}" for n in range(12)]
    assert letters(publisher) == []


@pytest.mark.parametrize(
    "error", [UNAVAILABLE, SettingsError("a refused key", wanted="one", todo="mend it")], ids=["down", "refused"]
)
def test_what_is_not_the_records_fault_is_tried_again_and_nothing_is_lost(handler, publisher, error):
    stage = Stage(*[failing(error)] * 3)
    asyncio.run(handler.handle(ITEMS, [good(0), good(1)], stage.work, stage.settle))
    assert items(publisher) == ["n0", "n1"]
    assert letters(publisher) == []
    assert stage.settled == ["n0", "n1"]


def test_an_outage_while_records_are_tried_one_by_one_holds_them_all(handler, publisher):
    stage = Stage(failing(ValueError("one of them")), failing(UNAVAILABLE))
    asyncio.run(handler.handle(ITEMS, [good(0), good(1)], stage.work))
    assert items(publisher) == ["n0", "n1"]
    assert letters(publisher) == []


def test_a_tombstone_of_a_compacted_topic_is_admitted_and_passed_on(handler, publisher):
    async def work(admitted):
        return [(KNOWLEDGE, one.key) for one in admitted if one.record is None]

    asyncio.run(handler.handle(ITEMS, [event(0, None)], work))
    assert publisher.of(KNOWLEDGE) == ["n0"]


def test_what_comes_after_a_removal_stays_and_what_came_before_goes(admitted):
    first, again = (ItemEvent(item="n1", published_ms=ms, title="T") for ms in (1, 2))
    other = ItemEvent(item="n2", published_ms=1, title="T")
    batch = [admitted(ITEMS, one) for one in (first, "n1", again, other, "n3")]
    gone, kept = removals_first(batch)
    assert gone == ["n1", "n3"]
    assert [one.record for one in kept] == [again, other]
    assert removals_first([*batch, admitted(ITEMS, "n1")])[1] == [batch[3]]
