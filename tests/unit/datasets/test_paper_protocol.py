"""MovieLens under the paper's protocol, from tiny raw files to cached columns and vectors."""

import gzip
import json
import os
import re
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from filelock import FileLock

from contracts.errors import DatasetError, SettingsError, VectorError
from fakes.movielens_files import N_MOVIES, N_USERS, n_prefix, sequences, write_movielens, write_ratings, write_users
from fakes.text_encoder import HashEncoder
from ranker.evaluation.arms import ARMS, SOURCES, arm_knowledge
from ranker.evaluation.columns import arm_columns
from ranker.evaluation.task import PARTS
from ranker.features import DISLIKED, LIKED
from streams.datasets import prepared
from streams.datasets.arrow_task import write_checksums
from streams.datasets.paper_protocol import PaperProtocol
from streams.datasets.prepared import Prepared

DATA = Path(os.environ.get("REKI_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture
def folder(tmp_path):
    return write_movielens(tmp_path / "raw")


@pytest.fixture
def make(folder, tmp_path):
    return lambda: Prepared(PaperProtocol(folder), tmp_path / "cache")


def _same(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert type(a) is type(b), field.name
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
            assert (a == b).all(), field.name
        else:
            assert a == b, field.name


def test_every_interaction_behind_the_prefix_is_a_sample_with_what_was_before_it(folder):
    task = PaperProtocol(folder).task()
    seen = 0
    for number, user in enumerate(task.users):
        rows = sequences()[int(user)]
        n = n_prefix(int(user))
        own = np.flatnonzero(task.user == number)
        assert task.position[own].tolist() == list(range(n, len(rows)))
        seen += len(own)
        assert task.n_prefix[number] == n
        assert [task.items[row - 1] for row in task.prefix[number, :n]] == [str(row[1]) for row in rows[:n]]
        assert not task.prefix[number, n:].any()
        assert task.prefix_liked[number, :n].tolist() == [LIKED if row[2] > 3 else DISLIKED for row in rows[:n]]
        for sample, (_, movie, stars, at) in zip(own, rows[n:], strict=True):
            before = rows[max(0, task.position[sample] - 30) : task.position[sample]]
            padding = [0] * (30 - len(before))
            assert (task.items[task.item[sample] - 1], task.label[sample], task.event_ms[sample]) == (
                str(movie), float(stars > 3), at * 1000,
            )  # fmt: skip
            assert task.history[sample].tolist() == [int(row[1]) for row in before] + padding  # row n is line n of movies.dat
            assert task.history_liked[sample].tolist() == [LIKED if row[2] > 3 else DISLIKED for row in before] + padding
    assert seen == len(task) == sum(len(rows) - n_prefix(user) for user, rows in sequences().items())


def test_the_split_is_the_published_one_and_validation_is_a_tenth_of_the_training_users(folder):
    task = PaperProtocol(folder).task()
    order = list(json.loads((folder / "kar_begin_index.json").read_text()))
    parts = dict(zip(task.users, task.part_of_user.tolist(), strict=True))
    assert [parts[user] for user in order[18:]] == [PARTS.index("test")] * 2
    assert sorted(parts[user] for user in order[:18]) == [PARTS.index("train")] * 16 + [PARTS.index("validation")] * 2
    assert set(task.user[task.part("test")]) == {task.users.index(user) for user in order[18:]}


def test_without_the_file_the_same_rule_gives_the_same_columns(folder):
    with_file = PaperProtocol(folder).task()
    (folder / "kar_begin_index.json").unlink()
    without = PaperProtocol(folder).task()
    assert without.data_hash != with_file.data_hash
    assert (without.part_of_user == with_file.part_of_user).all()
    assert (without.history == with_file.history).all()


def test_unknown_places_go_by_time_then_movie_and_without_the_column_by_time_then_file(folder):
    rows = [row for rows in sequences().values() for row in rows]
    first = rows[0][0], [(movie, 4, 7) for movie in (9, 3, 5)]  # before all others, of one second, in this order in the file
    early = [(first[0], *row) for row in first[1]]
    rest = [row for row in rows if row[0] != first[0] or row[1] not in {9, 3, 5}]
    places = {}
    placed = [(row, places.setdefault(row[0], []).append(row) or len(places[row[0]]) - 1) for row in rest]
    write_ratings(folder, [*placed, *((row, "") for row in early)])
    task = PaperProtocol(folder).task()
    assert [task.items[row - 1] for row in task.prefix[0, :3]] == ["3", "5", "9"]
    lines = [f"{user}::{movie}::{stars}::{at}\n" for user, movie, stars, at in [*rest, *early]]
    (folder / "ratings.csv.gz").unlink()
    (folder / "ratings.dat").write_text("".join(lines))
    task = PaperProtocol(folder).task()
    assert [task.items[row - 1] for row in task.prefix[0, :3]] == ["9", "3", "5"]


def test_a_rated_movie_that_is_not_listed_stands_behind_the_others(folder):
    lines = (folder / "movies.dat").read_text().splitlines(keepends=True)
    (folder / "movies.dat").write_text("".join(line for line in lines if not line.startswith("7::")))
    task = PaperProtocol(folder).task()
    assert (task.items[-1], task.titles[-1], task.attributes[-1]) == ("7", "7", {"text": ("missing",)})
    assert len(task.items) == N_MOVIES


def test_texts_are_what_the_stream_would_encode(folder):
    """If this fails because texts have changed for good, `paper_protocol.VERSION` must go up, or old vectors would be read."""
    raw = PaperProtocol(folder)
    task = raw.task()
    said = {source: raw.texts(source, task) for source in SOURCES}
    assert said["metadata"].texts[0] == "Film 1 (1981), genres Comedy, Drama"
    assert said["attributes"].texts[0] == "Film 1\ngenre: Comedy, Drama\nperiod_and_country: 1980s"
    assert said["knowledge-items"].texts[:2] == ("Plot 0", "Plot 1")
    assert said["knowledge-users"].texts[0] == "likes 1\ngenre: taste 1"
    assert "liked Film" in said["attributes-users"].texts[0]
    assert {source: (len(one.texts), one.n_missing) for source, one in said.items()} == {
        "metadata": (N_MOVIES, 0),
        "attributes": (N_MOVIES, 0),
        "attributes-users": (N_USERS, 0),
        "knowledge-items": (N_MOVIES, 1),
        "knowledge-users": (N_USERS, 0),
    }
    with pytest.raises(SettingsError, match="'gossip'"):
        raw.texts("gossip", task)


def test_a_user_text_that_saw_more_or_less_than_the_prefix_is_left_out(folder):
    used = {user: [row[1] for row in rows[: n_prefix(user)]] for user, rows in sequences().items()}
    used[2] = used[2][:-1]
    used[3] = [*used[3], sequences()[3][n_prefix(3)][1]]
    used[99] = [1]
    write_users(folder, used)
    raw = PaperProtocol(folder)
    said = raw.texts("knowledge-users", raw.task())
    assert (said.n_leaking, said.n_missing, said.texts[1], said.texts[2]) == (2, 2, "", "")


def test_a_cached_task_equals_a_fresh_one_and_reads_nothing_but_to_hash(folder, make, monkeypatch):
    fresh = PaperProtocol(folder).task()
    _same(make().task(), fresh)
    monkeypatch.setattr(PaperProtocol, "task", lambda _: pytest.fail("built again"))
    cached = make().task()
    _same(cached, fresh)
    assert not cached.history.flags.owndata  # a view of the file


def test_changed_raw_files_are_prepared_again(folder, make):
    before = make().task()
    (folder / "users.dat").write_text((folder / "users.dat").read_text().replace("::25::", "::35::"))
    after = make().task()
    assert before.data_hash != after.data_hash
    assert after.demographics[0] == (("sex", "M"), ("age", "35"), ("occupation", "1"))


def test_vectors_stand_in_the_tasks_order_and_are_encoded_once(folder, make):
    encoder = HashEncoder()
    raw = PaperProtocol(folder)
    told = []
    vectors = make().vectors(list(SOURCES), encoder, lambda *progress: told.append(progress))
    for source, matrix in vectors.items():
        texts = raw.texts(source, raw.task()).texts
        wanted = [encoder.vector(text) if text else np.zeros(encoder.dim) for text in texts]
        assert matrix == pytest.approx(np.array(wanted))
    assert ("knowledge-items", N_MOVIES - 1, N_MOVIES - 1) in told
    n_encoded = len(encoder.encoded)
    again = make().vectors(list(SOURCES), encoder)
    assert len(encoder.encoded) == n_encoded
    assert all((again[source] == vectors[source]).all() for source in SOURCES)
    other = HashEncoder(name="fake-hash")  # another encoder whose folder would have the same name but for its hash
    make().vectors(["metadata"], other)
    assert other.encoded


def test_killed_in_the_middle_it_goes_on_where_it_was(make, monkeypatch):
    monkeypatch.setattr(prepared, "CHUNK", 10)
    encoder = HashEncoder()
    encoder.fail_after = 3
    with pytest.raises(KeyboardInterrupt):
        make().vectors(["metadata"], encoder)
    first = list(encoder.encoded)
    assert len(first) == 30
    encoder.fail_after, encoder.encoded = None, []
    vectors = make().vectors(["metadata"], encoder)["metadata"]
    assert len(encoder.encoded) == N_MOVIES - 30
    assert set(first).isdisjoint(encoder.encoded)
    assert vectors == pytest.approx(HashEncoder().encode([f"Film {n} ({1980 + n}), genres {g}" for n, g in _genres()]))


def _genres():
    return [(n, ("Drama", "Comedy, Drama", "War")[n % 3]) for n in range(1, N_MOVIES + 1)]


def test_what_a_killed_process_left_unfinished_goes(make, tmp_path):
    name = f"ml-1m-{make().task().data_hash}"
    made = tmp_path / "cache" / name
    left = tmp_path / "cache" / f".unfinished-{name}-x"
    left.mkdir()
    (left / "samples.arrow").write_text("half")
    encoder = HashEncoder()
    make().vectors(["metadata"], encoder)
    assert not left.exists()
    assert sorted(path.name for path in made.rglob("*") if path.is_file()) == [
        "checksums.json", "items.arrow", "metadata.blake2b", "metadata.npy", "samples.arrow", "users.arrow",
    ]  # fmt: skip


def test_a_second_process_waits_for_the_first(make, tmp_path):
    """The lock of the first is held here; the second is told to give up when it would wait."""
    one = make()
    (tmp_path / "cache").mkdir()
    waited = []

    class Waiting(FileLock):
        def acquire(self, *args, **options):
            if options.get("timeout") != 0:
                waited.append(self.lock_file)
                held.release()
            return super().acquire(*args, **options)

    held = FileLock(tmp_path / "cache" / f"ml-1m-{PaperProtocol(tmp_path / 'raw').data_hash}.lock")
    held.acquire()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "FileLock", Waiting)
        assert len(one.task()) > 0
    assert len(waited) == 1


@pytest.mark.parametrize(("spoil", "said"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_broken_vectors_are_refused_and_not_kept(make, tmp_path, spoil, said):
    encoder = HashEncoder()
    encoder.spoil = spoil
    with pytest.raises(VectorError, match=said):
        make().vectors(["metadata"], encoder)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_vectors_of_another_size_than_the_encoder_says_are_refused(make):
    encoder = HashEncoder()
    encoder.vector = lambda _: np.ones(5, np.float32)
    with pytest.raises(VectorError, match=r"shape \(60, 5\)"):
        make().vectors(["metadata"], encoder)


def _read(make):
    make().task()
    make().vectors(["metadata"], HashEncoder())


def _damaged(content):
    """The content with one bit flipped at several places, with a block of zeros, cut and prolonged."""
    for place in {int(part * (len(content) - 1)) for part in np.linspace(0, 1, 33)}:
        yield content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
    block = max(range(0, len(content), 64), key=lambda start: sum(map(bool, content[start : start + 64])))
    yield content[:block] + bytes(len(content[block : block + 64])) + content[block + 64 :]
    yield from (b"", content[: len(content) // 2], content[:-1], content + b"\0")


@pytest.mark.parametrize(
    ("name", "named", "todo"),
    [
        ("samples.arrow", "samples.arrow", "delete the folder"),
        ("users.arrow", "users.arrow", "delete the folder"),
        ("items.arrow", "items.arrow", "delete the folder"),
        ("checksums.json", "", "delete the folder"),  # the file is named whose checksum seems wrong
        ("metadata.npy", "metadata.npy", "delete the file"),
        ("metadata.blake2b", "metadata.npy", "delete the file"),
    ],
)
def test_a_damaged_cache_is_never_read_as_other_data(make, tmp_path, name, named, todo):
    _read(make)
    (file,) = (tmp_path / "cache").rglob(name)
    content = file.read_bytes()
    for damaged in _damaged(content):
        assert damaged != content
        file.write_bytes(damaged)
        with pytest.raises(DatasetError, match=f"got {re.escape(str(file.parent / named))}.*{todo}"):
            _read(make)


@pytest.mark.parametrize("name", ["samples.arrow", "users.arrow", "items.arrow", "checksums.json", "metadata.blake2b"])
def test_what_is_missing_in_a_cache_is_named(make, tmp_path, name):
    """Without checksums: it is of an older build."""
    _read(make)
    (file,) = (tmp_path / "cache").rglob(name)
    file.unlink()
    with pytest.raises(DatasetError, match=f"{re.escape(str(file))}.*delete the f"):
        _read(make)


def test_vectors_made_again_get_their_own_checksum(make, tmp_path):
    wanted = make().vectors(["metadata"], HashEncoder())["metadata"]
    (file,) = (tmp_path / "cache").rglob("metadata.npy")
    file.unlink()
    file.with_suffix(".blake2b").write_bytes(b"of what was deleted")
    encoder = HashEncoder()
    assert (make().vectors(["metadata"], encoder)["metadata"] == wanted).all()
    assert encoder.encoded
    assert (make().vectors(["metadata"], HashEncoder())["metadata"] == wanted).all()


def test_a_damaged_part_is_refused_too(make, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "CHUNK", 10)
    encoder = HashEncoder()
    encoder.fail_after = 3
    with pytest.raises(KeyboardInterrupt):
        make().vectors(["metadata"], encoder)
    (part,) = (tmp_path / "cache").rglob("metadata.part-10.npy")
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    with pytest.raises(DatasetError, match=f"got {re.escape(str(part))}.*delete the file"):
        make().vectors(["metadata"], HashEncoder())
    part.unlink()
    make().vectors(["metadata"], HashEncoder())


def test_columns_in_several_batches_are_not_what_was_written(make, tmp_path):
    make().task()
    (file,) = (tmp_path / "cache").rglob("users.arrow")
    table = pa.ipc.open_file(file.read_bytes()).read_all()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    write_checksums(file.parent)
    with pytest.raises(DatasetError, match="delete the folder"):
        make().task()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("movies.dat", None, r"no movies\.dat"),
        ("users.dat", None, r"no users\.dat"),
        ("ratings.csv.gz", None, r"no ratings\.csv\.gz"),
        ("kar_begin_index.json", b"[]", "for each user id"),
        ("kar_begin_index.json", b"{", "for each user id"),
        ("kar_begin_index.json", b'{"1": 31}', "31 for user 1"),
        ("kar_begin_index.json", b'{"1": 10}', "nothing about user 2 and 18 more"),
        ("ratings.csv.gz", gzip.compress(b"user_id,movie_id,rating,timestamp\n1,1,,9\n"), "no value in rating"),
        ("ratings.csv.gz", gzip.compress(b"user_id,movie_id,rating,timestamp\n1,1,4,9\n"), "behind the prefixes"),
    ],
)
def test_files_that_are_missing_or_wrong_are_named(folder, make, name, content, said):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DatasetError, match=said):
        make().task()


@pytest.mark.parametrize("name", ["items_llm_text.csv", "users_llm_text.jsonl.gz"])
def test_texts_that_are_not_there_are_missed_only_by_their_source(folder, make, name):
    (folder / name).unlink()
    encoder = HashEncoder()
    make().vectors(["metadata", "attributes-users"], encoder)
    with pytest.raises(DatasetError, match=f"no {name}"):
        make().vectors(["knowledge-items", "knowledge-users"], encoder)


@pytest.mark.parametrize("name", list(ARMS))
def test_every_arm_reads_cached_columns(make, name):
    arm = ARMS[name]
    task = make().task()
    knowledge = arm_knowledge(arm, task, make().vectors(arm.sources, HashEncoder()))
    samples = arm_columns(task, arm, knowledge, d_embedding=4).samples(task.part("train"))
    batch = samples.batch(np.arange(32))  # tensors of memory-mapped, read-only columns would warn
    assert batch.features.history.shape == (32, arm.history)
    assert batch.label.shape == (32,)


def test_ml_1m_itself(tmp_path):
    folder = DATA / "ml-1m"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set REKI_DATA to the folder that holds ml-1m")
    raw = PaperProtocol(folder)
    task = Prepared(raw, tmp_path).task()
    start = time.process_time()  # of this process: what else runs on the machine does not count
    task = Prepared(raw, tmp_path).task()
    assert time.process_time() - start < 2
    assert {part: (len(task.part(part)), int((task.part_of_user == n).sum())) for n, part in enumerate(PARTS)} == {
        "train": (669_927, 4_892), "validation": (80_443, 544), "test": (84_819, 604),
    }  # fmt: skip
    said = raw.texts("knowledge-users", task)
    assert (said.n_missing, said.n_leaking) == (0, 0)  # so the order is that from which the texts were written
    assert raw.texts("knowledge-items", task).n_missing == 94
