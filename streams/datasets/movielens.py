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
from collections.abc import Iterator
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


@dataclass(frozen=True, slots=True)
class _Ratings:
    """Columns of the ratings in event-time order, (n,) each: 1M ratings take 20 MB, as dicts they would take 400."""

    user: NDArray[np.int32]
    movie: NDArray[np.int32]
    stars: NDArray[np.float32]
    at_s: NDArray[np.int64]

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
        self._ratings = _read_ratings(need_file(folder, "ratings.csv.gz", "ratings.csv", "ratings.dat"))

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
        items, users = self._folder / "items_llm_text.csv", self._folder / "users_llm_text.jsonl.gz"
        if items.is_file():
            yield from self._imported_items(items)
        if users.is_file():
            yield from self._imported_users(users)

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

    def _imported_items(self, file: Path) -> Iterator[Knowledge]:
        rows = self._ratings.first_rows()
        first_s = dict(zip(self._ratings.movie[rows].tolist(), self._ratings.at_s[rows].tolist(), strict=True))
        movies = list(self._movies)
        with file.open(newline="", encoding="utf-8") as lines:
            for i, row in enumerate(csv.DictReader(lines)):
                text = (row.get("description") or "").strip()
                if i >= len(movies):
                    raise damaged(file, f"more rows than movies.dat has lines ({len(movies)})", "row i for line i of movies.dat")
                if text and not text.startswith(_REFUSALS) and movies[i] in first_s:
                    yield Knowledge(
                        subject=item_subject(str(movies[i])),
                        factors={},
                        summary=text[:_MAX_SUMMARY],
                        tier="individual",
                        backend="batch",
                        scenario=self.scenario,
                        prompt_version=_IMPORTED,
                        model=f"chatgpt ({file.name})",
                        as_of_ms=first_s[movies[i]] * 1000,
                    )

    def _imported_users(self, file: Path) -> Iterator[Knowledge]:
        ratings = self._ratings
        order = np.argsort(ratings.user, kind="stable")  # rows grouped by user, in time order inside
        users, starts = np.unique(ratings.user[order], return_index=True)
        ends = np.append(starts[1:], len(order))
        rows_of = {int(user): order[a:b] for user, a, b in zip(users, starts, ends, strict=True)}
        for number, line in enumerate(_gzip_lines(file), 1):
            try:
                row: dict[str, Any] = json.loads(line)
                user, used = int(row["user_id"]), np.asarray(row["used_movie_ids"], dtype=np.int32)
                factors, summary = {str(k): str(v) for k, v in row["factors"].items()}, str(row["summary"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise damaged(file, f"line {number} ({error!r})", "user_id, factors, summary, used_movie_ids") from error
            rows = rows_of.get(user)
            if rows is None:
                continue
            passed = rows[np.isin(ratings.movie[rows], used)]
            if len(passed) < len(np.unique(used)):
                continue  # written from ratings that are not in this file: it cannot be said from when on it may be used
            yield Knowledge(
                subject=user_subject(str(user)),
                factors={name: text[:_MAX_SUMMARY] for name, text in factors.items()},
                summary=summary[:_MAX_SUMMARY],
                tier="individual",
                backend="batch",
                scenario=self.scenario,
                prompt_version=_IMPORTED,
                model=f"assistant ({file.name})",
                as_of_ms=int(ratings.at_s[passed].max()) * 1000 + 999,
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


def _read_ratings(file: Path) -> _Ratings:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = ("user_id", "movie_id", "rating", "timestamp")
    wanted = f"the columns {', '.join(names)}"
    types = dict(zip(names, (pa.int32(), pa.int32(), pa.float32(), pa.int64()), strict=True))
    read, parse = arrow_csv.ReadOptions(), arrow_csv.ParseOptions()
    if file.suffix == ".dat":  # `::` is `:` with an empty column between
        read = arrow_csv.ReadOptions(column_names=["user_id", "a", "movie_id", "b", "rating", "c", "timestamp"])
        parse = arrow_csv.ParseOptions(delimiter=":")
    try:
        convert = arrow_csv.ConvertOptions(include_columns=list(names), column_types=types)
        table = arrow_csv.read_csv(file, read, parse, convert)
        user, movie, stars, at_s = (table[name].to_numpy() for name in names)
        order = np.argsort(at_s, kind="stable")
        return _Ratings(user[order], movie[order], stars[order], at_s[order])
    except (OSError, KeyError, pa.ArrowException) as error:
        raise damaged(file, error, wanted) from error


def _gzip_lines(file: Path) -> Iterator[str]:
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: {error}", wanted="a whole gzip file", todo="fetch it again") from error
