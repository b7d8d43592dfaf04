"""Where simulated tastes live: articles as points in a small space spanned by their sections, tags and factor words.

No text encoder is involved: a weighted word count, reduced by a singular value decomposition. The factor words of the language
model's answers are part of it **by construction**, so knowledge made of the same factors must help to predict these clicks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contracts.records import ItemEvent

Floats = NDArray[np.float64]

N_LATENT: Final = 16
_WORD = re.compile(r"[a-z]{4,}")
_WEIGHTS: Final = {"section": 3.0, "tag": 2.0, "factor": 1.0}
_MIN_ARTICLES: Final = 3  # a word in fewer articles says nothing about the others


@dataclass(frozen=True, slots=True)
class Article:
    """An article as the simulation needs it: its event, and the factor texts of the language model's answer (may be empty)."""

    item: ItemEvent
    factors: Mapping[str, str]


def latents(articles: Sequence[Article]) -> Floats:
    """Points of unit length, (n_articles, N_LATENT): near means that the same readers like them."""
    words = [_words(article) for article in articles]
    in_articles = Counter(word for counts in words for word in counts)
    columns = {word: i for i, word in enumerate(sorted(w for w, n in in_articles.items() if n >= _MIN_ARTICLES))}
    counts = np.zeros((len(articles), max(N_LATENT, len(columns))))  # (n_articles, n_words)
    for row, weights in enumerate(words):
        for word, weight in weights.items():
            if word in columns:
                counts[row, columns[word]] = weight * np.log(len(articles) / in_articles[word])
    counts /= np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
    sizes, directions = np.linalg.eigh(counts @ counts.T)  # ascending; the square of the singular values
    n = min(N_LATENT, len(articles))
    points = np.zeros((len(articles), N_LATENT))
    points[:, :n] = directions[:, -n:] * np.sqrt(np.maximum(sizes[-n:], 0))
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    return points


def _words(article: Article) -> dict[str, float]:
    attributes = article.item.attributes
    weights = {f"section:{word}": _WEIGHTS["section"] for word in attributes.get("section", ())}
    weights |= {f"tag:{word}": _WEIGHTS["tag"] for word in attributes.get("tags", ())}
    for name, text in article.factors.items():
        weights |= {f"{name}:{word}": _WEIGHTS["factor"] for word in _WORD.findall(text.lower())}
    return weights
