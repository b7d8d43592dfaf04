"""The codec: what goes out comes back; what does not fit is refused with what was got and wanted."""

import json
import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts import topics as all_topics
from contracts.actions import liked
from contracts.codec import FAR_FUTURE_MS, MAX_RECORD_BYTES, decode, encode, key_of, schemas
from contracts.errors import RecordError
from contracts.precedence import TIER_RANK, supersedes
from contracts.records import (
    AugmentedVector,
    Cluster,
    DeadLetter,
    EncodedKnowledge,
    FeatureSnapshot,
    HistoryEntry,
    HistoryItem,
    Impression,
    InteractionEvent,
    ItemEvent,
    Knowledge,
    KnowledgeRequest,
    LabelledItem,
    Member,
    ModelManifest,
    Ranking,
    RankRequest,
    ScoredItem,
)  # fmt: skip
from contracts.topics import INTERACTIONS, ITEMS, TOPICS

NOW_MS = 1_800_000_000_000
PRINTABLE = st.characters(exclude_categories=["Cc", "Cs"])
ids = st.text(PRINTABLE, min_size=1, max_size=12)
words = st.text(PRINTABLE, min_size=1, max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ms = st.integers(0, NOW_MS)
finite = st.floats(allow_nan=False, allow_infinity=False)
attributes = st.dictionaries(words, st.lists(words, max_size=3).map(tuple), max_size=3)
titles = texts.filter(str.strip)
items = st.builds(ItemEvent, item=ids, published_ms=ms, title=titles, text=texts, attributes=attributes, removed=st.booleans())
interactions = st.one_of(
    st.builds(
        InteractionEvent, user=ids, item=ids, event_ms=ms, ranking=st.none() | ids, value=st.none() | finite,
        action=st.sampled_from(["view", "click", "read", "like", "dislike", "purchase", "share", "skip"]),
    ),
    st.builds(InteractionEvent, user=ids, item=ids, event_ms=ms, action=st.just("rate"), value=finite),
)  # fmt: skip
subjects = st.builds("{}:{}".format, st.sampled_from(["item", "user", "cluster"]), ids)
tiers = st.sampled_from(sorted(TIER_RANK))
vectors = st.lists(st.floats(width=32), min_size=1, max_size=4).map(
    lambda v: msgspec.msgpack.encode(v)[:4].ljust(4, b"\0") * len(v)
)
histories = st.lists(
    st.builds(
        HistoryEntry, item=ids, title=texts, action=st.just("click"), event_ms=ms, liked=st.none() | st.booleans(),
        value=st.none() | finite, attributes=attributes,
    ),
    max_size=2,
).map(tuple)  # fmt: skip
snapshots = st.builds(
    FeatureSnapshot, user_vector=st.none() | vectors, history=st.lists(st.builds(HistoryItem, item=ids), max_size=2).map(tuple)
)
RECORDS = {
    ItemEvent: items,
    InteractionEvent: interactions,
    KnowledgeRequest: st.builds(
        KnowledgeRequest, subject=subjects, mode=st.sampled_from(["individual", "collective"]), reason=st.just("new_item"),
        priority=finite, as_of_ms=ms, trigger_ms=ms, source_hash=texts, item=st.none() | items, history=histories, previous=texts,
        members=st.lists(st.builds(Member, subject=subjects, text=texts), max_size=2).map(tuple), cluster_size=st.integers(0, 9),
        common=st.dictionaries(words, st.lists(texts, max_size=2).map(tuple), max_size=2),
    ),
    Cluster: st.builds(
        Cluster, subject=subjects, centre=vectors, space=words, n_learnt=st.integers(0, 9), n_members=st.integers(0, 9), as_of_ms=ms,
        asked_centre=st.just(b"") | vectors, asked_n_members=st.integers(0, 9),
    ),
    Knowledge: st.builds(
        Knowledge, subject=subjects, factors=st.dictionaries(words, texts, max_size=3), summary=texts, tier=tiers, backend=words,
        scenario=words, prompt_version=words, model=texts, as_of_ms=ms, trigger_ms=ms, tokens_in=st.none() | st.integers(0, 9),
    ),
    EncodedKnowledge: st.builds(
        EncodedKnowledge, subject=subjects, vector=vectors, encoder=words, tier=tiers, as_of_ms=ms, trigger_ms=ms, text_hash=texts
    ),
    AugmentedVector: st.builds(
        AugmentedVector, subject=subjects, vector=vectors, version=st.integers(1, 99), tier=tiers, as_of_ms=ms, trigger_ms=ms
    ),
    RankRequest: st.builds(
        RankRequest, request=ids, user=ids, candidates=st.lists(ids, min_size=1, max_size=4).map(tuple), k=st.integers(1, 99),
        event_ms=ms, context=st.dictionaries(words, words, max_size=2),
    ),
    Ranking: st.builds(
        Ranking, ranking=ids, user=ids, version=st.integers(1, 9), step=st.integers(0, 9), event_ms=ms, took_ms=finite,
        items=st.lists(st.builds(ScoredItem, item=ids, score=finite, tier=st.none() | tiers), max_size=3).map(tuple),
        snapshot=snapshots,
    ),
    Impression: st.builds(
        Impression, ranking=ids, user=ids, version=st.integers(1, 9), step=st.integers(0, 9), event_ms=ms, snapshot=snapshots,
        items=st.lists(
            st.builds(LabelledItem, item=ids, label=st.sampled_from([0.0, 1.0]), score=finite, position=st.integers(0, 9)), max_size=3
        ).map(tuple),
    ),
    ModelManifest: st.builds(
        ModelManifest, version=st.integers(1, 9), step=st.integers(0, 9), state=st.sampled_from(["trained", "ready", "retired"]),
        backbone=words, weights=words, sha256=words, collection=words, encoder=words, d_text=st.integers(1, 9),
        d_aug=st.integers(1, 9), created_ms=ms, metrics=st.dictionaries(words, finite, max_size=3),
    ),
    DeadLetter: st.builds(
        DeadLetter, topic=words, partition=st.integers(0, 9), offset=st.integers(0, 9), stage=words, reason=texts, at_ms=ms,
        key=st.none() | st.binary(max_size=4), value=st.none() | st.binary(max_size=9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
@given(draw=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_record_comes_back_as_it_went_out(topic, draw):
    record = draw.draw(RECORDS[topic.record])
    raw = encode(topic, record)
    assert decode(topic, raw, as_type=topic.record, now_ms=NOW_MS) == record
    assert key_of(topic, record).decode() == str(getattr(record, topic.key))


def test_every_topic_has_a_schema_and_distinct_name():
    assert {topic.record.__name__ for topic in TOPICS} <= schemas().keys()
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
    named = {value for value in vars(all_topics).values() if isinstance(value, all_topics.Topic)}
    assert named == set(TOPICS)


INTERACTION = {"user": "u", "item": "i", "action": "click", "event_ms": 5}
ITEM = {"item": "i", "published_ms": 5, "title": "T"}


def changed(record, **changes):
    return json.dumps({**record, **changes}).encode()


BAD = {
    "not JSON": (INTERACTIONS, b"{", "truncated"),
    "not UTF-8": (INTERACTIONS, b'{"user": "\xff"}', "utf-8"),
    "nothing": (INTERACTIONS, b"", "truncated"),
    "a list": (INTERACTIONS, b"[]", "Expected `object`, got `array`"),
    "nested without end": (INTERACTIONS, b'{"user":' + b"[" * 100_000, "got"),
    "a missing field": (INTERACTIONS, b'{"user": "u", "action": "click", "event_ms": 5}', "missing required field `item`"),
    "an unknown field": (INTERACTIONS, changed(INTERACTION, extra=1), "unknown field `extra`"),
    "a wrong type": (INTERACTIONS, changed(INTERACTION, item=7), "Expected `str`, got `int` - at `$.item`"),
    "a number as text": (INTERACTIONS, changed(INTERACTION, event_ms="5"), "Expected `int`, got `str`"),
    "an unknown action": (INTERACTIONS, changed(INTERACTION, action="lick"), "Invalid enum value 'lick'"),
    "a rating without value": (INTERACTIONS, changed(INTERACTION, action="rate"), "needs a `value`"),
    "a negative time": (INTERACTIONS, changed(INTERACTION, event_ms=-1), "Expected `int` >= 0"),
    "a far-future time": (INTERACTIONS, changed(INTERACTION, event_ms=NOW_MS + FAR_FUTURE_MS + 1), "at most a day after now"),
    "a time beyond all calendars": (INTERACTIONS, changed(INTERACTION, event_ms=10**17), "253402300799999"),
    "a far-future publication": (ITEMS, changed(ITEM, published_ms=NOW_MS + FAR_FUTURE_MS + 1), "at most a day after now"),
    "NaN": (INTERACTIONS, b'{"user":"u","item":"i","action":"rate","event_ms":5,"value":NaN}', "invalid character"),
    "infinity": (INTERACTIONS, b'{"user":"u","item":"i","action":"rate","event_ms":5,"value":1e999}', "value"),
    "a text of 1 MB": (ITEMS, changed(ITEM, text="x" * 1_000_000), f"at most {MAX_RECORD_BYTES} bytes"),
    "a long text": (ITEMS, changed(ITEM, text="x" * 20_001), "length <= 20000"),
    "a new line in an id": (INTERACTIONS, changed(INTERACTION, user="u\n"), "regex"),
    "a zero byte in an id": (ITEMS, changed(ITEM, item="i\0"), "regex"),
    "an empty id": (ITEMS, changed(ITEM, item=""), "length >= 1"),
    "a long id": (ITEMS, changed(ITEM, item="i" * 257), "length <= 256"),
    "no title": (ITEMS, changed(ITEM, title="  "), "needs a title"),
    "many attributes": (ITEMS, changed(ITEM, attributes={f"a{n}": [] for n in range(65)}), "length <= 64"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_record_is_refused_with_what_was_got_and_wanted(what):
    topic, raw, words_in_it = BAD[what]
    with pytest.raises(RecordError) as caught:
        decode(topic, raw, as_type=topic.record, now_ms=NOW_MS)
    message = str(caught.value)
    assert words_in_it in message
    assert message.startswith("got ")
    assert "; wanted " in message
    assert len(message) < 1_000
    assert message.isprintable()
    assert not caught.value.retriable


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_record_error(raw):
    for topic in TOPICS:
        try:
            decode(topic, raw, as_type=topic.record, now_ms=NOW_MS)
        except RecordError as error:
            assert str(error)  # noqa: PT017 either outcome is right


def test_an_event_of_the_next_hours_is_let_in_clocks_differ():
    raw = changed(INTERACTION, event_ms=NOW_MS + FAR_FUTURE_MS)
    assert decode(INTERACTIONS, raw, as_type=InteractionEvent, now_ms=NOW_MS).event_ms == NOW_MS + FAR_FUTURE_MS


@given(value=finite)
def test_a_rating_is_liked_above_three_stars_and_other_actions_do_not_look_at_the_value(value):
    assert liked("rate", value) is (value > 3)
    assert liked("click", value) is True
    assert liked("skip", value) is False
    assert liked("view", value) is None


def test_a_rating_without_value_says_nothing():
    assert liked("rate", None) is None
    assert liked("rate", math.nextafter(3.0, 4.0)) is True


states = st.tuples(tiers, st.integers(0, 5), st.sampled_from(["", "a", "b"]))


@given(kind=st.sampled_from(["item:i", "user:u"]), state=states)
def test_nothing_supersedes_itself_and_everything_supersedes_nothing(kind, state):
    assert supersedes(kind, state, None)
    assert not supersedes(kind, state, state)


@given(kind=st.sampled_from(["item:i", "user:u"]), one=states, other=states)
def test_of_two_at_most_one_supersedes(kind, one, other):
    assert not (supersedes(kind, one, other) and supersedes(kind, other, one))


@given(arrived=st.lists(states.filter(lambda s: s[2] != ""), min_size=1, max_size=6), draw=st.data())
def test_a_users_knowledge_ends_the_same_in_any_order_of_arrival(arrived, draw):
    def last(records):
        stands = None
        for record in records:
            stands = record if supersedes("user:u", record, stands) else stands
        return stands[:2]

    assert last(arrived) == last(draw.draw(st.permutations(arrived)))


def test_newer_content_of_an_item_wins_over_a_better_tier_of_the_old_content():
    assert supersedes("item:i", ("attributes", 2, "new"), ("individual", 1, "old"))
    assert not supersedes("item:i", ("individual", 1, "old"), ("attributes", 2, "new"))
    assert supersedes("item:i", ("individual", 1, "same"), ("attributes", 2, "same"))
    assert not supersedes("user:u", ("attributes", 2, "new"), ("individual", 1, "old"))
