"""MovieLens-1M under the protocol of KAR and REKI, from the raw files: what `reki evaluate` reads.

* Label: a rating above 3. Order: time, then the place in the user's own order where the file gives it (`sas_pos`), then, among
  those whose place is unknown, the movie's id; without that column, file order. So the prefixes are exactly the interactions that
  the user texts beside the data name.
* Prefix: as `kar_begin_index.json` says by user. The rule that it follows, used where the file is missing: the first 30
  interactions of a user with more than 30, else the first 10.
* Split 9:1 by user, as published: the order of the users in that file is that of `random.Random(1234).shuffle` of all users by
  id; the first nine tenths train, the others are tested. A tenth of the training users, drawn by `SPLIT_SEED`, is held out for
  validation: every choice is made there.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from contracts.actions import liked
from contracts.errors import DatasetError
from ranker.evaluation.task import HISTORY, PARTS, EvaluationTask, Pairs, codes_of, windows
from streams.datasets.dataset import MISSING_TEXT, damaged
from streams.datasets.movielens import ITEM_TEXTS, RATINGS, USER_TEXTS, MovieLens
from streams.datasets.paper_texts import SourceTexts, collect_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 1  # of this pipeline: a change of what it makes must change it, or old caches would be read
SPLIT_SEED: Final = 1234
BEGIN: Final = "kar_begin_index.json"
TRAINED: Final = 0.9  # of the users; the others are tested
VALIDATION: Final = 0.1  # of the users that are trained on
_SHORT_PREFIX: Final = 10
_FILES: Final = ("movies.dat", "users.dat", BEGIN, ITEM_TEXTS, USER_TEXTS)

Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """All ratings, grouped by user and in the user's order inside, (N,)."""

    users: NDArray[np.int32]  # (U,) ids, ascending
    user: Longs  # 0..U-1
    movie: NDArray[np.int32]
    liked: NDArray[np.bool_]
    event_ms: Longs
    starts: Longs  # (U,) first rating of each user
    position: Longs  # place in the user's sequence


