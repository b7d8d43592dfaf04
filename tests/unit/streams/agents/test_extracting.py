"""Extraction over its table: what was imported before, after or during a request."""

import asyncio

import pytest

from contracts.errors import RecordError, UnavailableError
from contracts.records import ItemEvent, Knowledge, KnowledgeRequest
from contracts.topics import DEAD_LETTERS, IMPORTED, KNOWLEDGE, REQUESTS
from extractor.extraction import Extraction
from streams.agents.extract import Extracting


def knowledge(subject="item:n1", backend="model", **fields):
    made = {"tier": "individual", "model": "", "as_of_ms": 500, "trigger_ms": 0, **fields}
    return Knowledge(
        subject=subject, factors={"topic": "t"}, summary="s", backend=backend, scenario="news", prompt_version="1", **made
    )  # fmt: skip


def request(subject="item:n1", source_hash="h1", as_of_ms=500, trigger_ms=9, priority=1.0):
    item = ItemEvent(item=subject.partition(":")[2], published_ms=500, title="Title", text="long text")
    return KnowledgeRequest(
        subject=subject, mode="individual", reason="new_item", priority=priority, as_of_ms=as_of_ms, trigger_ms=trigger_ms,
        source_hash=source_hash, item=item,
    )  # fmt: skip


class Backend:
    """Answers every request; ``act`` runs first and may raise."""

    tier = "individual"

    def __init__(self):
        self.asked = []

    async def act(self, _request):
        return None

    async def extract(self, request):
        self.asked.append(request.subject)
        await self.act(request)
        return knowledge(
            request.subject,
            trigger_ms=request.trigger_ms,
            source_hash=request.source_hash,
            as_of_ms=request.as_of_ms,
            tier=self.tier,
        )

    async def aclose(self):
        return None


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
def table():
    return {}


@pytest.fixture
def stage(table, backend, news, publisher):
    return Extracting(table, Extraction(backend, news), publisher)


@pytest.fixture
def run(stage, admitted):
    def run(topic, *records, safe=True):
        work = stage.requests if topic is REQUESTS else stage.imports
        batch = [admitted(topic, record, at_ms=77) for record in records]
        outputs = asyncio.run(work(batch))
        if safe:
            stage.remember(batch)
        return outputs

    return run


def test_a_request_is_answered_by_the_backend(run, backend):
    ((topic, made),) = run(REQUESTS, request())
    assert (topic, made.subject, made.trigger_ms) == (KNOWLEDGE, "item:n1", 9)
    assert backend.asked == ["item:n1"]


def test_what_was_imported_before_answers_without_asking(run, backend):
    assert run(IMPORTED, knowledge(backend="batch")) == []
    ((_, made),) = run(REQUESTS, request())
    assert (made.backend, made.trigger_ms) == ("batch", 9)
    assert backend.asked == []


def test_what_is_imported_after_a_request_is_used_at_once(run, backend):
    backend.tier = "attributes"
    run(REQUESTS, request())
    ((topic, made),) = run(IMPORTED, knowledge(backend="batch"))
    assert (topic, made.backend, made.trigger_ms) == (KNOWLEDGE, "batch", 77)
    assert len(backend.asked) == 1


def test_what_is_imported_while_a_request_is_under_way_is_used_too(stage, admitted, backend):
    late = []

    async def act(_request):
        late.extend(await stage.imports([admitted(IMPORTED, knowledge(backend="batch"))]))

    backend.act = act
    assert asyncio.run(stage.requests([admitted(REQUESTS, request())])) == []  # no better than what was imported
    assert [made.backend for _, made in late] == ["batch"]


@pytest.mark.parametrize("unfit", [{"source_hash": "other"}, {"subject": "user:u1", "as_of_ms": 501}], ids=["content", "leak"])
def test_an_import_about_something_else_or_from_the_future_is_kept_but_not_used(run, backend, unfit):
    imported = knowledge(backend="batch", **unfit)
    run(IMPORTED, imported)
    ((_, made),) = run(REQUESTS, request(imported.subject))
    assert made.backend == "model"
    assert run(IMPORTED, imported) == []


def test_an_import_that_is_taken_back_answers_no_longer(run, backend):
    run(IMPORTED, knowledge(backend="batch"), "item:n1")
    ((_, made),) = run(REQUESTS, request())
    assert made.backend == "model"


def test_of_several_requests_for_one_subject_the_last_is_asked(run, backend):
    ((_, made),) = run(REQUESTS, request(source_hash="h1"), request(source_hash="h2"))
    assert made.source_hash == "h2"
    assert backend.asked == ["item:n1"]


