"""kill -9 of every role in the middle of a stream: nothing is lost, nothing counts twice."""

import signal
from collections import Counter
from contextlib import suppress

import psutil
import pytest

from contracts.records import InteractionEvent, RankRequest
from contracts.roles import ROLES
from contracts.topics import (
    DEAD_LETTERS,
    ENCODINGS,
    IMPRESSIONS,
    INTERACTIONS,
    ITEMS,
    KNOWLEDGE,
    MODELS,
    RANKINGS,
    REQUESTS,
    VECTORS,
)
from extractor.planning import UserState
from integration.streams.running import DAY_MS, START_MS, some_interactions, some_items
from streams.demo.draining import behind, total
from streams.demo.reading import taken_in
from streams.embedded.supervision import HOME_MARK
from streams.topics import n_records
from streams.training import train_version

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # kafka-python's, of refused connections
]

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
        self.touched = {}  # ranking -> (skipped, liked)
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
            self.touched[name] = (skipped, liked)
            self.reki.send(
                RankRequest(request=name, user=user, candidates=CANDIDATES, k=6, event_ms=at_ms),
                InteractionEvent(user=user, item=skipped, action="skip", event_ms=at_ms + 5, ranking=name),
                InteractionEvent(user=user, item=liked, action="click", event_ms=at_ms + 6, ranking=name),
            )
            self.n_events[user] += 2

    def close_windows(self):
        at_ms = START_MS + DAY_MS + self.n_waves * 600_000
        self.n_waves += 1
        self.reki.send(*(InteractionEvent(user=user, item="n000", action="view", event_ms=at_ms) for user in USERS))
        self.n_events.update(USERS)

    def settle(self):
        """Let time go by, so that every window closes; return when everything is through."""
        self.close_windows()
        reki = self.reki
        reki.until(lambda: {one.ranking for one in reki.typed(RANKINGS)} >= self.touched.keys(), "rankings")
        reki.until(lambda: {one.ranking for one in reki.typed(IMPRESSIONS)} >= self.touched.keys(), "impressions")
        reki.until(lambda: self.n_learnt() >= len(self.touched), "learnt")
        reki.until(lambda: not total(behind(reki.settings)), "the slow path is done")

    def n_learnt(self):
        newest = max(self.reki.manifests(), key=lambda m: (m.version, m.step))
        return int(newest.metrics.get("n_impressions", 0))

    def n_counted(self):
        """Interactions in each user's state, as the plan role's table would come back."""
        packed = self.reki.changelog("plan", "users")
        return {user.decode(): UserState.unpack(state).n_events for user, state in packed.items()}

    def impressions(self):
        """Labels by ranking; an impression that was written twice must be the same both times."""
        found = {}
        for impression in self.reki.typed(IMPRESSIONS):
            assert found.setdefault(impression.ranking, impression) == impression
        return {name: {item.item: item.label for item in one.items} for name, one in found.items()}

    def labels(self):
        """What every impression must say: the items down to the last one that was touched, by the first ranking of each id."""
        found = {}
        for ranking in self.reki.typed(RANKINGS):
            skipped, liked = self.touched[ranking.ranking]
            order = [one.item for one in ranking.items]
            seen = order[: max(order.index(skipped), order.index(liked)) + 1]
            found.setdefault(ranking.ranking, {item: float(item == liked) for item in seen})
        return found

    @property
    def subjects(self):
        return {f"item:n{n:03d}" for n in range(self.n_items)} | {f"user:{user}" for user in USERS}


OUT = {
    "plan": REQUESTS, "extract": KNOWLEDGE, "encode": ENCODINGS, "augment": VECTORS, "rank": RANKINGS, "join": IMPRESSIONS,
    "train": MODELS,
}  # fmt: skip


@pytest.fixture(scope="module")
def stream(make_reki):
    """Every role in a process of its own; each killed while a wave is under way, another wave while it is away, then restarted."""
    reki = make_reki(train={"publish_every_s": 0.1})
    stream = Stream(reki)
    reki.start(*ROLES)
    stream.items(N_FIRST)
    stream.interactions(WAVE_EACH, START_MS + DAY_MS - 600_000)
    reki.until(lambda: reki.rows() == stream.subjects, "knowledge")
    train_version(reki.settings)
    reki.until_ready(*ROLES)
    for role, out in OUT.items():
        before = n_records(reki.settings, out)
        stream.wave()
        reki.until(lambda out=out, before=before: n_records(reki.settings, out) > before, f"{role} at work")
        assert reki.processes[role].end(signal.SIGKILL) == -signal.SIGKILL
        stream.wave()
        reki.processes[role].start()
    reki.until_ready(*ROLES)
    stream.settle()
    return stream


def test_every_subject_has_its_rows_and_its_vector_on_the_changelog(stream):
    assert stream.reki.rows() == stream.subjects
    assert stream.reki.rows("augmented_v1") == stream.subjects
    assert {one.subject for one in stream.reki.typed(VECTORS)} == stream.subjects


def test_every_interaction_counts_once_in_its_users_state(stream):
    assert stream.n_counted() == dict(stream.n_events)
    assert n_records(stream.reki.settings, INTERACTIONS) == stream.n_events.total()
    assert taken_in(stream.reki.settings) == {ITEMS.name: stream.n_items, INTERACTIONS.name: stream.n_events.total()}


def test_every_request_has_its_ranking(stream):
    assert {one.ranking for one in stream.reki.typed(RANKINGS)} == stream.touched.keys()


def test_every_ranking_has_one_impression_with_its_labels(stream):
    assert stream.impressions() == stream.labels()


def test_every_impression_is_learnt_once(stream):
    assert stream.n_learnt() == len(stream.touched)


def test_nothing_became_a_dead_letter(stream):
    assert stream.reki.typed(DEAD_LETTERS) == []


@pytest.mark.parametrize("service", ["kafka.Kafka", "milvus_lite"])
def test_a_service_that_is_killed_and_comes_back_costs_nothing_and_no_role_restarts(stream, services, service):
    pids = {role: process.process.pid for role, process in stream.reki.processes.items()}
    stream.wave()
    (killed,) = [one for one in children_of(services.home) if any(service in word for word in one.cmdline())]
    killed.kill()  # its supervisor starts it again
    killed.wait(timeout=20)
    stream.wave()
    stream.settle()
    assert stream.reki.rows() == stream.reki.rows("augmented_v1") == stream.subjects
    assert stream.n_counted() == dict(stream.n_events)
    assert stream.impressions() == stream.labels()
    assert stream.n_learnt() == len(stream.touched)
    assert stream.reki.typed(DEAD_LETTERS) == []
    assert {role: process.process.pid for role, process in stream.reki.processes.items() if process.alive()} == pids


def children_of(home):
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(HOME_MARK) == str(home.resolve()):
                found.append(process)
    return found
