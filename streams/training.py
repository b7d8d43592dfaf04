"""Trains a new model version from the log: items, interactions and encodings as they stand on Kafka, joined point in time."""

from __future__ import annotations

from collections.abc import Callable

from contracts.errors import DatasetError
from contracts.records import EncodedKnowledge, InteractionEvent, ItemEvent, ModelManifest
from contracts.settings import Settings
from contracts.topics import ENCODINGS, INTERACTIONS, ITEMS, MODELS
from hein.collections import augmented_collection
from ranker.checkpoint import next_version, save_version
from ranker.features import FeatureConfig
from ranker.offline import Progress, train_offline
from ranker.samples import SampleLog
from streams.publisher import KafkaPublisher
from streams.tail import Tail


def read_log(settings: Settings, progress: Callable[[int], None] | None = None) -> SampleLog:
    """Everything on the log that training reads, up to now.

    Args:
        settings: Where the broker is.
        progress: Told how many records came with each batch.
    """
    log = SampleLog()
    with Tail(settings, [ITEMS, INTERACTIONS, ENCODINGS]) as tail:
        for one in tail.to_end(progress):
            match one.record:
                case ItemEvent():
                    log.add_item(one.record)
                case InteractionEvent():
                    log.add_interaction(one.record)
                case EncodedKnowledge():
                    log.add_encoding(one.record)
                case _:
                    pass
    return log


def train_version(
    settings: Settings,
    reading: Callable[[int], None] | None = None,
    training: Callable[[Progress], None] | None = None,
) -> ModelManifest:
    """Train HEIN and the ranking model together, write a checkpoint, announce it as "trained".

    The augment role then makes its vectors and announces it as "ready"; rankers swap to it then.

    Raises:
        DatasetError: Nothing on the log to learn from.
    """
    log = read_log(settings, reading)
    samples = log.build(FeatureConfig.of(settings.model))
    d_text = samples.matrix.shape[1]
    if d_text == 0:
        raise DatasetError("no encodings on the log", wanted="knowledge vectors", todo="run the plan, extract and encode roles")
    trained = train_offline(samples, samples.matrix, settings, training)
    version = next_version(settings.checkpoints)
    manifest = save_version(
        settings.checkpoints,
        trained.joint,
        version=version,
        encoder=log.encoder_used,
        d_text=d_text,
        collection=augmented_collection(settings.milvus.prefix, version),
        metrics=trained.metrics,
        n_samples=trained.n_samples,
        keep=settings.train.keep,
    )
    with KafkaPublisher(settings) as publisher:
        publisher.send(MODELS, manifest)
        publisher.flush()
    return manifest
