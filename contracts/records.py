"""The records that travel between stages. Frozen, keyword-only, validated once, at the edge (`contracts.codec`).

Times are UTC in milliseconds. ``event_ms``, ``published_ms`` and ``as_of_ms`` are event time; ``trigger_ms`` is the broker's
wall-clock time of the record that set the work off, so that event -> vector latency can be read off any later record.
Vectors are raw little-endian float32 bytes.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from msgspec import Meta, Struct

MAX_CANDIDATES = 10_000
MAX_K = 1_000  # a ranking of more items would outgrow what a broker takes in one record
_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)"  # a bare $ would let a new line at the end through

Id = Annotated[str, Meta(min_length=1, max_length=256, pattern=_ONE_LINE, description="an id; no control characters")]
SubjectId = Annotated[
    str,
    Meta(min_length=6, max_length=264, pattern=r"^(item|user|cluster):[^\x00-\x1f\x7f-\x9f]+$(?!\n)", description="kind:id"),
]
Ms = Annotated[int, Meta(ge=0, le=253_402_300_799_999, description="milliseconds since 1970-01-01 UTC")]
Title = Annotated[str, Meta(max_length=1_000)]
Text = Annotated[str, Meta(max_length=20_000)]
Phrase = Annotated[str, Meta(max_length=2_000)]
Word = Annotated[str, Meta(min_length=1, max_length=256)]
Words = Annotated[tuple[Word, ...], Meta(max_length=64)]
Vector = Annotated[bytes, Meta(min_length=4, max_length=65_536, description="raw little-endian float32")]

Action = Literal["view", "click", "read", "like", "dislike", "rate", "purchase", "share", "skip"]
Tier = Literal["attributes", "collective", "individual"]
Mode = Literal["individual", "collective"]
Reason = Literal[
    "new_item",
    "changed_item",
    "new_interactions",
    "drift",
    "old_knowledge",
    "new_cluster",
    "moved_cluster",
    "grown_cluster",
]
ModelState = Literal["trained", "ready", "retired"]


class EdgeRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record written by others: an unknown field is a mistake and is refused."""


class InnerRecord(Struct, frozen=True, kw_only=True):
    """A record written by reki's own stages: unknown fields pass, so that versions can be mixed during an upgrade."""


class ItemEvent(EdgeRecord, frozen=True, kw_only=True):
    """A new or changed item, or its removal."""

    item: Id
    published_ms: Ms
    title: Title = ""
    text: Text = ""
    attributes: Annotated[dict[Word, Words], Meta(max_length=64)] = {}
    removed: bool = False

    def __post_init__(self) -> None:
        if not self.removed and not self.title.strip():
            raise ValueError("an item needs a title, unless `removed` is true")


class InteractionEvent(EdgeRecord, frozen=True, kw_only=True):
    """One thing that a user did with an item. ``ranking`` names the ranking that showed it, if one did."""

    user: Id
    item: Id
    action: Action
    event_ms: Ms
    value: float | None = None
    ranking: Id | None = None

    def __post_init__(self) -> None:
        if self.action == "rate" and self.value is None:
            raise ValueError("action `rate` needs a `value`")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError("`value` must be a finite number")


class HistoryEntry(InnerRecord, frozen=True, kw_only=True):
    """One line of a user's history, with what a prompt needs of the item. ``liked`` is None where the action does not say.

    ``as_of_ms`` dates its arrival: knowledge of the user that is of then or later covers it. 0 where an earlier version wrote it;
    ``event_ms`` stands in.
    """

    item: Id
    title: str
    action: Action
    event_ms: Ms
    as_of_ms: Ms = 0
    liked: bool | None = None
    value: float | None = None
    attributes: dict[str, tuple[str, ...]] = {}


class Member(InnerRecord, frozen=True, kw_only=True):
    """One member of a cluster, near its centre, as a prompt shows it: the summary of what is known of it."""

    subject: SubjectId
    text: Phrase


class KnowledgeRequest(InnerRecord, frozen=True, kw_only=True):
    """One subject needs knowledge: an item (``item``), a user (``history``) or a cluster (``members``, ``common``).

    Self-contained but for ``previous``, the summary of the knowledge that stands: the extract stage puts it in when it asks, and
    then asks only about the part of ``history`` that came after ``previous_as_of_ms``. ``common`` maps a factor to what most
    members share. ``cluster_size`` counts all members.
    """

    subject: SubjectId
    mode: Mode
    reason: Reason
    priority: float
    as_of_ms: Ms
    trigger_ms: Ms
    source_hash: str
    item: ItemEvent | None = None
    history: tuple[HistoryEntry, ...] = ()
    previous: Phrase = ""
    previous_as_of_ms: Ms = 0
    members: tuple[Member, ...] = ()
    common: dict[str, tuple[str, ...]] = {}
    cluster_size: int = 0


