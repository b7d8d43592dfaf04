"""The whole path on real parts: items and behaviour in, knowledge, vectors, rankings, impressions, learning; bad records aside."""

import json

import httpx
import pytest

from contracts.records import InteractionEvent, RankRequest
from contracts.topics import (
    DEAD_LETTERS,
    ENCODINGS,
    IMPRESSIONS,
    INTERACTIONS,
    ITEMS,
    KNOWLEDGE,
    RANK_REQUESTS,
    RANKINGS,
    VECTORS,
)  # fmt: skip
from integration.streams.running import DAY_MS, START_MS, some_interactions, some_items

pytestmark = pytest.mark.integration

ITEM_IDS = [f"n{n:03d}" for n in range(24)]
USERS = [f"u{n}" for n in range(6)]
SUBJECTS = {f"item:{item}" for item in ITEM_IDS} | {f"user:{user}" for user in USERS}
FAR_MS = 200_000_000_000_000
GOOD_INTERACTION = {"user": "u0", "item": "n000", "action": "click", "event_ms": START_MS}
GOOD_ITEM = {"item": "bad", "published_ms": START_MS, "title": "Title"}


def line(record, **changes):
    return json.dumps({**record, **changes}).encode()


BAD = {
    "not JSON": (INTERACTIONS, b"u0", b"\xff not json", "wanted a InteractionEvent"),
    "a missing field": (INTERACTIONS, b"u0", b'{"user": "u0", "item": "n000", "event_ms": 1}', "missing required field `action`"),
    "a wrong type": (INTERACTIONS, b"u0", line(GOOD_INTERACTION, event_ms="soon"), "Expected `int`, got `str`"),
    "an unknown action": (INTERACTIONS, b"u0", line(GOOD_INTERACTION, action="lick"), "Invalid enum value 'lick'"),
    "an unknown field": (INTERACTIONS, b"u0", line(GOOD_INTERACTION, colour="red"), "unknown field `colour`"),
    "a negative time": (INTERACTIONS, b"u0", line(GOOD_INTERACTION, event_ms=-1), ">= 0"),
    "a far-future time": (INTERACTIONS, b"u0", line(GOOD_INTERACTION, event_ms=FAR_MS), "at most a day after now"),
    "control characters in an id": (INTERACTIONS, b"u\x07", line(GOOD_INTERACTION, user="u\x07"), "matching regex"),
    "NaN": (INTERACTIONS, b"u0", b'{"user":"u0","item":"n000","action":"rate","event_ms":1,"value":NaN}', "invalid character"),
    "the key of another user": (INTERACTIONS, b"u1", line(GOOD_INTERACTION), "got key b'u1'; wanted b'u0'"),
    "no value": (INTERACTIONS, b"u0", None, "got an empty value"),
    "a text of 1 MB": (ITEMS, b"bad", line(GOOD_ITEM, text="x" * 1_000_000), "at most 900000 bytes"),
    "a text of 100 kB": (ITEMS, b"bad", line(GOOD_ITEM, text="x" * 100_000), "length <= 20000"),
    "no title": (ITEMS, b"bad", line(GOOD_ITEM, title=" "), "needs a title"),
    "no candidates": (RANK_REQUESTS, b"u0", line({"request": "r", "user": "u0", "event_ms": 1}, candidates=[]), "length >= 1"),
}  # fmt: skip


def clicks(reki, rankings, at_ms):
    """The second item of each ranking is clicked; then time goes by, so that every window closes."""
    for ranking in rankings:
        reki.send(
            InteractionEvent(
                user=ranking.user, item=ranking.items[1].item, action="click", event_ms=at_ms + 10, ranking=ranking.ranking
            )
        )
    reki.send(
        *(InteractionEvent(user=user, item=ITEM_IDS[0], action="view", event_ms=at_ms + 10 * 60_000) for user in USERS)
    )  # fmt: skip


