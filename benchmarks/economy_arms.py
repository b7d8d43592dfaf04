"""The arms of `bench_economy`: who is asked about, what text stands for an item, and one training run on the texts' vectors.

Nobody here can write a text about a cluster. The stand-in is the language model's text of the medoid: the member nearest to the
centre that has one. A member is served that text with the member's own attributes, put together as the stream does it.

Shapes: n subjects, C clusters, M items, d_text encoder vector.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from economy_tokens import Spent, Subjects, TokenCounter, spent

from contracts.records import Knowledge, KnowledgeRequest
from extractor.assignment import Assignment, cluster_subject, split_cluster
from extractor.clustering import CANDIDATES, Clustering, Due
from extractor.collective import cluster_request, member_knowledge
from extractor.projection import project
from hein.text import knowledge_text
from ranker.evaluation.arms import ATTRIBUTES, ATTRIBUTES_USERS, KNOWLEDGE_ITEMS, METADATA, get_arm
from ranker.evaluation.recipe import ARM_RECIPES, RECIPES
from ranker.evaluation.run import RunSpec, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from contracts.ports import Matrix, TextEncoder
    from contracts.settings import Collective
    from extractor.scenario import Scenario
    from ranker.evaluation.origin import Origin
    from ranker.evaluation.results import RunResult
    from ranker.evaluation.task import EvaluationTask

FAMILY: Final = "item-knowledge-long"  # the arm whose vectors of items are replaced: its recipe, history and demographics
BACKBONE: Final = "din"
REFERENCE: Final = "metadata"
TOP: Final = 0.2  # of the subjects, those with the most interactions, are asked about one by one in two tiers
LOOK_EVERY: Final = 100  # subjects learnt between two looks at which clusters are due
_SPACE: Final = "economy"
_NOTHING: Final = Spent()
_WHOLE: Final = "plot_and_theme"  # the factor that a text without factors stands in


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clustered:
    """Subjects of one kind in clusters, after they came one by one."""

    of: NDArray[np.int64]  # (n,) cluster of each subject; -1: it has too few members to be asked about
    near: dict[int, list[int]]  # by cluster: the members nearest to its centre that have a text, the medoid first
    last: tuple[KnowledgeRequest, ...]  # one request per cluster, as it is in the end
    stream: tuple[KnowledgeRequest, ...]  # every request on the way: new, moved and grown clusters


def clustered(subjects: Subjects, vectors: Matrix, n_clusters: int, settings: Collective) -> Clustered:
    """One pass over the subjects in the order in which they came, looking every `LOOK_EVERY` which clusters are due.

    Args:
        subjects: All of one kind.
        vectors: (n, d_text), of what is known without a language model.
        n_clusters: C, at most.
        settings: When a cluster is asked about, and what a prompt shows.
    """
    documents = {one.subject: one for one in subjects.own}
    names, points = list(documents), project(vectors)
    clustering = Clustering(subjects.kind, n_clusters, settings, _SPACE)
    stream = []
    for start in range(0, len(names), LOOK_EVERY):
        rows = subjects.order[start : start + LOOK_EVERY].tolist()
        clustering.learn_many([names[row] for row in rows], points[rows], [start] * len(rows), ["attributes"] * len(rows))
        for due in clustering.due():
            if request := cluster_request(due, documents, settings, 0):
                stream.append(request)
            clustering.asked(due, start)
    clusters = clustering.changed()
    assignment = Assignment()
    for cluster in clusters:
        assignment.apply(cluster)
    of = np.array([split_cluster(name)[1] for name in assignment.nearest(subjects.kind, points, _SPACE)])
    final = {}
    for cluster in clusters:
        number = split_cluster(cluster.subject)[1]
        members = np.flatnonzero(of == number)
        if len(members) >= settings.min_members:
            far = np.linalg.norm(points[members] - np.frombuffer(cluster.centre, "<f4"), axis=1)
            final[number] = cluster, members[np.argsort(far, kind="stable")].tolist()
    of[~np.isin(of, list(final))] = -1
    due_last = [
        Due(
            cluster=msgspec.structs.replace(cluster, n_members=len(members)),
            reason="new_cluster",
            staleness=1.0,
            members=tuple(names[row] for row in members[: CANDIDATES * settings.members_shown]),
        )
        for cluster, members in final.values()
    ]
    return Clustered(
        of=of,
        near={
            number: [row for row in members if subjects.said[row]][: settings.members_shown]
            for number, (_, members) in final.items()
        },
        last=tuple(filter(None, (cluster_request(due, documents, settings, 0) for due in due_last))),
        stream=tuple(stream),
    )


def collective_texts(subjects: Subjects, clusters: Clustered) -> list[str]:
    """What each subject is served where only clusters were asked about, (n,): the cluster's text with its own."""
    cluster = {
        number: Knowledge(
            subject=cluster_subject(subjects.kind, number),
            factors={_WHOLE: subjects.said[near[0]]},  # as its summary it would be cut to two dozen words
            summary="",
            tier="individual",
            backend="batch",
            scenario="movies",
            prompt_version="imported",
            model="medoid",
            as_of_ms=0,
        )
        for number, near in clusters.near.items()
    }
    return [
        knowledge_text(member_knowledge(own, cluster[number]) if number >= 0 else own)
        for own, number in zip(subjects.own, clusters.of.tolist(), strict=True)
    ]


