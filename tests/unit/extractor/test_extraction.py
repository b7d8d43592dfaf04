"""The stage: imported knowledge first, attributes where an answer cannot be used, nothing lost or paid twice when a server goes."""

import asyncio

import msgspec
import pytest

from contracts.errors import SettingsError, UnavailableError
from extractor.answers import RejectedAnswerError
from extractor.backends.attributes import AttributesBackend
from extractor.extraction import Extraction, ExtractionFailure, ToExtract, standing, usable_import
from extractor.scenario import load_scenario


class FakeBackend:
    """Answers as the attributes do, but as a model; an id may be given an error to raise instead."""

    tier = "individual"

    def __init__(self, scenario):
        self.errors = {}
        self.asked = []
        self.closed = False
        self._attributes = AttributesBackend(scenario)

    async def extract(self, request):
        self.asked.append(request.subject)
        await asyncio.sleep(0)
        if request.subject in self.errors:
            raise self.errors[request.subject]
        return msgspec.structs.replace(await self._attributes.extract(request), tier="individual", backend="fake", model="fake")

    async def aclose(self):
        self.closed = True


@pytest.fixture
def backend(news):
    return FakeBackend(news)


def _imported(request, **changed):
    made = asyncio.run(AttributesBackend(load_scenario("news")).extract(request))
    return msgspec.structs.replace(made, tier="individual", backend="batch", model="m", trigger_ms=0, **changed)


def _run(stage, *asked):
    """Each is (request, imported) or (request, imported, what stands)."""
    names = ("request", "imported", "stands")
    return asyncio.run(stage.extract_many([ToExtract(**dict(zip(names, one, strict=False))) for one in asked]))


def test_order_is_kept_and_everything_is_counted(news, backend, item_request):
    stage = Extraction(backend, news)
    requests = [item_request(ident=f"n{n}") for n in range(5)]
    assert [made.subject for made in _run(stage, *((r, None) for r in requests))] == [r.subject for r in requests]
    assert stage.counts == {"made": 5}
    assert _run(stage) == []


def test_usable_imported_knowledge_is_taken_and_carries_the_requests_trigger(news, backend, item_request):
    stage, request = Extraction(backend, news), item_request()
    [made] = _run(stage, (request, _imported(request)))
    assert (made.backend, made.trigger_ms) == ("batch", request.trigger_ms)
    assert backend.asked == []
    assert stage.counts == {"imported": 1}


@pytest.mark.parametrize(("as_of_ms", "usable"), [(4_999, True), (5_000, True), (5_001, False)])
def test_imported_knowledge_of_a_user_must_not_know_the_future(user_request, as_of_ms, usable):
    request = user_request(("Harbour", True, {}))
    assert usable_import(request, _imported(request, as_of_ms=as_of_ms)) is usable


@pytest.mark.parametrize(("source_hash", "usable"), [("abc", True), ("", True), ("other", False)])
def test_imported_knowledge_of_an_item_must_be_about_this_content(item_request, source_hash, usable):
    request = item_request()
    assert usable_import(request, _imported(request, source_hash=source_hash)) is usable


def test_imported_knowledge_of_another_subject_is_never_used(item_request):
    assert not usable_import(item_request(ident="n1"), _imported(item_request(ident="n2")))


def test_an_answer_that_cannot_be_used_is_replaced_visibly(news, backend, item_request):
    backend.errors["item:n1"] = RejectedAnswerError("refusal", "I'm sorry")
    stage = Extraction(backend, news)
    bad, good = _run(stage, (item_request(ident="n1"), None), (item_request(ident="n2"), None))
    assert (bad.tier, bad.backend) == ("attributes", "attributes")
    assert (good.tier, good.backend) == ("individual", "fake")
    assert stage.counts == {"stood in: refusal": 1, "made": 1}