def step(reki):
    model = httpx.get(reki.processes["rank"].url + "/v1/about", timeout=5).json()["model"]
    return model and (model["version"], model["step"])


def rank_over_http(reki, user, candidates, **more):
    body = {"user": user, "candidates": candidates, "k": 5, **more}
    return httpx.post(reki.processes["rank"].url + "/v1/rank", json=body, timeout=10)


@pytest.fixture(scope="module")
def reki(make_reki):
    """All roles, with items, behaviour and bad records sent, a first version in force, rankings answered and learnt from."""
    reki = make_reki()
    reki.start("plan extract", "encode", "augment join train", "rank")
    reki.send(*some_items(24))
    for topic, key, value, _ in BAD.values():
        reki.publisher.send_raw(topic, value, key)
    reki.send(*some_interactions(USERS, ITEM_IDS, 6, START_MS + DAY_MS))
    reki.until(lambda: reki.rows() == SUBJECTS, "every item and user has its knowledge")
    trained = reki.command("train", "--json")
    assert trained.returncode == 0, trained.stderr
    reki.until_ready("plan extract", "encode", "augment join train", "rank")
    return reki


@pytest.fixture(scope="module")
def ranked(reki):
    """Rankings over Kafka and over HTTP, clicked."""
    at_ms = START_MS + 2 * DAY_MS
    requests = [
        RankRequest(request=f"r{n}", user=user, candidates=tuple(ITEM_IDS[:8]), k=4, event_ms=at_ms) for n, user in enumerate(USERS)
    ]  # fmt: skip
    reki.send(*requests)
    assert rank_over_http(reki, "u0", ITEM_IDS[:6], request="h0", event_ms=at_ms).status_code == 200
    wanted = {"h0", *(request.request for request in requests)}
    rankings = reki.until(lambda: (r := reki.typed(RANKINGS)) and wanted <= {one.ranking for one in r} and r, "rankings")
    clicks(reki, rankings, at_ms)
    reki.until(lambda: any(m.metrics.get("n_impressions") == len(wanted) for m in reki.manifests()), "learnt")
    return {one.ranking: one for one in rankings}


def test_every_item_and_user_gets_knowledge_labelled_as_what_it_is(reki):
    made = {one.subject: one for one in reki.typed(KNOWLEDGE)}
    assert made.keys() == SUBJECTS
    assert {(one.tier, one.backend) for one in made.values()} == {("attributes", "attributes")}
    assert all(one.trigger_ms > 0 for one in made.values())


def test_a_ready_version_has_a_row_for_every_subject(reki):
    first = next(m for m in reki.manifests() if m.state == "ready")
    assert first.collection == f"{reki.prefix}_augmented_v1"
    assert reki.rows("augmented_v1") == SUBJECTS
    assert {one.subject for one in reki.typed(VECTORS) if one.version == 1} == SUBJECTS


@pytest.mark.parametrize("what", BAD)
def test_a_bad_record_is_in_the_dead_letters_with_reason_and_origin(reki, what):
    topic, key, value, reason = BAD[what]
    kept = value[:500_000] if value is not None else None
    found = [one for one in reki.typed(DEAD_LETTERS) if (one.topic, one.key, one.value) == (topic.name, key, kept)]
    assert len(found) == 1
    assert reason in found[0].reason
    assert found[0].stage == ("rank" if topic is RANK_REQUESTS else "plan")
    assert found[0].offset >= 0
    assert found[0].at_ms > START_MS


def test_nothing_but_the_bad_records_is_in_the_dead_letters(reki):
    assert len(reki.typed(DEAD_LETTERS)) == len(BAD)


def test_rankings_are_answered_over_kafka_and_over_http(ranked):
    assert {(one.version, len(one.items)) for name, one in ranked.items() if name != "h0"} == {(1, 4)}
    assert len(ranked["h0"].items) == 5
    assert not any(item.default_vector or item.unknown_item for one in ranked.values() for item in one.items)
    assert {one.user_tier for one in ranked.values()} == {"attributes"}


