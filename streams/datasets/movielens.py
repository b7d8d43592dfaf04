"""MovieLens as a stream: ratings in time order, each movie just before its first rating, LLM texts beside them where present.

MovieLens gives no release times: a movie is "published" at its first rating. Where `ratings.csv.gz` has the columns of the
rebuilt ML-1M (`ts_kind`), a third of the timestamps are estimates bounded by their neighbours.

Leak guard: a user's imported knowledge carries as ``as_of_ms`` the last millisecond of the second of the last rating that it was
written from: timestamps are whole seconds, so another rating of that second may be one that it has seen.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DatasetError
from contracts.records import InteractionEvent, ItemEvent, Knowledge
from contracts.subjects import item_subject, user_subject
from streams.datasets.dataset import Event, bare_item, damaged, need_file

_TITLE = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*$")
_REFUSALS: Final = ("I'm sorry", "I am sorry", "Sorry", "I apologize", "As an AI")
_MAX_SUMMARY: Final = 2_000
_IMPORTED: Final = "imported"  # prompt_version: the prompts are not ours
_PLACE: Final = "sas_pos"
RATINGS: Final = ("ratings.csv.gz", "ratings.csv", "ratings.dat")  # the first that exists
ITEM_TEXTS: Final = "items_llm_text.csv"
USER_TEXTS: Final = "users_llm_text.jsonl.gz"


@dataclass(frozen=True, slots=True)
class UserText:
    """What `users_llm_text.jsonl.gz` says of one user."""

    user: int
    factors: dict[str, str]
    summary: str
    used: NDArray[np.int32]  # the movies that the text was written from


@dataclass(frozen=True, slots=True)
class Ratings:
    """Columns of the ratings in event-time order, (n,) each: 1M ratings take 20 MB, as dicts they would take 400."""

    user: NDArray[np.int32]
    movie: NDArray[np.int32]
    stars: NDArray[np.float32]
    at_s: NDArray[np.int64]
    place: NDArray[np.int32] | None  # place in the user's own order (`sas_pos`), -1 where unknown; None without the column

    def first_rows(self) -> NDArray[np.int64]:
        """Row of each movie's first rating, ascending."""
        _, rows = np.unique(self.movie, return_index=True)
        return np.sort(rows)


class MovieLens:
    """MovieLens in its published form (`ratings.dat`) or as CSV (`ratings.csv.gz`, columns user_id, movie_id, rating, timestamp).

    Args:
        folder: Where the files are; `items_llm_text.csv` and `users_llm_text.jsonl.gz` are used where present.

    Raises:
        DatasetError: A file is missing or damaged.
    """

    name = "ml-1m"
    scenario = "movies"
    simulated = False
    licence = "MovieLens: research use, no redistribution, no commercial use"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._movies = _read_movies(need_file(folder, "movies.dat"))
        self._ratings = _read_ratings(need_file(folder, *RATINGS))

    @property
    def movies(self) -> Mapping[int, tuple[str, dict[str, tuple[str, ...]]]]:
        """Title without year, and attributes, by movie id, in the order of the lines of `movies.dat`."""
        return self._movies

    @property
    def ratings(self) -> Ratings:
        """All ratings."""
        return self._ratings

    def events(self, limit: int | None = None) -> Iterator[Event]:
        """Ratings in time order, each movie's item event just before its first one (``published_ms`` is that time)."""
        ratings, seen = self._ratings, set[int]()
        for row in range(self._n(limit)):
            movie, at_ms = int(ratings.movie[row]), int(ratings.at_s[row]) * 1000
            if movie not in seen:
                seen.add(movie)
                yield self._item(movie, at_ms)
            yield InteractionEvent(
                user=str(ratings.user[row]), item=str(movie), action="rate", value=float(ratings.stars[row]), event_ms=at_ms
            )

    def count(self, limit: int | None = None) -> int:
        """Ratings and the movies among them."""
        n = self._n(limit)
        return n + int(np.searchsorted(self._ratings.first_rows(), n))

    def imported(self) -> Iterator[Knowledge]:
        """The LLM texts found beside the ratings: of items (from their first rating on) and users (see the leak guard above)."""
        if (self._folder / ITEM_TEXTS).is_file():
            yield from self._imported_items()
        if (self._folder / USER_TEXTS).is_file():
            yield from self._imported_users()

    def item_texts(self) -> Iterator[tuple[int, str]]:
        """Movie id and LLM text of every movie that has one; refusals are no text.

        Raises:
            DatasetError: The file is missing or damaged.
        """
        file = need_file(self._folder, ITEM_TEXTS)
        movies = list(self._movies)
        with file.open(newline="", encoding="utf-8") as lines:
            for i, row in enumerate(csv.DictReader(lines)):
                text = (row.get("description") or "").strip()
                if i >= len(movies):
                    raise damaged(file, f"more rows than movies.dat has lines ({len(movies)})", "row i for line i of movies.dat")
                if text and not text.startswith(_REFUSALS):
                    yield movies[i], text[:_MAX_SUMMARY]

    def user_texts(self) -> Iterator[UserText]:
        """LLM texts of users, as the file has them.

        Raises:
            DatasetError: The file is missing or damaged.
        """
        file = need_file(self._folder, USER_TEXTS)
        for number, line in enumerate(_gzip_lines(file), 1):
            try:
                row: dict[str, Any] = json.loads(line)
                factors = {str(k): str(v)[:_MAX_SUMMARY] for k, v in row["factors"].items()}
                used = np.asarray(row["used_movie_ids"], dtype=np.int32)
                text = UserText(int(row["user_id"]), factors, str(row["summary"])[:_MAX_SUMMARY], used)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise damaged(file, f"line {number} ({error!r})", "user_id, factors, summary, used_movie_ids") from error
            yield text

    def demographics(self) -> dict[str, tuple[str, str, str]]:
        """Sex, lower end of the age band and occupation code by user, as `users.dat` has them."""
        file = need_file(self._folder, "users.dat")
        return {row[0]: (row[1], row[2], row[3]) for row in _rows(file, 5)}

    def _n(self, limit: int | None) -> int:
        n = len(self._ratings.user)
        return n if limit is None else min(limit, n)

    def _item(self, movie: int, at_ms: int) -> ItemEvent:
        if movie not in self._movies:
            return bare_item(str(movie), at_ms)
        title, attributes = self._movies[movie]
        return ItemEvent(item=str(movie), published_ms=at_ms, title=title, attributes=attributes)

    def _imported_items(self) -> Iterator[Knowledge]:
        rows = self._ratings.first_rows()
        first_s = dict(zip(self._ratings.movie[rows].tolist(), self._ratings.at_s[rows].tolist(), strict=True))
        for movie, text in self.item_texts():
            if movie in first_s:
                model = f"chatgpt ({ITEM_TEXTS})"
                yield imported_knowledge(item_subject(str(movie)), {}, text, model=model, as_of_ms=first_s[movie] * 1000)

    def _imported_users(self) -> Iterator[Knowledge]:
        ratings = self._ratings
        order = np.argsort(ratings.user, kind="stable")  # rows grouped by user, in time order inside
        users, starts = np.unique(ratings.user[order], return_index=True)
        ends = np.append(starts[1:], len(order))
        rows_of = {int(user): order[a:b] for user, a, b in zip(users, starts, ends, strict=True)}
        for text in self.user_texts():
            rows = rows_of.get(text.user)
            if rows is None:
                continue
            passed = rows[np.isin(ratings.movie[rows], text.used)]
            if len(passed) < len(np.unique(text.used)):
                continue  # written from ratings that are not in this file: it cannot be said from when on it may be used
            as_of_ms = int(ratings.at_s[passed].max()) * 1000 + 999
            subject, model = user_subject(str(text.user)), f"assistant ({USER_TEXTS})"
            yield imported_knowledge(subject, text.factors, text.summary, model=model, as_of_ms=as_of_ms)