def test_what_cannot_be_asked_about_fails_alone(news, backend, item_request, user_request):
    stage = Extraction(FakeBackend(news), news)
    empty, collective, good = _run(
        stage, (user_request(("", True, {})), None), (item_request(ident="c", mode="collective"), None), (item_request(), None)
    )
    assert isinstance(empty, ExtractionFailure)
    assert isinstance(collective, ExtractionFailure)
    assert "collective" in collective.reason
    assert good.backend == "fake"
    assert stage.counts == {"failed": 2, "made": 1}


def test_a_server_that_is_gone_stops_the_batch_and_the_retry_pays_only_for_the_rest(news, backend, item_request):
    backend.errors["item:n3"] = UnavailableError("no connection", wanted="one", todo="wait")
    stage = Extraction(backend, news)
    pairs = [(item_request(ident=f"n{n}"), None) for n in range(4)]
    with pytest.raises(UnavailableError):
        _run(stage, *pairs)
    assert stage.counts == {}
    backend.errors.clear()
    backend.asked.clear()
    assert [made.subject for made in _run(stage, *pairs)] == [f"item:n{n}" for n in range(4)]
    assert backend.asked == ["item:n3"]


def test_the_same_request_twice_in_a_batch_is_asked_once(news, backend, item_request):
    first, second = _run(Extraction(backend, news), (item_request(), None), (item_request(), None))
    assert first == second
    assert backend.asked == ["item:n1"]


def test_a_refused_key_stops(news, backend, item_request):
    backend.errors["item:n1"] = SettingsError("HTTP 401", wanted="a key", todo="set it")
    with pytest.raises(SettingsError):
        _run(Extraction(backend, news), (item_request(), None))


def test_closing_the_stage_closes_its_backend(news, backend):
    asyncio.run(Extraction(backend, news).aclose())
    assert backend.closed


@pytest.mark.parametrize("as_of_ms", [200, 300, 10**12])
def test_an_import_that_stands_does_not_answer_newer_requests_which_are_asked(news, backend, user_request, as_of_ms):
    stage, request = Extraction(backend, news), user_request(("Harbour", True, {}), as_of_ms=as_of_ms)
    imported = _imported(request, as_of_ms=100)
    [made] = _run(stage, (request, imported, standing(imported)))
    assert (made.backend, made.as_of_ms) == ("fake", as_of_ms)
    assert stage.counts == {"made": 1}


def test_an_import_that_is_newer_than_what_stands_is_taken(news, backend, user_request):
    stage, request = Extraction(backend, news), user_request(("Harbour", True, {}), as_of_ms=300)
    [made] = _run(stage, (request, _imported(request, as_of_ms=200), ("individual", 100, "")))
    assert (made.backend, made.as_of_ms) == ("batch", 200)


def test_where_individual_knowledge_stands_the_attributes_have_nothing_to_say(news, user_request):
    stage, request = Extraction(AttributesBackend(news), news), user_request(("Harbour", True, {}), as_of_ms=300)
    imported = _imported(request, as_of_ms=100)
    assert _run(stage, (request, imported, standing(imported))) == [None]
    assert stage.counts == {"kept": 1}


def test_the_same_request_again_is_not_paid_for_again(news, backend, item_request):
    stage, request = Extraction(backend, news), item_request()
    [made] = _run(stage, (request, None))
    assert _run(stage, (request, None, standing(made))) == [None]
    assert backend.asked == ["item:n1"]
    assert stage.counts == {"made": 1, "kept": 1}


def test_no_stand_in_replaces_something_better(news, backend, user_request):
    request = user_request(("Harbour", True, {}), as_of_ms=300)
    backend.errors[request.subject] = RejectedAnswerError("refusal", "I'm sorry")
    stage = Extraction(backend, news)
    assert _run(stage, (request, None, ("individual", 100, "h"))) == [None]
    assert stage.counts == {"kept": 1}


def test_a_stand_in_for_changed_content_replaces_what_is_about_the_old_one(news, backend, item_request):
    backend.errors["item:n1"] = RejectedAnswerError("refusal", "I'm sorry")
    request = item_request()
    [made] = _run(Extraction(backend, news), (request, None, ("individual", request.as_of_ms - 1, "old")))
    assert made.tier == "attributes"
