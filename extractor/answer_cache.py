"""What was answered once is not asked again: answers by prompt on disk, and those of near-duplicate items.

The key is the prompt, the model and the prompt version, so whatever changes the question asks anew. Only what a model said is
kept: no stand-in, and no answer that is itself shared. Questions that are equal and come at the same time are asked once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakValueDictionary

import msgspec

from contracts.records import Knowledge
from extractor.chat import tier_of
from extractor.on_disk import JsonOnDisk
from extractor.prompts import build_prompt, prompt_version

if TYPE_CHECKING:
    from pathlib import Path

    from contracts.ports import KnowledgeBackend
    from contracts.records import KnowledgeRequest, Tier
    from contracts.settings import Extract
    from extractor.near_duplicates import Fingerprint, NearDuplicates
    from extractor.scenario import Scenario

SavedBy = Literal["cache", "near-duplicate"]
_READ: Final = msgspec.json.Decoder(Knowledge)


class CachedBackend:
    """A `KnowledgeBackend` around another one, asking it only what was not answered before.

    ``saved`` counts the requests that were not made, ``saved_tokens`` the tokens that the stored answers had taken. An answer
    from here has no tokens of its own: no language model was asked.

    Args:
        backend: Who is asked otherwise.
        scenario: What is asked.
        settings: ``model``, ``cache_mib`` and ``near_duplicate``.
        folder: Of the answers on disk; two workers may share it.
    """

    def __init__(self, backend: KnowledgeBackend, scenario: Scenario, settings: Extract, folder: Path) -> None:
        self.backend = backend
        self.saved: Counter[str] = Counter()
        self.saved_tokens: Counter[str] = Counter()
        self._scenario = scenario
        self._model = settings.model
        self._disk = JsonOnDisk(folder, settings.cache_mib) if settings.cache_mib else None
        self._near = _near_duplicates(settings.near_duplicate)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def tier(self) -> Tier:
        """Of the backend behind."""
        return self.backend.tier

    async def ready(self) -> None:
        """When the backend behind is. `known` tells what need not wait for it."""
        await self.backend.ready()

    def known(self, request: KnowledgeRequest) -> Knowledge | None:
        """The answer to this request if nobody needs to be asked; counted as saved.

        Raises:
            RecordError: There is nothing in the request to ask about.
        """
        return self._known(request, self._key(request), _fingerprint(request) if self._near is not None else None)

    async def extract(self, request: KnowledgeRequest) -> Knowledge:
        """Knowledge for one subject, as the backend behind gives it, or as it or a near-duplicate was answered before.

        Raises:
            RecordError: There is nothing in the request to ask about.
            AnswerError: As the backend behind does, like everything else it raises.
        """
        key = self._key(request)
        fingerprint = _fingerprint(request) if self._near is not None else None
        async with self._asking.setdefault(key, asyncio.Lock()):  # of two at a time, the second finds what the first brought
            if (known := self._known(request, key, fingerprint)) is not None:
                return known
            made = await self.backend.extract(request)
            self._keep(made, key, fingerprint)
        return made

    async def aclose(self) -> None:
        """Let go of the file, and of the backend behind."""
        if self._disk is not None:
            self._disk.close()
        await self.backend.aclose()

    def _key(self, request: KnowledgeRequest) -> str:
        prompt = build_prompt(self._scenario, request)
        return f"{prompt.prompt_hash} {prompt_version(self._scenario)} {self._model}"

    def _known(self, request: KnowledgeRequest, key: str, fingerprint: Fingerprint | None) -> Knowledge | None:
        if (stored := self._stored(request, key)) is not None:
            if self._near is not None and fingerprint is not None and request.subject == stored.subject:
                self._near.add(request.subject, fingerprint, msgspec.json.encode(stored))  # after a restart the index is empty
            return self._again(stored, request, "cache")
        # the answer about something similar is most likely the one that the change made stale
        if self._near is None or fingerprint is None or request.reason == "changed_item":
            return None
        found = self._near.find(request.subject, fingerprint)
        return None if found is None else self._again(_READ.decode(found[1]), request, "near-duplicate")

    def _stored(self, request: KnowledgeRequest, key: str) -> Knowledge | None:
        found = self._disk.get(key) if self._disk is not None else None
        if found is None:
            return None
        try:
            stored = msgspec.convert(found, Knowledge)
        except msgspec.ValidationError:
            return None  # of another version of reki, or damaged: asked anew and written over
        return stored if stored.tier == tier_of(request.subject) else None

    def _keep(self, made: Knowledge, key: str, fingerprint: Fingerprint | None) -> None:
        if made.tier == "attributes" or made.shared_from:
            return
        if self._disk is not None:
            self._disk.put(key, msgspec.to_builtins(made))
        if self._near is not None and fingerprint is not None:
            self._near.add(made.subject, fingerprint, msgspec.json.encode(made))

    def _again(self, stored: Knowledge, request: KnowledgeRequest, by: SavedBy) -> Knowledge:
        self.saved[by] += 1
        shared = request.item is not None and stored.subject != request.subject  # no user's id stands in another's record
        self.saved_tokens[by] += (stored.tokens_in or 0) + (stored.tokens_out or 0)
        return msgspec.structs.replace(
            stored,
            subject=request.subject,
            as_of_ms=request.as_of_ms,
            trigger_ms=request.trigger_ms,
            source_hash=request.source_hash,
            tokens_in=None,
            tokens_out=None,
            tokens_cached=None,
            shared_from=stored.subject if shared else "",
        )


def _near_duplicates(threshold: float) -> NearDuplicates | None:
    if not threshold:
        return None
    from extractor.near_duplicates import NearDuplicates

    return NearDuplicates(threshold)


def _fingerprint(request: KnowledgeRequest) -> Fingerprint | None:
    if request.item is None:
        return None
    from extractor.near_duplicates import Fingerprint

    return Fingerprint.of(request.item)
