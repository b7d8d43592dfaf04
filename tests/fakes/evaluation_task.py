"""A small evaluation task without any data set."""

from __future__ import annotations

import numpy as np

from ranker.evaluation.task import HISTORY, EvaluationTask, codes_of, windows


def make_task(n_users: int = 12, n_items: int = 15, n_prefix: int = 3, seed: int = 0) -> EvaluationTask:
    """Users with 8 to 43 random interactions each; every sixth user validates, every fourth of the rest is tested."""
    draw = np.random.default_rng(seed)
    n_rated = draw.integers(8, 44, n_users)
    user = np.repeat(np.arange(n_users), n_rated)
    starts = np.cumsum(n_rated) - n_rated
    position = np.arange(len(user)) - starts[user]
    item = draw.integers(1, n_items + 1, len(user)).astype(np.int32)
    liked = draw.random(len(user)) < 0.3 + 0.4 * (item / n_items)
    sample = np.flatnonzero(position >= n_prefix)
    part = np.where(np.arange(n_users) % 6 == 1, 1, np.where(np.arange(n_users) % 4 == 0, 2, 0))
    return EvaluationTask(
        name="made-up",
        licence="none: random numbers",
        data_hash=f"{seed:032x}",
        user=user[sample].astype(np.int32),
        item=item[sample],
        history=windows(starts[user[sample]], sample, item, HISTORY),
        history_liked=windows(starts[user[sample]], sample, codes_of(liked), HISTORY),
        label=liked[sample].astype(np.float32),
        event_ms=1_000 * sample,
        position=position[sample].astype(np.int32),
        users=tuple(f"u{n}" for n in range(n_users)),
        part_of_user=part.astype(np.int8),
        demographics=tuple((("age", str(n % 3)), ("sex", "FM"[n % 2])) for n in range(n_users)),
        n_prefix=np.full(n_users, n_prefix, np.int32),
        prefix=windows(starts, starts + n_prefix, item, HISTORY),
        prefix_liked=windows(starts, starts + n_prefix, codes_of(liked), HISTORY),
        items=tuple(f"i{n}" for n in range(1, n_items + 1)),
        titles=tuple(f"Title {n}" for n in range(1, n_items + 1)),
        attributes=tuple({"year": (str(1990 + n % 4),), "genre": ("A", "B", "C")[: n % 4]} for n in range(n_items)),
    )
