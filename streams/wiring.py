"""Where ports meet implementations: every role of the system is put together here, and nowhere else.

    plan      tables + planners                          items, interactions        -> knowledge-requests
    extract   table + queue + backend                    knowledge-requests         -> knowledge, cluster-knowledge
    cluster   clusterings + collection `knowledge`       encodings                  -> clusters, knowledge-requests
    encode    text encoder + collection `knowledge`      knowledge                  -> encodings
    augment   HEIN + collections `augmented_v<n>`        encodings, models          -> vectors, models
    rank      live state + scorer + HTTP                 rank-requests, HTTP        -> rankings
    join      joiners                                    rankings, interactions     -> impressions
    train     live state + learner                       impressions                -> models

Heavy imports stand inside the functions: a role loads only what it computes with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import platformdirs

from contracts.ports import KnowledgeBackend, VectorStore
from contracts.settings import Settings
from streams.counters import (
    COUNTERS,
    of_augmenting,
    of_cache,
    of_encoding,
    of_extraction,
    of_model,
    of_planning,
    of_savings,
)
from streams.publisher import KafkaPublisher

if TYPE_CHECKING:
    from extractor.answer_cache import CachedBackend
    from extractor.drift import Drift
    from extractor.scenario import Scenario
    from streams.roles.role import Loop

OpenStore = Callable[[str, int], VectorStore]  # collection, dim
HttpApp = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A role, ready to be started: services of the worker, what is missing, and the HTTP app it brings, if any."""

    role: str
    services: list[Any]
    missing: Callable[[], str]
    http: HttpApp | None = None
    close: list[Callable[[], None]] = field(default_factory=list)


def build(role: str, settings: Settings, publisher: KafkaPublisher) -> Part:
    """The parts of one role."""
    return _BUILDERS[role](settings, publisher)


def knowledge_store(settings: Settings) -> VectorStore:
    """The collection of encoder vectors and knowledge texts."""
    from hein.collections import knowledge_collection

    return open_store(settings, knowledge_collection(settings.milvus.prefix), encoder_dim(settings))


def open_store(
    settings: Settings, collection: str, dim: int, *, consistency: Literal["Strong", "Bounded"] = "Strong"
) -> VectorStore:
    """A collection of the vector store in force; made if missing.

    Args:
        settings: Where the store is.
        collection: Its name.
        dim: Length of its vectors.
        consistency: Bounded is faster and may miss the last moments: for rankers, which hear of those by the changelog.
    """
    from hein.stores.milvus import MilvusVectorStore

    return MilvusVectorStore(
        settings.milvus_uri,
        settings.milvus.token.get_secret_value(),
        collection,
        dim,
        settings.milvus.timeout_s,
        consistency=consistency,
    )


def encoder_dim(settings: Settings) -> int:
    """d_text of the encoder that the settings name, without loading it."""
    from hein.folder import read_folder

    return read_folder(settings.encoder.model).dim


def cache_folder() -> Path:
    """Where exported encoders are kept, outside the checkout."""
    return Path(platformdirs.user_cache_dir("reki")) / "encoders"


def knowledge_backend(settings: Settings, scenario: Scenario) -> KnowledgeBackend:
    """Who is asked for knowledge."""
    if settings.extract.backend == "openai":
        from extractor.backends.openai import OpenAIBackend

        return OpenAIBackend(settings.extract, scenario)
    from extractor.backends.attributes import AttributesBackend

    return AttributesBackend(scenario)


def cached_model(settings: Settings, scenario: Scenario) -> CachedBackend:
    """A language model whose answers are kept on disk; workers of one home share them, and each has its own budget."""
    from extractor.answer_cache import CachedBackend
    from extractor.backends.openai import OpenAIBackend
    from extractor.on_disk import JsonOnDisk

    folder = settings.home / "extract"
    model = OpenAIBackend(settings.extract, scenario, spending=JsonOnDisk(folder / f"spending-{settings.metrics_port}", 1))
    COUNTERS.add(*of_model(model))
    return CachedBackend(model, scenario, settings.extract, folder / "answers")


def _faust(role: str, app: Any) -> tuple[list[Any], Callable[[], str]]:
    """A faust app as a service, ready when its tables are recovered."""
    started: list[bool] = []

    async def on_startup_finished() -> None:
        started.append(True)

    app.finalize()
    app.on_startup_finished = on_startup_finished
    return [app], lambda: "" if started else f"{role}: joining its group and recovering its tables"


def _loops(*loops: Loop) -> tuple[list[Any], Callable[[], str]]:
    from streams.roles.role import LoopService

    return [LoopService(loop) for loop in loops], lambda: "; ".join(filter(None, (loop.missing() for loop in loops)))


def _stores(settings: Settings) -> tuple[OpenStore, OpenStore]:
    """How a reader opens a version's collection: to boot from, and to ask for single rows."""
    return partial(open_store, settings), partial(open_store, settings, consistency="Bounded")


