"""Tiny files in the form of the rebuilt MovieLens-1M with the texts beside it."""

from __future__ import annotations

import gzip
import json
import random
from functools import cache
from pathlib import Path

N_USERS, N_MOVIES = 20, 60

Rating = tuple[int, int, int, int]  # user, movie, stars, second


@cache
def sequences() -> dict[int, list[Rating]]:
    """Each user's ratings in their order; several in the same second."""
    draw = random.Random(3)
    rows = {}
    for user in range(1, N_USERS + 1):
        movies = draw.sample(range(1, N_MOVIES + 1), draw.randint(12, 50))
        times = sorted(draw.randint(1_000, 1_020) for _ in movies)
        rows[user] = [(user, movie, draw.randint(1, 5), at) for movie, at in zip(movies, times, strict=True)]
    return rows


def n_prefix(user: int) -> int:
    """How many of a user's ratings were used to write knowledge."""
    return 30 if len(sequences()[user]) > 30 else 10


def write_ratings(folder: Path, rows: list[tuple[Rating, int]]) -> None:
    """Ratings with their places, in any order."""
    lines = [f"{user},{movie},{stars},{at},exact,{place}" for (user, movie, stars, at), place in rows]
    text = "user_id,movie_id,rating,timestamp,ts_kind,sas_pos\n" + "\n".join(lines)
    (folder / "ratings.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def write_users(folder: Path, used: dict[int, list[int]]) -> None:
    """Users' texts and the movies that each was written from."""
    rows = [
        {"user_id": user, "factors": {"genre": f"taste {user}"}, "summary": f"likes {user}", "used_movie_ids": movies}
        for user, movies in used.items()
    ]
    (folder / "users_llm_text.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode(), mtime=0))


def write_movielens(folder: Path) -> Path:
    """All files, into a new folder."""
    folder.mkdir()
    genres = ("Drama", "Comedy|Drama", "War")
    (folder / "movies.dat").write_text("".join(f"{n}::Film {n} ({1980 + n})::{genres[n % 3]}\n" for n in range(1, N_MOVIES + 1)))
    (folder / "users.dat").write_text("".join(f"{n}::{'FM'[n % 2]}::25::{n % 4}::1\n" for n in range(1, N_USERS + 1)))
    rows = [(row, place) for rows in sequences().values() for place, row in enumerate(rows)]
    random.Random(1).shuffle(rows)  # the places alone say the order
    write_ratings(folder, rows)
    texts = ["id,title,genre,description"] + [f"{n},t,g,{'I am sorry' if n == 4 else f'Plot {n}'}" for n in range(N_MOVIES)]
    (folder / "items_llm_text.csv").write_text("\n".join(texts))
    write_users(folder, {user: [row[1] for row in rows[: n_prefix(user)]] for user, rows in sequences().items()})
    users = list(range(1, N_USERS + 1))
    random.Random(1234).shuffle(users)
    (folder / "kar_begin_index.json").write_text(json.dumps({str(user): n_prefix(user) for user in users}))
    return folder