def collective_means(clusters: Clustered, own: Matrix, said: Matrix) -> Matrix:
    """Another stand-in, in vectors: the mean over the members that a prompt shows, and the subject's own, half and half.

    Args:
        clusters: Of n subjects.
        own: (n, d_text), of their attributes.
        said: (n, d_text), of the language model's texts.
    """
    vectors = own.copy()
    for number, near in clusters.near.items():
        vectors[clusters.of == number] += _unit(said[near].mean(axis=0, keepdims=True))
    return _unit(vectors)


def _unit(vectors: Matrix) -> Matrix:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-9))


def most_met(subjects: Subjects, part: float) -> NDArray[np.bool_]:
    """The subjects with the most interactions, (n,): a ``part`` of all."""
    chosen = np.zeros(len(subjects), bool)
    chosen[np.argsort(-subjects.traffic, kind="stable")[: round(part * len(subjects))]] = True
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Economy:
    """What all arms share."""

    scenario: Scenario
    count: TokenCounter
    settings: Collective
    items: Subjects
    users: Subjects
    encoder: TextEncoder
    vectors: dict[str, Matrix]  # by text source
    out: Path

    def clusters(self, n_clusters: int) -> tuple[Clustered, Clustered]:
        """Of items and of users."""
        return (
            clustered(self.items, self.vectors[ATTRIBUTES], n_clusters, self.settings),
            clustered(self.users, self.vectors[ATTRIBUTES_USERS], n_clusters, self.settings),
        )

    def individual(self, subjects: Subjects, rows: Any = slice(None)) -> Spent:
        """One call per subject."""
        chosen = np.arange(len(subjects))[rows].tolist()
        return spent(self.scenario, [subjects.requests[row] for row in chosen], float(subjects.answers[chosen].sum()), self.count)

    def collective(self, subjects: Subjects, requests: Sequence[KnowledgeRequest]) -> Spent:
        """One call per request about a cluster; an answer is as long as the mean of the individual ones."""
        return spent(self.scenario, requests, float(subjects.answers.mean()) * len(requests), self.count)

    def vectors_of(self, arm: EconomyArm) -> Matrix | None:
        """What the model reads of items, (M, d_text)."""
        if isinstance(arm.texts, str):
            return self.vectors[arm.texts]
        return self._encoded(arm.texts) if isinstance(arm.texts, list) else arm.texts

    def _encoded(self, texts: list[str]) -> Matrix:
        """Vectors of texts, (n, d_text), zero where there is none."""
        key = blake2b("\0".join([self.encoder.name, *texts]).encode(), digest_size=8).hexdigest()
        file = self.out / f"{key}.npy"
        if not file.is_file():
            vectors = np.zeros((len(texts), self.encoder.dim), np.float32)
            there = [row for row, text in enumerate(texts) if text]
            vectors[there] = self.encoder.encode([texts[row] for row in there])
            np.save(file, vectors)
        loaded: Matrix = np.load(file, allow_pickle=False)
        return loaded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EconomyArm:
    """One arm: tokens by kind, and what the model reads of items."""

    name: str
    texts: list[str] | Matrix | str | None  # of the items, or their vectors, or a text source; None: no vectors
    items: Spent = _NOTHING
    users: Spent = _NOTHING
    stream: Spent = _NOTHING  # of both kinds, with every new request about a cluster that moved or grew
    clusters: tuple[int, ...] = ()  # that were asked about, of items and users
    reasons: tuple[tuple[str, int], ...] = ()  # of the requests in ``stream`` about clusters