def imported_knowledge(subject: str, factors: Mapping[str, str], summary: str, *, model: str, as_of_ms: int) -> Knowledge:
    """A text that was written beforehand, as knowledge."""
    return Knowledge(
        subject=subject,
        factors=dict(factors),
        summary=summary,
        tier="individual",
        backend="batch",
        scenario=MovieLens.scenario,
        prompt_version=_IMPORTED,
        model=model,
        as_of_ms=as_of_ms,
    )


def _rows(file: Path, n_fields: int) -> Iterator[list[str]]:
    with file.open(encoding="latin-1") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\r\n").split("::")
            if len(fields) != n_fields:
                raise damaged(file, f"line {number} with {len(fields)} fields", f"{n_fields} fields between `::`")
            yield fields


def _read_movies(file: Path) -> dict[int, tuple[str, dict[str, tuple[str, ...]]]]:
    movies: dict[int, tuple[str, dict[str, tuple[str, ...]]]] = {}
    for ident, title, genres in _rows(file, 3):
        if not ident.isdigit():
            raise damaged(file, f"movie id {ident!r}", "a number")
        attributes = {"genre": tuple(genre for genre in genres.split("|") if genre)}
        if found := _TITLE.match(title):
            title, attributes["year"] = found["title"], (found["year"],)  # noqa: PLW2901 - the year leaves the title
        movies[int(ident)] = (title, attributes)
    return movies


def _read_ratings(file: Path) -> Ratings:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = ("user_id", "movie_id", "rating", "timestamp")
    wanted = f"the columns {', '.join(names)}"
    types = dict(zip((*names, _PLACE), (pa.int32(), pa.int32(), pa.float32(), pa.int64(), pa.int32()), strict=True))
    read, parse = arrow_csv.ReadOptions(), arrow_csv.ParseOptions()
    if file.suffix == ".dat":  # `::` is `:` with an empty column between
        read = arrow_csv.ReadOptions(column_names=["user_id", "a", "movie_id", "b", "rating", "c", "timestamp"])
        parse = arrow_csv.ParseOptions(delimiter=":")
    try:
        # the place is not in every form of the ratings; a column that is not there reads as nulls
        convert = arrow_csv.ConvertOptions(include_columns=[*types], column_types=types, include_missing_columns=True)
        table = arrow_csv.read_csv(file, read, parse, convert)
        if gaps := [name for name in names if table[name].null_count]:
            raise damaged(file, f"no value in {', '.join(gaps)}", wanted)
        user, movie, stars, at_s = (table[name].to_numpy() for name in names)
        order = np.argsort(at_s, kind="stable")
        has_place = table[_PLACE].null_count < len(table)
        place = table[_PLACE].fill_null(-1).to_numpy()[order] if has_place else None
        return Ratings(user[order], movie[order], stars[order], at_s[order], place)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise damaged(file, error, wanted) from error


def _gzip_lines(file: Path) -> Iterator[str]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: {error}", wanted="a whole gzip file", todo="fetch it again") from error
