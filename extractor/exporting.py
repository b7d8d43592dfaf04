"""Which subjects still need knowledge of a language model, and the questions about them: what `reki knowledge export` writes.

Whoever reads the topics tells it all records, in the order of each subject; it keeps the last request of every subject and what
is known of it, in a temporary database that lives on disk beyond a bound (so memory does not grow with the subjects), and gives
the questions back in the order of the subjects. The same records give the same questions.

**Items** are asked about as they stand on `items`, which is compacted and so holds every one of them; their requests on
`knowledge-requests` are kept by time only. **Users** are asked about as their last request has it: it carries their history and
the date that the answer may claim (leak guard); nothing else holds both. **Clusters** (tier collective) are asked about as their
last request has them: it carries the members.

**Who is asked about**: whose answer would change anything, by the rule that also decides about every write
(`contracts.precedence`): there is no knowledge, or of a lower tier, or of other content, or older. A subject whose usable answer
was imported and waits to be taken is left out, so an export after half of an import holds the other half.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, cast

import msgspec

from contracts.errors import RecordError
from contracts.precedence import TIER_RANK, supersedes
from contracts.records import ItemEvent, Knowledge, KnowledgeRequest
from contracts.subjects import item_subject, split_subject
from extractor.planning import ItemPlanner
from extractor.prompts import Prompt, build_prompt
from extractor.subject_state import usable_import

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from contracts.records import Tier
    from contracts.subjects import Kind
    from extractor.scenario import Scenario

CACHE_KIB: Final = 65_536  # of the database's pages in memory; what is beyond stands on disk

Why = Literal["no knowledge", "lower tier", "outdated", "asked anyway"]
Side = Literal["item", "user"]
AskedTier = Literal["individual", "collective"]
WhyNot = Literal["up to date", "answer waiting", "nothing to ask about", "request no longer kept"]

_SCHEMA: Final = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE asked (subject TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE known (subject TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE imported (subject TEXT PRIMARY KEY, record BLOB NOT NULL);
BEGIN;
"""
_Table = Literal["asked", "known", "imported"]
_UPSERT: Final[dict[_Table, str]] = {
    "asked": "INSERT INTO asked VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET record = excluded.record",
    "known": "INSERT INTO known VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET record = excluded.record",
    "imported": "INSERT INTO imported VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET record = excluded.record",
}
_DELETE: Final[dict[_Table, str]] = {
    "asked": "DELETE FROM asked WHERE subject = ?",
    "known": "DELETE FROM known WHERE subject = ?",
    "imported": "DELETE FROM imported WHERE subject = ?",
}
# in the order of the subjects' UTF-8 bytes, kind by kind
_ALL: Final = """
SELECT asked.record, known.record, imported.record
FROM asked LEFT JOIN known USING (subject) LEFT JOIN imported USING (subject)
WHERE asked.subject >= ? AND asked.subject < ?
ORDER BY asked.subject
"""
_UNASKED: Final = """
SELECT known.record FROM known LEFT JOIN asked USING (subject)
WHERE asked.subject IS NULL AND known.subject >= ? AND known.subject < ?
"""

_requests = msgspec.msgpack.Decoder(KnowledgeRequest)
_knowledge = msgspec.msgpack.Decoder(Knowledge)


