"""Requests and events that the extractor's tests share."""

import pytest

from contracts.records import HistoryEntry, ItemEvent, KnowledgeRequest
from extractor.scenario import load_scenario


@pytest.fixture(scope="session")
def news():
    return load_scenario("news")


@pytest.fixture(scope="session")
def movies():
    return load_scenario("movies")


@pytest.fixture
def item_request():
    def make(title="Harbour opens", text="The harbour opened on Monday.", ident="n1", attributes=None, **fields):
        item = ItemEvent(item=ident, published_ms=1_000, title=title, text=text, attributes=attributes or {})
        wanted = {"reason": "new_item", "priority": 1.0, "as_of_ms": 1_000, "trigger_ms": 2_000, "source_hash": "abc"} | fields
        return KnowledgeRequest(subject=f"item:{ident}", mode=wanted.pop("mode", "individual"), item=item, **wanted)

    return make


@pytest.fixture
def user_request():
    def make(*history, ident="u1", as_of_ms=5_000):
        entries = tuple(
            HistoryEntry(item=f"n{n}", title=title, action="click", event_ms=n, liked=liked, attributes=attributes)
            for n, (title, liked, attributes) in enumerate(history)
        )
        return KnowledgeRequest(
            subject=f"user:{ident}", mode="individual", reason="new_interactions", priority=1.0, as_of_ms=as_of_ms,
            trigger_ms=2_000, source_hash="def", history=entries,
        )  # fmt: skip

    return make
