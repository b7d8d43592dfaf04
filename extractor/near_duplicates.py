"""Items that say the same: the same story published twice is asked about once. The only importer of `datasketch`.

Compared are runs of `SHINGLE_WORDS` words of title and text, as the prompt shows them, in small letters (Broder 1997). MinHash
and LSH find who may be similar; the Jaccard similarity that decides is computed on the sets of shingles themselves (as 32-bit
hashes), not estimated. One changed word touches three shingles, so at 0.9 a text of 60 words may differ by one.

A few words are alike by chance, and short items say the rest in their attributes: below `MIN_WORDS` words, title, text and
attributes have to be equal, but for case, punctuation and space. So does text in scripts without spaces, whose "words" are few.

Only items that were themselves asked about are compared with, never those that share: likeness does not travel from one to the
next. Held in memory, the last `MOST_ITEMS` (about 5 kB each with their answers); after a restart the index fills up again.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from extractor.plain_text import plain_text
from extractor.prompts import MAX_TEXT_CHARS, MAX_TITLE_CHARS

if TYPE_CHECKING:
    from contracts.records import ItemEvent

MOST_ITEMS: Final = 50_000
SHINGLE_WORDS: Final = 3
MIN_WORDS: Final = 20
_N_PERMUTATIONS: Final = 32
_LOOK_LOWER: Final = 0.85  # of the threshold, for LSH: at the threshold itself it would miss every other pair
_LOWEST: Final = 0.1  # LSH finds nothing useful below
_WORD: Final = re.compile(r"\w+")

Shingles = NDArray[np.uint32]  # (n,) sorted, each once


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What of an item is compared: its shingles, or of a short one everything it says."""

    shingles: Shingles
    exact: str = ""

    @classmethod
    def of(cls, item: ItemEvent) -> Fingerprint:
        """The fingerprint of an item."""
        title, text = plain_text(item.title, MAX_TITLE_CHARS), plain_text(item.text, MAX_TEXT_CHARS)
        words = _words(f"{title} {text}")
        if len(words) < MIN_WORDS:
            attributes = sorted((name, sorted(" ".join(_words(value)) for value in of)) for name, of in item.attributes.items())
            return cls(shingles=np.empty(0, np.uint32), exact=repr([words, attributes]))
        runs = (" ".join(words[start : start + SHINGLE_WORDS]) for start in range(len(words) - SHINGLE_WORDS + 1))
        return cls(shingles=np.unique(np.frombuffer(b"".join(map(_hash, runs)), np.uint32)))

    def jaccard(self, other: Fingerprint) -> float:
        """Shared of all shingles, 0 to 1."""
        n_shared = len(np.intersect1d(self.shingles, other.shingles, assume_unique=True))
        n_all = len(self.shingles) + len(other.shingles) - n_shared
        return n_shared / n_all if n_all else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    fingerprint: Fingerprint
    answer: bytes


class NearDuplicates:
    """The answers about the last items, found by likeness. Subjects are unique: a newer answer replaces the older one.

    Args:
        threshold: Jaccard similarity from which two items count as one, above 0 and at most 1.
        most: Items held; beyond it the oldest goes.
    """

    def __init__(self, threshold: float, most: int = MOST_ITEMS) -> None:
        self._threshold = threshold
        self._most = most
        self._lsh = MinHashLSH(threshold=max(_LOWEST, threshold * _LOOK_LOWER), num_perm=_N_PERMUTATIONS, weights=(0.2, 0.8))
        self._empty = MinHash(num_perm=_N_PERMUTATIONS, hashfunc=int)
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._exact: dict[str, str] = {}  # subject by what a short item says

    def __len__(self) -> int:
        """Items held."""
        return len(self._held)

    def find(self, subject: str, fingerprint: Fingerprint) -> tuple[str, bytes] | None:
        """The most similar other item with an answer: its subject and that answer; None where none is similar enough.

        An item is never found by its own older content.
        """
        if fingerprint.exact:
            twin = self._exact.get(fingerprint.exact)
            return (twin, self._held[twin].answer) if twin is not None and twin != subject else None
        others = (str(other) for other in self._lsh.query(self._minhash(fingerprint)))
        likeness = {other: fingerprint.jaccard(self._held[other].fingerprint) for other in others if other != subject}
        best = max(likeness, key=lambda other: (likeness[other], other), default=None)
        return (best, self._held[best].answer) if best is not None and likeness[best] >= self._threshold else None

    def add(self, subject: str, fingerprint: Fingerprint, answer: bytes) -> None:
        """This item was asked about, with this answer."""
        self.remove(subject)
        self._held[subject] = _Held(fingerprint=fingerprint, answer=answer)
        if fingerprint.exact:
            self._exact[fingerprint.exact] = subject
        else:
            self._lsh.insert(subject, self._minhash(fingerprint))
        if len(self._held) > self._most:
            self.remove(next(iter(self._held)))

    def remove(self, subject: str) -> None:
        """Forget an item, if it is there."""
        held = self._held.pop(subject, None)
        if held is None:
            return
        if not held.fingerprint.exact:
            self._lsh.remove(subject)
        elif self._exact.get(held.fingerprint.exact) == subject:
            del self._exact[held.fingerprint.exact]

    def _minhash(self, fingerprint: Fingerprint) -> MinHash:
        minhash = self._empty.copy()  # shares the permutations, which take as long to draw as all the rest
        minhash.update_batch(fingerprint.shingles.tolist())
        return minhash


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _hash(run: str) -> bytes:
    return hashlib.blake2b(run.encode(), digest_size=4).digest()  # not a checksum: those can be met on purpose
