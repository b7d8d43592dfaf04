import gzip
import json

import pytest

from contracts.errors import DatasetError
from contracts.records import InteractionEvent, ItemEvent
from streams.datasets.movielens import MovieLens

MOVIES = "1::Toy Story (1995)::Animation|Comedy\n2::Caf\xe9, Le (1980)::Drama\n3::Unseen (1999)::Drama\n"
RATINGS = "7::2::4::2000\n7::1::3::1000\n8::2::5::1500\n8::9::1::3000\n"
LLM = 'id,title,genre,description\n0,Toy Story (1995),x,"A film of toys"\n1,x,x,"I\'m sorry, I cannot"\n2,x,x,A film nobody saw\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "movies.dat").write_text(MOVIES, encoding="latin-1")
    (tmp_path / "ratings.dat").write_text(RATINGS)
    return tmp_path


def test_ratings_come_in_time_order_each_movie_just_before_its_first(folder):
    events = list(MovieLens(folder).events())
    assert [(e.item, type(e)) for e in events] == [
        ("1", ItemEvent),
        ("1", InteractionEvent),
        ("2", ItemEvent),
        ("2", InteractionEvent),
        ("2", InteractionEvent),
        ("9", ItemEvent),
        ("9", InteractionEvent),
    ]
    assert events[2] == ItemEvent(
        item="2", published_ms=1_500_000, title="Café, Le", attributes={"genre": ("Drama",), "year": ("1980",)}
    )
    assert events[3] == InteractionEvent(user="8", item="2", action="rate", value=5.0, event_ms=1_500_000)
    assert events[5].attributes == {"text": ("missing",)}


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 99, None])
def test_a_smaller_limit_is_a_beginning_and_count_agrees(folder, limit):
    dataset = MovieLens(folder)
    events = list(dataset.events(limit))
    assert events == list(dataset.events())[: len(events)]
    assert dataset.count(limit) == len(events)


def test_both_forms_of_the_ratings_give_the_same_events(folder, tmp_path):
    as_dat = list(MovieLens(folder).events())
    (folder / "ratings.dat").unlink()
    rows = "user_id,movie_id,rating,timestamp,ts_kind\n" + RATINGS.replace("::", ",").replace("\n", ",exact\n")
    (folder / "ratings.csv.gz").write_bytes(gzip.compress(rows.encode()))
    assert list(MovieLens(folder).events()) == as_dat


def test_item_texts_leave_out_refusals_and_movies_that_nobody_rated(folder):
    (folder / "items_llm_text.csv").write_text(LLM)
    (only,) = MovieLens(folder).imported()
    assert (only.subject, only.summary, only.as_of_ms, only.tier) == ("item:1", "A film of toys", 1_000_000, "individual")
    assert (only.backend, only.factors, only.source_hash) == ("batch", {}, "")


def test_user_texts_count_from_the_last_rating_they_were_written_from(folder):
    users = [
        {"user_id": 7, "factors": {"genre": "toys"}, "summary": "s", "used_movie_ids": [1, 2]},
        {"user_id": 8, "factors": {}, "summary": "s", "used_movie_ids": [2, 3]},  # 3 was never rated: no time can be given
        {"user_id": 99, "factors": {}, "summary": "s", "used_movie_ids": []},
    ]
    (folder / "users_llm_text.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, users)).encode()))
    (only,) = MovieLens(folder).imported()
    assert (only.subject, only.as_of_ms, only.factors) == ("user:7", 2_000_999, {"genre": "toys"})


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("movies.dat", b"1::Toy Story (1995)\n", "line 1"),
        ("movies.dat", b"x::Toy Story (1995)::Drama\n", "movie id 'x'"),
        ("ratings.dat", b"7::2::many::2000\n", "ratings.dat"),
        ("users_llm_text.jsonl.gz", b"no gzip", "users_llm_text"),
        ("users_llm_text.jsonl.gz", gzip.compress(b'{"user_id": 1}\n'), "line 1"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, said):
    (folder / name).write_bytes(content)
    with pytest.raises(DatasetError, match=said):
        list(MovieLens(folder).imported())


def test_a_cut_gzip_file_and_a_missing_one_are_named(folder):
    (folder / "ratings.csv.gz").write_bytes(gzip.compress(b"user_id,movie_id,rating,timestamp\n" * 1000)[:-20])
    with pytest.raises(DatasetError, match=r"ratings\.csv\.gz"):
        MovieLens(folder)
    (folder / "movies.dat").unlink()
    with pytest.raises(DatasetError, match=r"no movies\.dat"):
        MovieLens(folder)


def test_demographics(folder):
    (folder / "users.dat").write_text("7::F::25::10::48067\n")
    assert MovieLens(folder).demographics() == {"7": ("F", "25", "10")}
