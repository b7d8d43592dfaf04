"""The topics: name, key, record, how long they are kept. Partition key = the entity, so one consumer owns one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from contracts import records
from contracts.records import EdgeRecord, InnerRecord

Wire = Literal["json", "msgpack"]
Kept = Literal["compacted", "by time", "long"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. ``key`` names the field that is the partition key; ``wire`` is msgpack where vectors travel (raw float32)."""

    name: str
    key: str
    record: type[EdgeRecord | InnerRecord]
    kept: Kept
    wire: Wire = "json"

    @property
    def tombstones(self) -> bool:
        """Whether an empty value means that the key is gone.

        Two topics that are kept by time tell it too: `knowledge-requests`, so that a removal is in order with the requests before
        it, and `encodings`, which keeps its past for training.
        """
        return self.kept == "compacted" or self.name in {"knowledge-requests", "encodings"}


ITEMS: Final = Topic(name="items", key="item", record=records.ItemEvent, kept="compacted")
INTERACTIONS: Final = Topic(name="interactions", key="user", record=records.InteractionEvent, kept="by time")
REQUESTS: Final = Topic(name="knowledge-requests", key="subject", record=records.KnowledgeRequest, kept="by time")
IMPORTED: Final = Topic(name="imported-knowledge", key="subject", record=records.Knowledge, kept="compacted")
KNOWLEDGE: Final = Topic(name="knowledge", key="subject", record=records.Knowledge, kept="compacted")
CLUSTERS: Final = Topic(name="clusters", key="subject", record=records.Cluster, kept="compacted", wire="msgpack")
CLUSTER_KNOWLEDGE: Final = Topic(name="cluster-knowledge", key="subject", record=records.Knowledge, kept="compacted")
ENCODINGS: Final = Topic(name="encodings", key="subject", record=records.EncodedKnowledge, kept="by time", wire="msgpack")
VECTORS: Final = Topic(name="vectors", key="subject", record=records.AugmentedVector, kept="compacted", wire="msgpack")
RANK_REQUESTS: Final = Topic(name="rank-requests", key="user", record=records.RankRequest, kept="by time")
RANKINGS: Final = Topic(name="rankings", key="user", record=records.Ranking, kept="by time")
IMPRESSIONS: Final = Topic(name="impressions", key="user", record=records.Impression, kept="by time")
MODELS: Final = Topic(name="models", key="version", record=records.ModelManifest, kept="compacted")
DEAD_LETTERS: Final = Topic(name="dead-letters", key="topic", record=records.DeadLetter, kept="long")

TOPICS: Final[tuple[Topic, ...]] = (
    ITEMS,
    INTERACTIONS,
    REQUESTS,
    IMPORTED,
    KNOWLEDGE,
    CLUSTERS,
    CLUSTER_KNOWLEDGE,
    ENCODINGS,
    VECTORS,
    RANK_REQUESTS,
    RANKINGS,
    IMPRESSIONS,
    MODELS,
    DEAD_LETTERS,
)


@dataclass(frozen=True, slots=True)
class Changelog:
    """The compacted topic behind a table of one role: bytes that nobody else reads, partitioned as the topics of the role."""

    role: str
    table: str

    @property
    def name(self) -> str:
        """Such as ``plan-users-changelog``."""
        return f"{self.role}-{self.table}-changelog"


PLANNED_ITEMS: Final = Changelog("plan", "items")
PLANNED_USERS: Final = Changelog("plan", "users")
EXTRACTED: Final = Changelog("extract", "subjects")

CHANGELOGS: Final = (PLANNED_ITEMS, PLANNED_USERS, EXTRACTED)
