"""The stage augment: encoder vectors through HEIN into the collection of one model version; no language model is asked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from contracts.errors import VectorError
from contracts.ports import Matrix, VectorRow, VectorStore
from contracts.records import AugmentedVector, EncodedKnowledge
from contracts.subjects import split_subject
from hein.collections import augmented_collection
from hein.network import HEIN, STREAMS
from hein.standing import Standing, standing

__all__ = ["Augmenting", "augmented_collection"]


class Augmenting:
    """Encoded knowledge in, augmented vectors of one version out, written before they are returned; again changes nothing.

    Args:
        hein: The network of this version; it is frozen here.
        version: The model version.
        store: The collection of this version, of which this is the one writer.

    Attributes:
        n_augmented: Vectors that went through HEIN.
        n_reused: Vectors taken from the store: the same record again.
        n_stale: Records dropped, because what stands is newer or better, or because they came twice in one batch.
        n_without_stream: Records dropped, because their subject is neither a user nor an item.
    """

    def __init__(self, hein: HEIN, version: int, store: VectorStore) -> None:
        self._hein = hein.eval().requires_grad_(requires_grad=False)
        self._version = version
        self._store = store
        self.n_augmented = 0
        self.n_reused = 0
        self.n_stale = 0
        self.n_without_stream = 0

    @property
    def version(self) -> int:
        """The model version whose vectors this makes."""
        return self._version

    def augment_many(self, records: Sequence[EncodedKnowledge]) -> list[AugmentedVector]:
        """Augment and keep what supersedes, repeat what stands, drop what is older; in the order of the records.

        Raises:
            VectorError: A vector has not the size that HEIN reads; nothing was written.
            UnavailableError: The store does not answer; nothing is lost by doing the same again.
        """
        served = [record for record in records if split_subject(record.subject)[0] in STREAMS]
        self.n_without_stream += len(records) - len(served)
        stored = self._store.fetch(list(dict.fromkeys(record.subject for record in served)))
        stands, n_dropped = standing(served, stored)
        self.n_stale += n_dropped
        rows: dict[str, VectorRow] = {
            entry.record.subject: stored[entry.record.subject] for entry in stands if _same(entry, stored)
        }
        self.n_reused += len(rows)
        fresh = self._augmented([entry.record for entry in stands if entry.record.subject not in rows])
        self._store.upsert(fresh)
        rows.update((row.subject, row) for row in fresh)
        return [self._record(rows[entry.record.subject]) for entry in stands]

    def forget(self, subjects: Sequence[str]) -> None:
        """Delete subjects (their items were removed).

        Raises:
            UnavailableError: The store does not answer.
        """
        self._store.delete(subjects)

    def backfill(self, knowledge_store: VectorStore, batch: int = 1000) -> Iterator[list[AugmentedVector]]:
        """Run HEIN over the whole collection `knowledge`; after the last batch every subject has its row in this version.

        Args:
            knowledge_store: The collection `knowledge`, only read.
            batch: Rows at a time.

        Yields:
            The augmented vectors of a batch, already written.
        """
        for rows in knowledge_store.scan(batch):
            yield self.augment_many([_encoded(row) for row in rows])

    def _augmented(self, records: Sequence[EncodedKnowledge]) -> list[VectorRow]:
        vectors = {record.subject: self._vector(record) for record in records}  # all are checked before any is used
        augmented: dict[str, Matrix] = {}
        for stream in STREAMS:
            subjects = [subject for subject in vectors if split_subject(subject)[0] == stream]
            if subjects:
                with torch.inference_mode():
                    x = torch.from_numpy(np.stack([vectors[subject] for subject in subjects]))  # (B, d_text)
                    z = self._hein(x, stream).numpy()  # (B, d_aug)
                augmented.update(zip(subjects, z, strict=True))
        self.n_augmented += len(records)
        return [
            VectorRow(
                subject=record.subject,
                vector=augmented[record.subject],
                tier=record.tier,
                as_of_ms=record.as_of_ms,
                trigger_ms=record.trigger_ms,
                source_hash=record.source_hash,
                text_hash=record.text_hash,
            )
            for record in records
        ]

    def _vector(self, record: EncodedKnowledge) -> Matrix:
        wanted = self._hein.config.d_text
        if len(record.vector) != 4 * wanted:
            raise VectorError(
                f"{len(record.vector)} bytes of encoder vector for {record.subject} ({record.encoder})",
                wanted=f"{wanted} float32",
                todo=f"train a new version for this encoder: version {self._version} reads another",
            )
        return np.frombuffer(record.vector, dtype="<f4").astype(np.float32)

    def _record(self, row: VectorRow) -> AugmentedVector:
        return AugmentedVector(
            subject=row.subject,
            vector=row.vector.astype("<f4", copy=False).tobytes(),
            version=self._version,
            tier=row.tier,
            as_of_ms=row.as_of_ms,
            trigger_ms=row.trigger_ms,
            source_hash=row.source_hash,
        )


def _same(entry: Standing[EncodedKnowledge], stored: dict[str, VectorRow]) -> bool:
    row = stored.get(entry.record.subject)
    return entry.state == "known" and row is not None and row.text_hash == entry.record.text_hash


def _encoded(row: VectorRow) -> EncodedKnowledge:
    return EncodedKnowledge(
        subject=row.subject,
        vector=row.vector.astype("<f4", copy=False).tobytes(),
        encoder="as stored",
        tier=row.tier,
        as_of_ms=row.as_of_ms,
        trigger_ms=row.trigger_ms,
        text_hash=row.text_hash,
        source_hash=row.source_hash,
    )