def test_unknown_users_and_items_are_answered_and_flagged(reki):
    answer = rank_over_http(reki, "nobody", ["n001", "no-such-item"]).json()
    assert answer["unknown_user"]
    assert answer["user_default_vector"]
    flags = {item["item"]: (item["unknown_item"], item["default_vector"]) for item in answer["items"]}
    assert flags == {"n001": (False, False), "no-such-item": (True, True)}


def test_no_candidates_or_too_many_are_refused_with_what_was_got_and_wanted(reki):
    for candidates in ([], [f"c{n}" for n in range(1_001)]):
        answer = rank_over_http(reki, "u0", candidates)
        assert answer.status_code == 422
        assert set(answer.json()["error"]) == {"got", "wanted", "todo"}


def test_every_ranking_becomes_one_impression_with_its_labels(reki, ranked):
    impressions = [one for one in reki.typed(IMPRESSIONS) if one.ranking in ranked]  # other tests ask for rankings too
    assert sorted(one.ranking for one in impressions) == sorted(ranked)
    for impression in impressions:
        labels = [(item.item, item.label) for item in impression.items]
        first, second, *_ = ranked[impression.ranking].items
        assert labels == [(first.item, 0.0), (second.item, 1.0)]  # what stands below the click was perhaps not looked at
        assert impression.snapshot == ranked[impression.ranking].snapshot


def test_the_ranker_follows_the_trainers_steps(reki, ranked):
    newest = max(reki.manifests(), key=lambda m: (m.version, m.step))
    assert newest.step > 0
    reki.until(lambda: step(reki) == (newest.version, newest.step), "the ranker has the newest step")


def test_a_removed_item_loses_its_rows_and_an_item_that_comes_back_keeps_them(reki):
    gone, back = some_items(2, first=22)
    removals = [type(one)(item=one.item, published_ms=one.published_ms + 1, removed=True) for one in (gone, back)]
    reki.send(*removals)
    reki.until(lambda: not reki.rows() & {"item:n022", "item:n023"}, "rows gone")
    reki.until(lambda: not reki.rows("augmented_v1") & {"item:n022", "item:n023"}, "augmented rows gone")
    reki.until(
        lambda: {one.key for one in reki.records(VECTORS) if one.record is None} == {"item:n022", "item:n023"}, "tombstones"
    )
    answer = rank_over_http(reki, "u0", ["n022"]).json()
    assert answer["items"][0]["unknown_item"]
    assert answer["items"][0]["default_vector"]
    reki.send(back)
    reki.until(lambda: "item:n023" in reki.rows("augmented_v1"), "the row is back")


def test_a_second_version_is_swapped_as_a_whole_and_never_mixed(reki, ranked):
    before = rank_over_http(reki, "u0", ITEM_IDS[:4]).json()
    assert before["version"] == 1
    trained = reki.command("train", "--json")
    assert trained.returncode == 0, trained.stderr
    seen = []

    def swapped():
        answer = rank_over_http(reki, "u0", ITEM_IDS[:4]).json()
        assert not answer["user_default_vector"]
        assert not any(item["default_vector"] for item in answer["items"])
        seen.append(answer["version"])
        return answer["version"] == 2

    reki.until(swapped, "version 2 in force")
    assert seen == sorted(seen)
    assert any(m.version == 2 and m.state == "ready" for m in reki.manifests())
    known = SUBJECTS - {"item:n022"}
    assert reki.rows("augmented_v2") == known
    assert {one.subject for one in reki.typed(VECTORS) if one.version == 2} >= known
    assert {one.version for one in reki.typed(RANKINGS)} == {1, 2}


def test_encodings_carry_the_encoders_name(reki):
    assert len({one.encoder for one in reki.typed(ENCODINGS)}) == 1