class OpenQuestions:
    """Collects what is asked and known of every subject, then gives the questions that are open.

    ``left_out`` counts, after `questions` was read to its end, why subjects are not asked about.

    Args:
        scenario: What is asked.
        tier: Individual: about items and users; collective: about clusters of them.
        cache_kib: Bound on the memory of the database.
    """

    def __init__(self, scenario: Scenario, *, tier: AskedTier = "individual", cache_kib: int = CACHE_KIB) -> None:
        self.left_out: Counter[WhyNot] = Counter()
        self._scenario = scenario
        self._tier: AskedTier = tier
        self._asks_about: Kind = "user" if tier == "individual" else "cluster"
        self._planner = ItemPlanner(scenario)
        # no name: a temporary file, gone with this process however it ends
        self._rows = sqlite3.connect("", isolation_level=None)
        self._rows.execute(f"PRAGMA cache_size = -{int(cache_kib)}")
        self._rows.executescript(_SCHEMA)

    def item(self, event: ItemEvent, at_ms: int) -> None:
        """An item as it stands on its topic since ``at_ms`` (the broker's time); a removed one is forgotten."""
        request = self._planner.plan(event, None, at_ms)
        if request is None:
            self.no_item(event.item)
        else:
            self._keep("asked", request.subject, request)

    def no_item(self, item: str) -> None:
        """There is no such item any more."""
        self._rows.execute(_DELETE["asked"], (item_subject(item),))

    def request(self, request: KnowledgeRequest) -> None:
        """A request; the last one of a user (a cluster) counts, those of others do not."""
        if split_subject(request.subject)[0] == self._asks_about and request.mode == self._tier:
            self._keep("asked", request.subject, request)

    def no_request(self, subject: str) -> None:
        """Nobody asks about a user or a cluster any more; of items, `no_item` says so."""
        if not subject.startswith("item:"):
            self._rows.execute(_DELETE["asked"], (subject,))

    def knowledge(self, made: Knowledge) -> None:
        """Something that is known of a subject; the better of it and what was known before stands."""
        before = self._rows.execute("SELECT record FROM known WHERE subject = ?", (made.subject,)).fetchone()
        if supersedes(made.subject, _standing(made), _standing(_knowledge.decode(before[0])) if before else None):
            self._keep("known", made.subject, msgspec.structs.replace(made, factors={}))

    def no_knowledge(self, subject: str) -> None:
        """What was known of a subject is withdrawn."""
        self._rows.execute(_DELETE["known"], (subject,))

    def answer(self, imported: Knowledge) -> None:
        """An imported answer; the last one of a subject counts."""
        self._keep("imported", imported.subject, msgspec.structs.replace(imported, factors={}, summary=""))

    def no_answer(self, subject: str) -> None:
        """An imported answer is taken back."""
        self._rows.execute(_DELETE["imported"], (subject,))

    def questions(self, sides: Collection[Side], *, everything: bool = False) -> Iterator[tuple[Why, KnowledgeRequest, Prompt]]:
        """The open questions in the order of their subjects, one at a time, each with the reason for asking.

        Args:
            sides: ``item``, ``user`` or both: the subjects, or what the clusters are of.
            everything: Also those whose answer would change nothing.
        """
        self.left_out.clear()
        for side in sorted(sides):
            between = _between(side, self._tier)
            for asked, *made in self._rows.execute(_ALL, between):
                standing, imported = (_knowledge.decode(packed) if packed else None for packed in made)
                request = _dated(_requests.decode(asked), standing)
                why_not = _why_not(request, self._tier, standing, imported)
                if why_not is not None and not everything:
                    self.left_out[why_not] += 1
                    continue
                if why_not is None:
                    request = _continued(request, standing)
                try:
                    prompt = build_prompt(self._scenario, request)
                except RecordError:
                    self.left_out["nothing to ask about"] += 1
                    continue
                yield "asked anyway" if why_not else _why(standing, self._tier), request, prompt
            if (side, self._tier) != ("item", "individual"):  # an item that nobody asks about is gone
                tiers = (_knowledge.decode(known).tier for (known,) in self._rows.execute(_UNASKED, between))
                self.left_out.update("request no longer kept" for found in tiers if TIER_RANK[found] < TIER_RANK[self._tier])

    def close(self) -> None:
        """Give the memory and the disk back."""
        self._rows.close()

    def _keep(self, table: _Table, subject: str, record: KnowledgeRequest | Knowledge) -> None:
        self._rows.execute(_UPSERT[table], (subject, msgspec.msgpack.encode(record)))


def side_of(subject: str) -> Side:
    """Whose side a subject is on, such as ``item`` for ``item:n1`` and ``cluster:item-3``.

    Raises:
        ValueError: It is on neither.
    """
    kind, ident = split_subject(subject)
    side = ident.partition("-")[0] if kind == "cluster" else kind
    if side not in {"item", "user"}:
        raise ValueError(f"got subject {subject!r}; wanted item:ID, user:ID, cluster:item-N or cluster:user-N")
    return cast("Side", side)


def _between(side: Side, tier: AskedTier) -> tuple[str, str]:
    """The first subject there may be, and the first one after them all."""
    start = f"cluster:{side}-" if tier == "collective" else f"{side}:"
    return start, start[:-1] + chr(ord(start[-1]) + 1)


def _why_not(request: KnowledgeRequest, tier: AskedTier, standing: Knowledge | None, imported: Knowledge | None) -> WhyNot | None:
    """Why no answer is needed; None where one is."""
    answer: tuple[Tier, int, str] = (tier, request.as_of_ms, request.source_hash)
    if standing is not None and not supersedes(request.subject, answer, _standing(standing)):
        return "up to date"
    if imported is not None and usable_import(request, imported) and not supersedes(request.subject, answer, _standing(imported)):
        return "answer waiting"
    return None


def _why(standing: Knowledge | None, tier: AskedTier) -> Why:
    if standing is None:
        return "no knowledge"
    return "lower tier" if TIER_RANK[standing.tier] < TIER_RANK[tier] else "outdated"


def _dated(request: KnowledgeRequest, standing: Knowledge | None) -> KnowledgeRequest:
    """An item's request with the date that planning gives it (`ItemPlanner`): of its publication, or when its content changed."""
    if request.item is None or standing is None or not standing.source_hash:
        return request
    if standing.source_hash == request.source_hash:  # the same content: what is known of it has its date already
        return msgspec.structs.replace(request, as_of_ms=standing.as_of_ms)
    return msgspec.structs.replace(request, reason="changed_item", as_of_ms=max(request.as_of_ms, request.trigger_ms))


def _continued(request: KnowledgeRequest, standing: Knowledge | None) -> KnowledgeRequest:
    """A user's request with what a language model said before, as extraction asks: only about the history since then."""
    if not request.history or standing is None or standing.tier != "individual" or not standing.summary:
        return request
    return msgspec.structs.replace(request, previous=standing.summary, previous_as_of_ms=standing.as_of_ms)


def _standing(made: Knowledge) -> tuple[Tier, int, str]:
    return made.tier, made.as_of_ms, made.source_hash