def arms_of(economy: Economy, numbers: list[int], tiers_of: int) -> list[EconomyArm]:
    """All arms, individual extraction last.

    Args:
        economy: What they share.
        numbers: Of clusters.
        tiers_of: Of the clusters in two tiers and in the second stand-in.
    """
    arms = [
        EconomyArm(name="base", texts=None),
        EconomyArm(name=REFERENCE, texts=METADATA),
        EconomyArm(name="attributes", texts=ATTRIBUTES),
    ]
    for n_clusters in numbers:
        of_items, of_users = economy.clusters(n_clusters)
        plain = _collective(economy, f"collective-{n_clusters}", of_items, of_users)
        arms.append(plain)
        if n_clusters == tiers_of:
            means = collective_means(of_items, economy.vectors[ATTRIBUTES], economy.vectors[KNOWLEDGE_ITEMS])
            arms += [replace(plain, name=f"{plain.name}-mean", texts=means), _two_tiers(economy, plain)]
    items, users = economy.individual(economy.items), economy.individual(economy.users)
    return [*arms, EconomyArm(name="individual", texts=KNOWLEDGE_ITEMS, items=items, users=users, stream=items + users)]


def _collective(economy: Economy, name: str, items: Clustered, users: Clustered) -> EconomyArm:
    return EconomyArm(
        name=name,
        texts=collective_texts(economy.items, items),
        items=economy.collective(economy.items, items.last),
        users=economy.collective(economy.users, users.last),
        stream=economy.collective(economy.items, items.stream) + economy.collective(economy.users, users.stream),
        clusters=(len(items.last), len(users.last)),
        reasons=tuple(Counter(request.reason for request in (*items.stream, *users.stream)).items()),
    )


def _two_tiers(economy: Economy, plain: EconomyArm) -> EconomyArm:
    """All of a collective arm, and individual extraction for those who are met most."""
    assert isinstance(plain.texts, list)
    top_items, top_users = most_met(economy.items, TOP), most_met(economy.users, TOP)
    items, users = economy.individual(economy.items, top_items), economy.individual(economy.users, top_users)
    chosen = zip(economy.items.said, top_items, plain.texts, strict=True)
    return replace(
        plain,
        name=plain.name.replace("collective", "two-tiers"),
        texts=[said if top and said else text for said, top, text in chosen],
        items=plain.items + items,
        users=plain.users + users,
        stream=plain.stream + items + users,
    )


def trained(vectors: Matrix | None, *, arm: str, seed: int, task: EvaluationTask, origin: Origin) -> RunResult:
    """One model on these vectors of items, scored once on the test users; a user's is the mean of the liked ones of the prefix.

    Args:
        vectors: (M, d_text), zero where an item has none; None: the arm ``base-long``.
        arm: What to call it in the result.
        seed: Of weights, order and dropout.
        task: The data.
        origin: What the result says of code and machine.
    """
    family = get_arm("base-long" if vectors is None else FAMILY).name
    recipe = RECIPES["ctr"].changed(ARM_RECIPES["ctr"].get(family, {}))
    spec = RunSpec(task="ctr", backbone=BACKBONE, arm=family, seed=seed, recipe=recipe)
    return msgspec.structs.replace(run(spec, task, {} if vectors is None else {KNOWLEDGE_ITEMS: vectors}, origin), arm=arm)
