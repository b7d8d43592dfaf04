"""What the topics and the store say: everything in the demo's summary but the counts of what was sent comes from here."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from contracts.records import AugmentedVector, DeadLetter, Impression, Knowledge, ModelManifest, Ranking
from contracts.settings import Settings
from contracts.subjects import split_subject
from contracts.topics import (
    DEAD_LETTERS,
    IMPRESSIONS,
    INTERACTIONS,
    ITEMS,
    KNOWLEDGE,
    PLANNED_ITEMS,
    PLANNED_USERS,
    RANKINGS,
    VECTORS,
    Topic,
)
from extractor.planning import UserState
from streams.broker import whole_log
from streams.tail import Tail, Tailed
from streams.topics import topic_name

PERCENTS: Final = (50, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good some scores are, over labelled items."""

    n_items: int
    n_liked: int
    auc: float | None
    log_loss: float | None
    gauc: float | None


@dataclass(slots=True)
class Rankings:
    """What the rankings topic holds."""

    n: int = 0
    n_items: int = 0
    n_default_items: int = 0
    n_unknown_items: int = 0
    took_ms: list[float] = field(default_factory=list)
    versions: Counter[int] = field(default_factory=Counter)


def records(settings: Settings, topic: Topic) -> Iterator[Tailed]:
    """Every record of a topic, up to what is there now."""
    with Tail(settings, [topic]) as tail:
        yield from tail.to_end()


def dead_letters(settings: Settings) -> list[DeadLetter]:
    """The records that each stage could not use, without them: one letter for each, however often it was refused."""
    found: dict[tuple[str, str, int, int], DeadLetter] = {}
    for one in records(settings, DEAD_LETTERS):
        if isinstance(letter := one.record, DeadLetter):
            found[letter.stage, letter.topic, letter.partition, letter.offset] = replace(letter, key=None, value=None)
    return list(found.values())


def dead_letter_reasons(letters: Iterable[DeadLetter], most: int = 5) -> dict[str, int]:
    """The most frequent reasons, cut, with how often they were given."""
    return dict(Counter(f"{letter.topic}: {letter.reason[:160]}" for letter in letters).most_common(most))


def taken_in(settings: Settings) -> dict[str, int]:
    """What the plan role has in its own state, by topic: items it has seen, and the interactions counted in its users' states.

    It counts what it has worked into a state, once however often it was delivered; offsets have no part in it.
    """
    items = {message.key for message in whole_log(settings, topic_name(settings, PLANNED_ITEMS))}
    users = {message.key: message.value for message in whole_log(settings, topic_name(settings, PLANNED_USERS))}
    return {
        ITEMS.name: len(items),
        INTERACTIONS.name: sum(UserState.unpack(packed).n_events for packed in users.values() if packed is not None),
    }


def knowledge_made(settings: Settings) -> Counter[tuple[str, str, str, str]]:
    """Knowledge records by (kind of subject, backend, model, tier)."""
    made = (one.record for one in records(settings, KNOWLEDGE))
    return Counter((split_subject(k.subject)[0], k.backend, k.model, k.tier) for k in made if isinstance(k, Knowledge))


def rankings(settings: Settings) -> Rankings:
    """What was answered; a ranking written twice counts once."""
    found, seen = Rankings(), set[str]()
    for one in records(settings, RANKINGS):
        ranking = one.record
        if not isinstance(ranking, Ranking) or ranking.ranking in seen:
            continue
        seen.add(ranking.ranking)
        found.n += 1
        found.n_items += len(ranking.items)
        found.n_default_items += sum(item.default_vector for item in ranking.items)
        found.n_unknown_items += sum(item.unknown_item for item in ranking.items)
        found.took_ms.append(ranking.took_ms)
        found.versions[ranking.version] += 1
    return found


def served_quality(settings: Settings) -> tuple[int, Quality]:
    """Number of impressions, and how good the scores were that were served."""
    from ranker.quality import auc, log_loss

    by_ranking: dict[str, tuple[list[float], list[float]]] = {}
    for one in records(settings, IMPRESSIONS):
        if isinstance(impression := one.record, Impression):
            items = impression.items
            by_ranking[impression.ranking] = ([item.label for item in items], [item.score for item in items])
    labels = np.array([label for labels, _ in by_ranking.values() for label in labels], dtype=np.float64)
    scores = np.array([score for _, scores in by_ranking.values() for score in scores], dtype=np.float64)
    inside = [(auc(np.array(labels), np.array(scores)), len(labels)) for labels, scores in by_ranking.values()]
    both = [(found, n) for found, n in inside if found is not None]  # weighted by size, as in `ranker.quality`
    return len(by_ranking), Quality(
        n_items=len(labels),
        n_liked=int((labels > 0).sum()),
        auc=auc(labels, scores) if len(labels) else None,
        log_loss=log_loss(labels, scores) if len(labels) else None,
        gauc=float(np.average([found for found, _ in both], weights=[n for _, n in both])) if both else None,
    )


def event_to_vector_ms(settings: Settings, since_ms: int) -> dict[str, list[float]]:
    """Wall-clock time from an event's arrival at the broker to its vector's, by kind of subject, of events since then.

    The backfill of a new version is not counted: its events came before. Nor is a vector that is sent again because the same
    knowledge came again: the event that made it is answered by the first.
    """
    waited: dict[str, list[float]] = defaultdict(list)
    seen = set[tuple[str, int]]()
    for one in records(settings, VECTORS):
        if isinstance(vector := one.record, AugmentedVector) and vector.trigger_ms >= since_ms:
            if (vector.subject, vector.trigger_ms) in seen:
                continue
            seen.add((vector.subject, vector.trigger_ms))
            waited[split_subject(vector.subject)[0]].append(float(one.at_ms - vector.trigger_ms))
    return dict(waited)


def percentiles(values: list[float]) -> dict[str, float] | None:
    """p50 and p99, and how many values; None where there are none."""
    if not values:
        return None
    found = np.percentile(np.asarray(values), PERCENTS)
    return {"n": len(values), **{f"p{percent}": round(float(value), 2) for percent, value in zip(PERCENTS, found, strict=True)}}


def stored_vectors(settings: Settings, manifest: ModelManifest | None) -> dict[str, dict[str, int]]:
    """Rows by collection and kind of subject, counted in the vector store."""
    from streams import wiring

    stores: dict[str, Any] = {"knowledge": wiring.knowledge_store(settings)}
    if manifest is not None:
        stores[manifest.collection] = wiring.open_store(settings, manifest.collection, manifest.d_aug)
    found: dict[str, dict[str, int]] = {}
    for name, store in stores.items():
        try:
            kinds = Counter[str](split_subject(row.subject)[0] for rows in store.scan() for row in rows)
        finally:
            store.close()
        found[name] = dict(kinds)
    return found
