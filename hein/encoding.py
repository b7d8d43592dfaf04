"""The stage encode: knowledge as text becomes the encoder's vector, once, and is kept in the collection `knowledge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from contracts.ports import Matrix, TextEncoder, VectorRow, VectorStore
from contracts.records import EncodedKnowledge, Knowledge
from hein.documents import Version, versions_before, write_document
from hein.standing import Standing, standing
from hein.text import knowledge_text, text_hash

_knowledge: Final = msgspec.json.Decoder(Knowledge)


class Encoding:
    """Knowledge in, encoded knowledge out, written before it is returned; the same records again change nothing.

    Args:
        encoder: The frozen text encoder.
        store: The collection `knowledge`, of which this is the one writer.

    Attributes:
        n_encoded: Texts that went through the encoder.
        n_reused: Vectors taken from the store: the same text under a newer date, or the same record again.
        n_stale: Records dropped, because what stands is newer or better, or because they came twice in one batch.
        n_cut: Documents whose factor texts were cut to fit their row (the vector is of the whole text).
    """

    def __init__(self, encoder: TextEncoder, store: VectorStore) -> None:
        self._encoder = encoder
        self._store = store
        self.n_encoded = 0
        self.n_reused = 0
        self.n_stale = 0
        self.n_cut = 0

    def encode_many(self, records: Sequence[Knowledge]) -> list[EncodedKnowledge]:
        """Encode and keep what supersedes, repeat what stands, drop what is older; in the order of the records.

        Raises:
            UnavailableError: The store does not answer; nothing is lost by doing the same again.
        """
        stored = self._store.fetch(list(dict.fromkeys(record.subject for record in records)))
        stands, n_dropped = standing(records, stored)
        self.n_stale += n_dropped
        texts = {entry.record.subject: knowledge_text(entry.record) for entry in stands}
        reused = {
            entry.record.subject: stored[entry.record.subject]
            for entry in stands
            if self._is_kept(entry, texts[entry.record.subject], stored)
        }
        vectors = self._vectors({subject: text for subject, text in texts.items() if subject not in reused})
        self.n_reused += len(reused)
        came: dict[str, list[Knowledge]] = {subject: [] for subject in texts}
        for record in records:
            if record.subject in came:
                came[record.subject].append(record)
        rows: list[VectorRow] = []
        to_write: list[VectorRow] = []
        for entry in stands:
            subject = entry.record.subject
            if entry.state == "known" and subject in reused:
                rows.append(reused[subject])
                continue
            vector = vectors[subject] if subject in vectors else reused[subject].vector
            versions = versions_before(came[subject], stored.get(subject))
            rows.append(self._row(entry.record, vector, texts[subject], versions))
            to_write.append(rows[-1])
        self._store.upsert(to_write)
        return [self._encoded(row) for row in rows]

    def forget(self, subjects: Sequence[str]) -> None:
        """Delete subjects (their items were removed).

        Raises:
            UnavailableError: The store does not answer.
        """
        self._store.delete(subjects)

    def _hash(self, text: str) -> str:
        return text_hash(f"{self._encoder.name}\n{text}")  # another encoder: another vector of the same text

    def _is_kept(self, entry: Standing[Knowledge], text: str, stored: Mapping[str, VectorRow]) -> bool:
        row = stored.get(entry.record.subject)
        if row is None:
            return False
        if row.text_hash == self._hash(text):
            return True
        # The same request answered in other words (a repeated call of a language model): the first answer stands.
        # A row that this encoder did not make is encoded again.
        return entry.state == "known" and row.text_hash == self._hash(knowledge_text(_knowledge.decode(row.document)))

    def _vectors(self, texts: Mapping[str, str]) -> dict[str, Matrix]:
        if not texts:
            return {}
        self.n_encoded += len(texts)
        return dict(zip(texts, self._encoder.encode(list(texts.values())), strict=True))

    def _row(self, record: Knowledge, vector: Matrix, text: str, versions: tuple[Version, ...]) -> VectorRow:
        document, is_cut = write_document(record, versions)
        self.n_cut += is_cut
        return VectorRow(
            subject=record.subject,
            vector=vector,
            tier=record.tier,
            as_of_ms=record.as_of_ms,
            trigger_ms=record.trigger_ms,
            source_hash=record.source_hash,
            text_hash=self._hash(text),
            document=document,
        )

    def _encoded(self, row: VectorRow) -> EncodedKnowledge:
        return EncodedKnowledge(
            subject=row.subject,
            vector=row.vector.astype("<f4", copy=False).tobytes(),
            encoder=self._encoder.name,
            tier=row.tier,
            as_of_ms=row.as_of_ms,
            trigger_ms=row.trigger_ms,
            text_hash=row.text_hash,
            source_hash=row.source_hash,
        )