def data_hash(folder: Path) -> str:
    """Of the content of the raw files in use and of the pipeline's version.

    By content, not by size and time: it is 12 MB, which takes 30 ms, and nothing can then be out of date.
    """
    ratings = next((name for name in RATINGS if (folder / name).is_file()), "")
    digest = blake2b(f"paper-protocol {VERSION}".encode(), digest_size=16)
    for name in (ratings, *_FILES):
        if name and (folder / name).is_file():
            content = (folder / name).read_bytes()
            digest.update(f"\n{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


class PaperProtocol:
    """MovieLens-1M as `streams.datasets.prepared.Prepared` reads it. Raw files are opened when something is asked for.

    Args:
        folder: Where the raw files are.
    """

    name = MovieLens.name

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def data_hash(self) -> str:
        """See `data_hash`."""
        return data_hash(self._folder)

    def task(self) -> EvaluationTask:
        """See `build_task`."""
        return build_task(self._folder, self._dataset, self.data_hash)

    def texts(self, source: str, task: EvaluationTask) -> SourceTexts:
        """See `streams.datasets.paper_texts.collect_texts`."""
        return collect_texts(source, task, self._dataset)

    @cached_property
    def _dataset(self) -> MovieLens:
        return MovieLens(self._folder)


def build_task(folder: Path, dataset: MovieLens, content_hash: str) -> EvaluationTask:
    """The protocol's columns.

    Args:
        folder: Where the raw files are.
        dataset: The same folder, read.
        content_hash: From `data_hash`.

    Raises:
        DatasetError: A file is missing, damaged, or does not fit the others.
    """
    log = _log(dataset)
    order, n_prefix = _prefixes(folder, log)
    rated = np.unique(log.movie).tolist()
    movies = [*dataset.movies, *(movie for movie in rated if movie not in dataset.movies)]  # unlisted ones behind
    row_of = np.zeros(max(movies) + 1, np.int32)
    row_of[movies] = 1 + np.arange(len(movies))
    item, codes = row_of[log.movie], codes_of(log.liked)
    sample = np.flatnonzero(log.position >= n_prefix[log.user])
    if not len(sample):
        raise DatasetError(
            f"no interactions behind the prefixes in {folder}", wanted="users with more than 10 ratings", todo="give all ratings"
        )
    user = log.user[sample]
    ends = log.starts + n_prefix
    described = [dataset.movies.get(movie, (str(movie), MISSING_TEXT)) for movie in movies]
    return EvaluationTask(
        name=dataset.name,
        licence=dataset.licence,
        data_hash=content_hash,
        user=user.astype(np.int32),
        item=item[sample],
        history=windows(log.starts[user], sample, item, HISTORY),
        history_liked=windows(log.starts[user], sample, codes, HISTORY),
        label=log.liked[sample].astype(np.float32),
        event_ms=log.event_ms[sample],
        position=log.position[sample].astype(np.int32),
        users=tuple(map(str, log.users.tolist())),
        part_of_user=_parts(order),
        demographics=_demographics(dataset, log.users),
        n_prefix=n_prefix.astype(np.int32),
        prefix=windows(log.starts, ends, item, HISTORY),
        prefix_liked=windows(log.starts, ends, codes, HISTORY),
        items=tuple(map(str, movies)),
        titles=tuple(title for title, _ in described),
        attributes=tuple(attributes for _, attributes in described),
    )


def _log(dataset: MovieLens) -> _Log:
    ratings = dataset.ratings
    keys: list[NDArray[Any]] = [ratings.at_s, ratings.user]  # the last is the first to sort by; the sort is stable
    if ratings.place is not None:
        keys = [np.where(ratings.place < 0, ratings.movie, 0), ratings.place, *keys]
    order = np.lexsort(keys)
    users, starts, user = np.unique(ratings.user[order], return_index=True, return_inverse=True)
    stars = ratings.stars[order]
    return _Log(
        users=users,
        user=user,
        movie=ratings.movie[order],
        liked=np.isin(stars, [value for value in np.unique(stars) if liked("rate", float(value))]),
        event_ms=ratings.at_s[order] * 1000,
        starts=starts,
        position=np.arange(len(order)) - starts[user],
    )


def _prefixes(folder: Path, log: _Log) -> tuple[Longs, Longs]:
    """Users in the order of the split, (U,) places in ``log.users``, and the length of each user's prefix, (U,)."""
    n_rated = np.bincount(log.user)
    file = folder / BEGIN
    if not file.is_file():
        users = list(range(len(log.users)))
        random.Random(SPLIT_SEED).shuffle(users)  # noqa: S311 - the published split, nothing secret
        return np.array(users), np.minimum(np.where(n_rated > HISTORY, HISTORY, _SHORT_PREFIX), n_rated)
    begins = _read_begins(file)
    place = {user: place for place, user in enumerate(log.users.tolist())}
    if absent := sorted(place.keys() - begins.keys()):
        raise damaged(file, f"nothing about user {absent[0]} and {len(absent) - 1} more", "every user of the ratings")
    order = np.array([place[user] for user in begins if user in place])
    return order, np.minimum([begins[user] for user in log.users.tolist()], n_rated)


def _read_begins(file: Path) -> Mapping[int, int]:
    wanted = f"for each user id a whole number from 0 to {HISTORY}"
    try:
        content: Any = json.loads(file.read_bytes())
        begins = {int(user): n for user, n in content.items()}
    except (ValueError, AttributeError) as error:
        raise damaged(file, repr(error), wanted) from error
    if wrong := [(user, n) for user, n in begins.items() if type(n) is not int or not 0 <= n <= HISTORY]:
        raise damaged(file, f"{wrong[0][1]!r} for user {wrong[0][0]}", wanted)
    return begins


def _parts(order: Longs) -> NDArray[np.int8]:
    """The part of each user, (U,)."""
    trained, tested = np.split(order, [int(len(order) * TRAINED)])
    drawn = np.random.default_rng(SPLIT_SEED).choice(trained, round(len(trained) * VALIDATION), replace=False)
    parts = np.full(len(order), PARTS.index("train"), np.int8)
    parts[drawn] = PARTS.index("validation")
    parts[tested] = PARTS.index("test")
    return parts


def _demographics(dataset: MovieLens, users: NDArray[np.int32]) -> tuple[Pairs, ...]:
    known = dataset.demographics()
    names = ("sex", "age", "occupation")
    return tuple(tuple(zip(names, known.get(str(user), ()), strict=False)) for user in users.tolist())