def test_the_table_keeps_no_text_of_the_request(run, table):
    run(REQUESTS, request())
    assert b"long text" not in table[b"item:n1"]


def test_a_request_without_an_answer_is_a_dead_letter_and_the_others_are_answered(run, backend, publisher):
    async def act(request):
        if request.subject == "item:bad":
            raise RecordError("no text", wanted="text", todo="send some")

    backend.act = act
    outputs = run(REQUESTS, request(), request("item:bad"), request("item:n2"))
    assert [made.subject for _, made in outputs] == ["item:n1", "item:n2"]
    ((topic, letter),) = publisher.sent
    assert topic is DEAD_LETTERS
    assert (letter.key, letter.stage) == (b"item:bad", "extract")


def test_a_server_that_is_down_fails_the_batch_and_what_was_answered_is_not_asked_again(run, backend):
    async def act(request):
        if request.subject == "item:n2" and backend.asked.count("item:n2") == 1:
            raise UnavailableError("no answer", wanted="one", todo="wait")

    backend.act = act
    with pytest.raises(UnavailableError):
        run(REQUESTS, request(), request("item:n2"))
    assert len(run(REQUESTS, request(), request("item:n2"))) == 2
    assert backend.asked.count("item:n1") == 1


@pytest.fixture
def user_import():
    return knowledge("user:u1", backend="batch", as_of_ms=100)


def test_an_import_answers_once_and_newer_requests_are_asked(run, backend, user_import):
    run(IMPORTED, user_import)
    made = [run(REQUESTS, request("user:u1", as_of_ms=ms))[0][1] for ms in (150, 200, 300, 10**12)]
    assert [(one.backend, one.as_of_ms) for one in made] == [("batch", 100), ("model", 200), ("model", 300), ("model", 10**12)]


def test_with_a_lower_backend_the_import_stays_and_is_not_said_again(run, backend, user_import):
    backend.tier = "attributes"
    run(IMPORTED, user_import)
    assert len(run(REQUESTS, request("user:u1", as_of_ms=150))) == 1
    assert run(REQUESTS, request("user:u1", as_of_ms=200)) == []
    assert backend.asked == []


def test_an_import_no_better_than_what_stands_is_kept_but_not_used(run):
    run(REQUESTS, request())
    assert run(IMPORTED, knowledge(backend="batch")) == []


def test_what_was_not_yet_safe_is_made_again(run, backend):
    """A crash before the acknowledgement: what stands must not be in the table, or nothing would be sent the second time."""
    assert run(REQUESTS, request(), safe=False) == run(REQUESTS, request()) != []
    assert run(REQUESTS, request()) == []
    assert run(IMPORTED, knowledge("item:n2", backend="batch")) == []


def test_an_import_that_is_not_yet_safe_is_sent_again(run, backend):
    backend.tier = "attributes"
    run(REQUESTS, request())
    assert run(IMPORTED, knowledge(backend="batch"), safe=False) == run(IMPORTED, knowledge(backend="batch")) != []


def test_a_removal_goes_on_as_a_tombstone_and_is_forgotten(run, table):
    run(REQUESTS, request())
    assert run(REQUESTS, "item:n1") == [(KNOWLEDGE, "item:n1")]
    assert table == {}


def test_a_removal_behind_a_request_of_the_same_batch_comes_alone(run, backend):
    assert run(REQUESTS, request(), "item:n1") == [(KNOWLEDGE, "item:n1")]
    assert backend.asked == []


def test_an_item_that_comes_back_is_asked_about_and_its_tombstone_comes_first(run, backend):
    run(REQUESTS, request())
    removal, (topic, made) = run(REQUESTS, "item:n1", request())
    assert removal == (KNOWLEDGE, "item:n1")
    assert (topic, made.backend) == (KNOWLEDGE, "model")
    assert run(REQUESTS, request()) == []


def test_what_was_imported_outlives_a_removal_until_it_is_taken_back(run, table):
    run(IMPORTED, knowledge(backend="batch"))
    run(REQUESTS, request(), "item:n1")
    ((_, made),) = run(REQUESTS, request())
    assert made.backend == "batch"
    run(REQUESTS, "item:n1")
    run(IMPORTED, "item:n1")
    assert table == {}


def test_the_most_urgent_request_is_asked_first(run, backend):
    run(REQUESTS, *(request(f"item:n{n}", priority=n) for n in (1, 3, 2)))
    assert backend.asked == ["item:n3", "item:n2", "item:n1"]
