"""The extract stage: who is asked, what stands in until the answer is there, and which answer counts. One call per event.

A subject is in one of three states, all in its `Subject` (`extractor.subject_state`):

    waiting            asked is in the queue; what stands is of an earlier request, of a tier below, or nothing
    served from below  the language model is not asked (`extract.individual`), or its answer could not be used
    answered           what stands answers asked

What was imported for a subject waits under it and answers a request that it fits without asking. Nothing is said that is no
better than what stands (`contracts.precedence`). The stage changes its states at once and gives back what is to be said; whoever
calls it makes first the one and then the other safe (`streams.roles.steps`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from contracts.errors import AnswerError, RecordError
from contracts.precedence import supersedes
from contracts.records import EncodedKnowledge, Knowledge, KnowledgeRequest, Tier
from extractor.answers import RejectedAnswerError
from extractor.backends.attributes import AttributesBackend
from extractor.subject_state import Subject, dated, has_text, is_cluster, standing, usable_import

if TYPE_CHECKING:
    from contracts.settings import Extract
    from extractor.asking import Answer
    from extractor.scenario import Scenario

_MAX_UNPLACED: Final = 50_000  # vectors of 1.5 kB
_MAX_REMOVED: Final = 10_000  # far more than are under way at once


class States(Protocol):
    """The subjects of this worker."""

    def get(self, subject: str) -> Subject | None:
        """What is kept of a subject."""
        ...

    def put(self, subject: str, state: Subject | None) -> None:
        """Keep it; None: forget the subject."""
        ...


class Queue(Protocol):
    """Where requests wait for the language model: `extractor.asking.Asking`."""

    def ask(self, request: KnowledgeRequest) -> None:
        """Ask when its turn comes; replaces what waits for the same subject."""
        ...

    def forget(self, subject: str) -> None:
        """Ask no more about a subject."""
        ...


class Clusters(Protocol):
    """Who is like whom: `extractor.membership.Membership`."""

    def nearest(self, encoded: EncodedKnowledge) -> str | None:
        """The subject of the cluster that a vector is nearest to, empty for none; None: none of its kind and space is known."""
        ...

    def member_knowledge(self, own: Knowledge, cluster: str) -> Knowledge | None:
        """Knowledge of tier collective: the cluster's text with the member's own; None where nothing is known of the cluster."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionFailure:
    """A request that no knowledge can be made for, however often it is tried: it belongs into the dead letters."""

    request: KnowledgeRequest
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A subject that is gone."""

    subject: str


Said = Knowledge | Removal | ExtractionFailure


class Extraction:
    """The stage.

    ``counts`` tells what became of requests: ``imported``, ``made``, ``stood in: <reason>`` (the model's answer could not be
    used, so the tier below is what there is), ``kept`` (what stands is as good and as new), ``failed``, and while they wait or
    where nobody asks for them: ``attributes first`` and ``collective``. ``n_spared`` counts requests that were not made because
    their subject is served by its cluster for good (`extract.individual` off).

    Args:
        settings: When the tier below stands in, and whether single subjects are asked about.
        scenario: For the tier below.
        states: What is kept of the subjects.
        queue: Of the language model; None: there is none, attributes are all there is.
        clusters: None: nobody clusters.
    """

    def __init__(
        self, settings: Extract, scenario: Scenario, states: States, queue: Queue | None = None, clusters: Clusters | None = None
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.n_spared = 0
        self._settings = settings
        self._attributes: Final = AttributesBackend(scenario)
        self._states = states
        self._queue = queue
        self._clusters = clusters
        # who may need a stand-in, and when (s): in the order of time, since all wait equally long
        self._late: dict[str, float] = {}
        self._members: defaultdict[str, set[str]] = defaultdict(set)  # by cluster
        self._unplaced: dict[str, EncodedKnowledge] = {}  # until clusters of their kind and space are known
        self._removed: dict[str, None] = {}  # while they waited: an answer may still come

    def requested(self, request: KnowledgeRequest, offset: int, now_s: float) -> list[Said]:
        """A request: answered by what was imported, by what stands, or asked.

        Raises:
            RecordError: The language model is not asked, and there is nothing to take from the request's attributes.
        """
        subject, before = request.subject, self._states.get(request.subject) or Subject()
        request = dated(request, offset, before)
        state = msgspec.structs.replace(before, asked=request, offset=offset)
        imported = before.imported
        if imported is not None and usable_import(request, imported) and self._improves(state, imported):
            self.counts["imported"] += 1
            said = msgspec.structs.replace(imported, trigger_ms=request.trigger_ms)
            return self._say(subject, self._answered(subject, state), said)
        if not supersedes(subject, (self._tier(subject), request.as_of_ms, request.source_hash), before.stands):
            self.counts["kept"] += 1
            return self._keep(subject, self._answered(subject, state))
        if self._queue is None:
            return self._without_a_model(subject, self._answered(subject, state), request)
        if not (self._settings.individual or is_cluster(subject)):
            self.n_spared += 1
            return self._say_from_below(subject, self._answered(subject, state))
        self._ask(subject, msgspec.structs.replace(state, waiting=True), now_s)
        return []

    def imported(self, subject: str, imported: Knowledge | None, trigger_ms: int) -> list[Said]:
        """Knowledge made elsewhere (None: it is taken back); used at once where its subject was asked about and it is better."""
        state = msgspec.structs.replace(self._states.get(subject) or Subject(), imported=imported)
        if (
            imported is None
            or state.asked is None
            or not usable_import(state.asked, imported)
            or not self._improves(state, imported)
        ):
            return self._keep(subject, state)
        asked = state.asked
        if not supersedes(subject, (self._tier(subject), asked.as_of_ms, asked.source_hash), standing(imported)):
            state = self._answered(subject, state)
        return self._say(subject, state, msgspec.structs.replace(imported, trigger_ms=trigger_ms))

    def removed(self, subject: str) -> list[Said]:
        """A subject is gone, but for its import, which its own topic takes back: between two topics there is no order."""
        before = self._states.get(subject) or Subject()
        self._leave(subject, before)
        if before.waiting:
            self._removed[subject] = None
            if len(self._removed) > _MAX_REMOVED:
                del self._removed[next(iter(self._removed))]
        self._keep(subject, Subject(imported=before.imported))
        return [Removal(subject)]

    def answered(self, answer: Answer) -> list[Said]:
        """What the language model said of a request."""
        request, result = answer
        state = self._states.get(request.subject)
        if state is None or state.asked is None:
            return []  # removed meanwhile
        is_last = (state.asked.as_of_ms, state.asked.source_hash) == (request.as_of_ms, request.source_hash)
        if is_last:
            self._removed.pop(request.subject, None)
            state = self._answered(request.subject, state)
        elif not isinstance(result, Knowledge) or request.subject in self._removed:
            return []  # a newer request is under way
        if isinstance(result, Knowledge):
            if not self._improves(state, result):
                self.counts["kept"] += 1
                return self._keep(request.subject, state)
            self.counts["made"] += 1
            return self._say(request.subject, state, result)
        if isinstance(result, AnswerError):
            reason = result.reason if isinstance(result, RejectedAnswerError) else "other"
            self.counts[f"stood in: {reason}"] += 1
            return self._from_below(request.subject, state, counted=True)
        self.counts["failed"] += 1
        self._keep(request.subject, state)
        words = str(result) if isinstance(result, RecordError) else f"{type(result).__name__}: {result}"
        return [ExtractionFailure(request=request, offset=state.offset, reason=words)]

    def stand_ins(self, now_s: float) -> list[Said]:
        """What the tier below says of subjects that have waited long enough."""
        said: list[Said] = []
        while self._late and next(iter(self._late.values())) <= now_s:
            subject = next(iter(self._late))
            del self._late[subject]
            state = self._states.get(subject)
            if state is not None and state.waiting:
                said += self._from_below(subject, state)
        return said

    def encoded(self, encoded: EncodedKnowledge) -> list[Said]:
        """Where a subject's own text is among the vectors: its cluster may say more of it."""
        state = self._states.get(encoded.subject)
        self._unplaced.pop(encoded.subject, None)
        if self._clusters is None or state is None or encoded.tier != "attributes" or not has_text(state):
            return []
        cluster = self._clusters.nearest(encoded)
        if cluster is None:
            self._unplaced[encoded.subject] = encoded
            if len(self._unplaced) > _MAX_UNPLACED:
                del self._unplaced[next(iter(self._unplaced))]
            return []
        if cluster == state.cluster:
            return []
        self._members[state.cluster].discard(encoded.subject)
        return self._from_below(encoded.subject, msgspec.structs.replace(state, cluster=cluster))

    @property
    def n_unplaced(self) -> int:
        """Vectors that wait for clusters of their kind and space: until then, who read them cannot call them done."""
        return len(self._unplaced)

    def clusters_moved(self) -> list[Said]:
        """There are other clusters than before: those that waited for any may have one now."""
        return [said for encoded in [*self._unplaced.values()] for said in self.encoded(encoded)]

    def cluster_said(self, cluster: str) -> list[Said]:
        """There is news of a cluster: its members that have nothing better get it."""
        said: list[Said] = []
        for subject in [*self._members[cluster]]:
            state = self._states.get(subject)
            if state is not None and has_text(state):
                said += self._from_below(subject, state)
        return said

    def arrived(self, subject: str, state: Subject, now_s: float) -> list[Said]:
        """A subject of another worker, or of the time before a restart, is here now.

        What was not answered is asked again, and what was said of its cluster in between is said of it.
        """
        if state.cluster:
            self._members[state.cluster].add(subject)
        if state.waiting and self._queue is not None:
            self._ask(subject, state, now_s)
        with suppress(RecordError):
            if state.cluster and has_text(state) and (made := self._below(state)) is not None:
                return self._say(subject, state, made)
        return []

    def gone(self, subject: str, state: Subject) -> None:
        """A subject is another worker's now."""
        self._leave(subject, state)

    def _tier(self, subject: str) -> Tier:
        """The tier of the best answer that can be had."""
        if is_cluster(subject):
            return "collective"
        return "attributes" if self._queue is None else "individual"

    def _improves(self, state: Subject, answer: Knowledge) -> bool:
        return supersedes(answer.subject, standing(answer), state.stands)

    def _without_a_model(self, subject: str, state: Subject, request: KnowledgeRequest) -> list[Said]:
        if is_cluster(subject):
            self.counts["no language model"] += 1  # an import may answer it
            return self._keep(subject, state)
        self.counts["made"] += 1
        return self._say(subject, state, self._attributes.described(request))

    def _ask(self, subject: str, state: Subject, now_s: float) -> None:
        assert state.asked is not None
        assert self._queue is not None
        request = state.asked
        if state.said and state.stands is not None:
            request = msgspec.structs.replace(request, previous=state.said, previous_as_of_ms=state.stands[1])
        self._states.put(subject, state)
        self._queue.ask(request)
        self._late.pop(subject, None)
        if not is_cluster(subject):
            self._late[subject] = now_s + self._settings.stand_in_after_s

    def _from_below(self, subject: str, state: Subject, *, counted: bool = False) -> list[Said]:
        """What can be said without asking about the subject itself, if that is better than what stands."""
        try:
            return self._say_from_below(subject, state, counted=counted)
        except RecordError:  # where the model was asked it says so too, and the request becomes a dead letter
            return self._keep(subject, state)

    def _say_from_below(self, subject: str, state: Subject, *, counted: bool = False) -> list[Said]:
        made = None if is_cluster(subject) else self._below(state)
        if made is None:
            return self._keep(subject, state)
        if not counted:
            self.counts["collective" if made.tier == "collective" else "attributes first"] += 1
        return self._say(subject, state, made)

    def _below(self, state: Subject) -> Knowledge | None:
        if state.asked is None:
            return None
        made = self._attributes.described(state.asked)
        if self._clusters is not None and state.cluster:
            made = self._clusters.member_knowledge(made, state.cluster) or made
        return made if self._improves(state, made) else None

    def _answered(self, subject: str, state: Subject) -> Subject:
        """The state of a subject that nobody has to be asked about any more."""
        self._late.pop(subject, None)
        if state.waiting and self._queue is not None:
            self._queue.forget(subject)
        return msgspec.structs.replace(state, waiting=False)

    def _say(self, subject: str, state: Subject, made: Knowledge) -> list[Said]:
        said = made.summary if made.tier == "individual" else ""
        self._keep(subject, msgspec.structs.replace(state, stands=standing(made), said=said))
        return [made]

    def _keep(self, subject: str, state: Subject) -> list[Said]:
        """Keep a state; the text of its request only where it may still be needed."""
        asked = state.asked
        if asked is not None and not self._needs_text(state):
            asked = msgspec.structs.replace(asked, item=None, history=(), members=(), common={})
            state = msgspec.structs.replace(state, asked=asked)
        if state.cluster:
            self._members[state.cluster].add(subject)
        self._states.put(subject, None if state == Subject() else state)
        return []

    def _needs_text(self, state: Subject) -> bool:
        if state.waiting:
            return True
        return self._clusters is not None and state.stands is not None and state.stands[0] != "individual"

    def _leave(self, subject: str, state: Subject) -> None:
        self._members[state.cluster].discard(subject)
        self._unplaced.pop(subject, None)
        self._late.pop(subject, None)
        if self._queue is not None:
            self._queue.forget(subject)
