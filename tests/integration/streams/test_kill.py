"""kill -9 of every role in the middle of a stream: nothing is lost, nothing counts twice."""

import signal
from collections import Counter

import pytest

from contracts.records import InteractionEvent, RankRequest
from contracts.roles import ROLES
from contracts.topics import DEAD_LETTERS, ENCODINGS, IMPRESSIONS, INTERACTIONS, KNOWLEDGE, MODELS, RANKINGS, REQUESTS, VECTORS
from extractor.planning import UserState
from integration.streams.running import DAY_MS, START_MS, some_interactions, some_items
from streams import wiring
from streams.demo.draining import behind, total
from streams.topics import n_records
from streams.training import train_version

pytestmark = pytest.mark.integration

USERS = [f"u{n}" for n in range(5)]
N_FIRST = 12  # items before the first version
WAVE_ITEMS, WAVE_EACH = 4, 3
CANDIDATES = tuple(f"n{n:03d}" for n in range(6))


class Stream:
    """What was sent, wave after wave, and what must therefore come out."""

    def __init__(self, reki):
        self.reki = reki
        self.n_items = 0
        self.n_events = Counter()
        self.labels = {}  # ranking -> {item: label}
        self.n_waves = 0

    def items(self, n):
        self.reki.send(*some_items(n, first=self.n_items))
        self.n_items += n

    def interactions(self, n_each, at_ms):
        known = [f"n{n:03d}" for n in range(self.n_items)]
        events = some_interactions(USERS, known, n_each, at_ms)
        self.n_events.update(event.user for event in events)
        self.reki.send(*events)

    def wave(self):
        """Items, behaviour, and rankings with what became of them."""
        at_ms = START_MS + DAY_MS + self.n_waves * 600_000
        self.n_waves += 1
        self.items(WAVE_ITEMS)
        self.interactions(WAVE_EACH, at_ms)
        for user in USERS:
            name = f"r{self.n_waves}-{user}"
            liked, skipped = CANDIDATES[self.n_waves % 6], CANDIDATES[(self.n_waves + 1) % 6]
            self.labels[name] = {item: float(item == liked) for item in CANDIDATES}
            self.reki.send(
                RankRequest(request=name, user=user, candidates=CANDIDATES, k=6, event_ms=at_ms),
                InteractionEvent(user=user, item=skipped, action="skip", event_ms=at_ms + 5, ranking=name),
                InteractionEvent(user=user, item=liked, action="click", event_ms=at_ms + 6, ranking=name),
            )
            self.n_events[user] += 2

    def close_windows(self):
        at_ms = START_MS + DAY_MS + (self.n_waves + 1) * 600_000
        self.reki.send(*(InteractionEvent(user=user, item="n000", action="view", event_ms=at_ms) for user in USERS))
        self.n_events.update(USERS)

    @property
    def subjects(self):
        return {f"item:n{n:03d}" for n in range(self.n_items)} | {f"user:{user}" for user in USERS}


def rows(reki, collection, dim):
    store = wiring.open_store(reki.settings, collection, dim)
    try:
        return {row.subject for batch in store.scan() for row in batch}
    finally:
        store.close()


def learnt(reki):
    newest = max(reki.manifests(), key=lambda m: (m.version, m.step), default=None)
    return int(newest.metrics.get("n_impressions", 0)) if newest else 0


@pytest.fixture(scope="module")
def stream(make_reki):
    """Every role in a process of its own; each killed while a wave is under way, another wave while it is away, then restarted."""
    reki = make_reki(train={"publish_every_s": 0.1})
    stream = Stream(reki)
    reki.start(*ROLES)
    stream.items(N_FIRST)
    stream.interactions(WAVE_EACH, START_MS + DAY_MS - 600_000)
    reki.until(lambda: rows(reki, f"{reki.prefix}_knowledge", 384) == stream.subjects, "knowledge")
    train_version(reki.settings)
    reki.until_ready(*ROLES)
    progress = {
        "plan": REQUESTS, "extract": KNOWLEDGE, "encode": ENCODINGS, "augment": VECTORS, "join": IMPRESSIONS, "rank": RANKINGS,
        "train": MODELS,
    }  # fmt: skip
    for role in ROLES:
        process = reki.processes[role]
        reki.until(process.ready, f"{role} ready")
        before = n_records(reki.settings, progress[role])
        stream.wave()
        if role not in {"join", "train"}:  # these two wait for event time to go by: they are killed with their windows open
            reki.until(lambda role=role, before=before: n_records(reki.settings, progress[role]) > before, f"{role} at work")
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
        stream.wave()
        process.start()
    stream.close_windows()
    reki.until_ready(*ROLES)
    reki.until(lambda: not total(behind(reki.settings)), "the slow path is done")
    reki.until(lambda: {one.ranking for one in reki.typed(IMPRESSIONS)} >= stream.labels.keys(), "impressions")
    reki.until(lambda: learnt(reki) >= len(stream.labels), "learnt")
    return stream


def test_every_subject_has_its_rows(stream):
    reki = stream.reki
    assert rows(reki, f"{reki.prefix}_knowledge", 384) == stream.subjects
    assert rows(reki, f"{reki.prefix}_augmented_v1", reki.settings.hein.d_aug) == stream.subjects


def test_every_subject_has_its_vector_on_the_changelog(stream):
    assert {one.subject for one in stream.reki.typed(VECTORS)} == stream.subjects


def test_every_interaction_counts_once_in_its_users_state(stream):
    reki = stream.reki
    changelog = reki.changelog("plan", "histories")
    states = {user.decode(): UserState.unpack(packed) for user, packed in changelog.items()}
    assert {user: state.n_events for user, state in states.items()} == dict(stream.n_events)
    assert n_records(reki.settings, INTERACTIONS) == stream.n_events.total()


def test_every_request_has_its_ranking(stream):
    assert {one.ranking for one in stream.reki.typed(RANKINGS)} == stream.labels.keys()


def test_every_ranking_has_one_impression_with_its_labels(stream):
    found = {}
    for impression in stream.reki.typed(IMPRESSIONS):
        assert found.setdefault(impression.ranking, impression) == impression  # twice is the same again
    labels = {name: {item.item: item.label for item in one.items} for name, one in found.items()}
    assert labels == stream.labels


def test_every_impression_is_learnt_once(stream):
    assert learnt(stream.reki) == len(stream.labels)


def test_nothing_became_a_dead_letter(stream):
    assert stream.reki.typed(DEAD_LETTERS) == []