def _plan(settings: Settings, publisher: KafkaPublisher) -> Part:
    from extractor.planning import ItemPlanner, UserPlanner
    from extractor.scenario import load_scenario
    from streams.roles.plan import Plan

    scenario = load_scenario(settings.extract.scenario)
    planners = ItemPlanner(scenario), UserPlanner(settings.plan, scenario)
    plan = Plan(settings, planners, _drift(settings), publisher)
    COUNTERS.add(*of_planning(plan.stage.counts))
    services, missing = _loops(plan)
    return Part(role="plan", services=services, missing=missing)


def _drift(settings: Settings) -> Drift | None:
    if not settings.plan.drift:
        return None
    from extractor.drift import Drift

    return Drift(settings.plan)


def _extract(settings: Settings, publisher: KafkaPublisher) -> Part:
    from extractor.scenario import load_scenario
    from streams.roles.extract import Extract

    scenario = load_scenario(settings.extract.scenario)
    asking, model = None, None
    if settings.extract.backend == "openai":
        from extractor.asking import Asking

        model = cached_model(settings, scenario)
        asking = Asking(model)
        COUNTERS.add(*of_cache(model))
    extract = Extract(settings, scenario, asking, publisher)
    stage = extract.stage
    COUNTERS.add(*of_extraction(stage), *of_savings(lambda: {**(model.saved if model else {}), "collective": stage.n_spared}))
    services, missing = _loops(extract)
    return Part(role="extract", services=services, missing=missing)


def _cluster(settings: Settings, publisher: KafkaPublisher) -> Part:
    """Nothing to do where no language model is asked: only it says more of a cluster than of its members."""
    n_clusters = settings.collective.item_clusters + settings.collective.user_clusters
    if settings.extract.backend == "attributes" or not n_clusters:
        return Part(role="cluster", services=[], missing=str)
    from streams.roles.cluster import ClusterRole

    store = knowledge_store(settings)
    services, missing = _loops(ClusterRole(settings, store, publisher))
    return Part(role="cluster", services=services, missing=missing, close=[store.close])


def _encode(settings: Settings, publisher: KafkaPublisher) -> Part:
    from hein.encoder import load_encoder
    from hein.encoding import Encoding
    from streams.agents.batches import BatchHandler
    from streams.agents.encode import encode_app

    store = knowledge_store(settings)
    stage = Encoding(load_encoder(settings.encoder, cache_folder()), store)
    COUNTERS.add(*of_encoding(stage))
    services, missing = _faust("encode", encode_app(settings, stage, BatchHandler("encode", publisher)))
    return Part(role="encode", services=services, missing=missing, close=[store.close])


def _augment(settings: Settings, publisher: KafkaPublisher) -> Part:
    import torch

    from hein.stores.milvus import drop_collection
    from streams.agents.augment import augment_app
    from streams.agents.batches import BatchHandler
    from streams.roles.versions import Versions

    torch.set_num_threads(settings.train.threads)
    knowledge = knowledge_store(settings)
    drop = partial(drop_collection, settings.milvus_uri, settings.milvus.token.get_secret_value())
    versions = Versions(settings, knowledge, partial(open_store, settings), drop, publisher)
    COUNTERS.add(*of_augmenting(versions.counts))
    apps, app_missing = _faust("augment", augment_app(settings, versions, BatchHandler("augment", publisher)))
    loops, versions_missing = _loops(versions)
    return Part(
        role="augment",
        services=[*loops, *apps],
        missing=lambda: "; ".join(filter(None, (app_missing(), versions_missing()))),
        close=[knowledge.close],
    )


def _join(settings: Settings, publisher: KafkaPublisher) -> Part:
    from streams.roles.join import Join

    services, missing = _loops(Join(settings, publisher))
    return Part(role="join", services=services, missing=missing)


def _train(settings: Settings, publisher: KafkaPublisher) -> Part:
    import torch

    from streams.roles.live import Live
    from streams.roles.train import Train

    torch.set_num_threads(settings.train.threads)
    live = Live(settings, *_stores(settings), steps=False)
    train = Train(settings, live, publisher)
    live_services, _ = _loops(live)
    services, missing = _loops(train)
    return Part(role="train", services=[*live_services, *services], missing=missing)


def _rank(settings: Settings, publisher: KafkaPublisher) -> Part:
    import torch

    from ranker.scoring import Scorer
    from ranker.serving.app import build_app
    from streams.roles.live import Live
    from streams.roles.rank import Rank, knowledge_of

    torch.set_num_threads(settings.rank.threads)
    live = Live(settings, *_stores(settings), steps=True)
    scorer = Scorer(live.holder, live.histories, live.catalogue, settings)
    rank = Rank(settings, scorer, live, publisher)
    services, missing = _loops(live, rank)
    store = knowledge_store(settings)
    app = build_app(
        scorer,
        partial(knowledge_of, store),
        lambda: {"items, interactions and models are read": live.caught_up.is_set()},
        rank.publish,
        settings,
        {"dataset": settings.rank.dataset, "simulated": settings.rank.simulated},
    )
    return Part(role="rank", services=services, missing=missing, http=app, close=[store.close])


_BUILDERS: Final[dict[str, Callable[[Settings, KafkaPublisher], Part]]] = {
    "plan": _plan,
    "extract": _extract,
    "cluster": _cluster,
    "encode": _encode,
    "augment": _augment,
    "join": _join,
    "train": _train,
    "rank": _rank,
}