class Knowledge(InnerRecord, frozen=True, kw_only=True):
    """What a language model (or, labelled as such, the subject's own attributes) says of one subject, factor by factor.

    ``source_hash`` is the hash of what it was made from (`extractor.planning.content_hash`); empty where not known.
    ``tokens_*`` are None where no language model was asked or its provider did not say; ``tokens_cached`` of ``tokens_in`` came
    out of the server's prefix cache. ``cluster`` is where the text of tier collective comes from; ``shared_from`` the subject
    whose answer this is, where two items are near-duplicates.
    """

    subject: SubjectId
    factors: dict[str, Phrase]
    summary: Phrase
    tier: Tier
    backend: str
    scenario: str
    prompt_version: str
    model: str
    as_of_ms: Ms
    trigger_ms: Ms = 0
    source_hash: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    cluster: str = ""
    shared_from: str = ""


class Cluster(InnerRecord, frozen=True, kw_only=True):
    """One cluster of items or users: the newest state of its centre, (32,) in the projected space of the encoder.

    ``subject`` is ``cluster:item-<n>`` or ``cluster:user-<n>``. ``space`` names encoder and projection: only vectors of the same
    space can be compared with ``centre``. ``n_learnt`` counts the vectors that moved the centre so far. ``asked_*`` is how it was
    when it was last asked about; empty and 0 before.
    """

    subject: SubjectId
    centre: Vector
    space: str
    n_learnt: int
    n_members: int
    as_of_ms: Ms
    asked_centre: bytes = b""
    asked_n_members: int = 0


class EncodedKnowledge(InnerRecord, frozen=True, kw_only=True):
    """The encoder's vector of one subject's knowledge, (d_text,). It does not depend on a model version."""

    subject: SubjectId
    vector: Vector
    encoder: str
    tier: Tier
    as_of_ms: Ms
    trigger_ms: Ms
    text_hash: str
    source_hash: str = ""


class AugmentedVector(InnerRecord, frozen=True, kw_only=True):
    """HEIN's output for one subject, (d_aug,), by one model version: the ranker's prestored vector."""

    subject: SubjectId
    vector: Vector
    version: int
    tier: Tier
    as_of_ms: Ms
    trigger_ms: Ms
    source_hash: str = ""


class RankRequest(EdgeRecord, frozen=True, kw_only=True):
    """Please rank these candidates for this user. ``request`` becomes the ranking's id: the same request twice is one ranking."""

    request: Id
    user: Id
    candidates: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MAX_CANDIDATES)]
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 20
    event_ms: Ms
    context: Annotated[dict[Word, Word], Meta(max_length=32)] = {}


class ScoredItem(InnerRecord, frozen=True, kw_only=True):
    """One ranked item. ``tier`` and ``knowledge_age_ms`` are None where the default vector stood in (``default_vector``)."""

    item: Id
    score: float
    tier: Tier | None = None
    knowledge_age_ms: int | None = None
    default_vector: bool = False
    unknown_item: bool = False


class HistoryItem(InnerRecord, frozen=True, kw_only=True):
    """An item of a user's history as the model saw it. ``liked`` is None where the action did not say."""

    item: Id
    liked: bool | None = None


class FeatureSnapshot(InnerRecord, frozen=True, kw_only=True):
    """The user side as the ranker saw it when it ranked, so that training cannot see what came later."""

    history: tuple[HistoryItem, ...] = ()
    user_vector: bytes | None = None


class Ranking(InnerRecord, frozen=True, kw_only=True):
    """The answer to a `RankRequest`: at most k items, best first, from one model version and step."""

    ranking: Id
    user: Id
    items: tuple[ScoredItem, ...]
    version: int
    step: int
    event_ms: Ms
    took_ms: float
    unknown_user: bool = False
    user_tier: Tier | None = None
    user_knowledge_age_ms: int | None = None
    user_default_vector: bool = False
    snapshot: FeatureSnapshot = FeatureSnapshot()


class LabelledItem(InnerRecord, frozen=True, kw_only=True):
    """One item of a ranking with what the user did: ``label`` 1.0 liked or clicked, 0.0 not. ``position`` counts from 0."""

    item: Id
    label: float
    score: float
    position: int


class Impression(InnerRecord, frozen=True, kw_only=True):
    """One ranking with its labels, once its window has closed: a training sample and a test sample."""

    ranking: Id
    user: Id
    items: tuple[LabelledItem, ...]
    version: int
    step: int
    event_ms: Ms
    snapshot: FeatureSnapshot


class ModelManifest(InnerRecord, frozen=True, kw_only=True):
    """One published state of a model. ``step`` counts online updates in a version; files are relative to the checkpoint folder.

    ``sha256`` is of ``weights`` (the CRM), ``hein_sha256`` of its HEIN (empty where there is none), ``trained_sha256`` of
    the CRM of step 0, which the frozen twin is loaded from.

    trained: weights exist, augmented vectors do not all yet. ready: every subject known then has its row in ``collection``.
    """

    version: int
    step: int
    state: ModelState
    backbone: str
    weights: str
    sha256: str
    collection: str
    encoder: str
    d_text: int
    d_aug: int
    created_ms: Ms
    n_samples: int = 0
    hein_sha256: str = ""
    trained_sha256: str = ""
    metrics: dict[str, float] = {}


class DeadLetter(InnerRecord, frozen=True, kw_only=True):
    """A record that could not be used, as it was, with the reason and where it came from."""

    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    at_ms: Ms
    key: bytes | None = None
    value: bytes | None = None
