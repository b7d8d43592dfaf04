"""The model states on the models topic, for whoever only looks at them."""

from __future__ import annotations

from contracts.records import ModelManifest
from contracts.settings import Settings
from contracts.topics import MODELS
from streams.tail import Tail


def manifests(settings: Settings) -> list[ModelManifest]:
    """The published model states, oldest first (the topic is compacted: old ones of a version may be gone).

    Raises:
        UnavailableError: The broker does not answer.
    """
    with Tail(settings, [MODELS]) as tail:
        return [one.record for one in tail.to_end() if isinstance(one.record, ModelManifest)]
