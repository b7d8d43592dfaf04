"""What was answered once is not asked again; a cache that is broken costs a warning; what is shared is labelled."""

import asyncio
import logging
import os
import pickle
import sqlite3

import msgspec
import pytest

from contracts.errors import UnavailableError
from contracts.records import Knowledge, Member
from contracts.settings import Extract
from extractor.answer_cache import CachedBackend
from extractor.on_disk import JsonOnDisk

LONG = " ".join(f"word{n}" for n in range(80))


class CountingBackend:
    """A backend that answers at once, and keeps what it was asked."""

    tier = "individual"

    def __init__(self, **fields):
        self.asked = []
        self.fields = {"tier": "individual", "backend": "openai"} | fields
        self.gate = None
        self.closed = False

    async def ready(self):
        pass

    async def extract(self, request):
        self.asked.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.fields.get("error"):
            raise self.fields["error"]
        return Knowledge(
            subject=request.subject, factors={"topic": f"answer {len(self.asked)}"}, summary="s", scenario="news",
            prompt_version="v", model="m", as_of_ms=request.as_of_ms, trigger_ms=request.trigger_ms,
            source_hash=request.source_hash, tokens_in=100, tokens_out=20, tokens_cached=64, **self.fields,
        )  # fmt: skip

    async def aclose(self):
        self.closed = True


@pytest.fixture
def cached(tmp_path, news):
    opened = []

    def make(backend=None, folder=tmp_path / "answers", **changed):
        settings = Extract(**{"model": "m", "near_duplicate": 0.9} | changed)
        opened.append(CachedBackend(backend or CountingBackend(), news, settings, folder))
        return opened[-1]

    yield make
    for one in opened:
        asyncio.run(one.aclose())


def _ask(backend, *requests):
    async def all_of_them():
        return await asyncio.gather(*map(backend.extract, requests))

    return asyncio.run(all_of_them())


def test_the_same_question_is_asked_once_and_answered_for_who_asks_now(cached, item_request):
    one = cached()
    [first] = _ask(one, item_request())
    [again] = _ask(one, item_request(as_of_ms=9_000, trigger_ms=9_500, source_hash="new"))
    assert len(one.backend.asked) == 1
    assert (again.factors, again.summary, again.tier, again.model) == (first.factors, first.summary, first.tier, first.model)
    assert (again.subject, again.as_of_ms, again.trigger_ms, again.source_hash) == ("item:n1", 9_000, 9_500, "new")
    assert (again.tokens_in, again.tokens_out, again.tokens_cached, again.shared_from) == (None, None, None, "")
    assert one.saved == {"cache": 1}
    assert one.saved_tokens == {"cache": 120}


def test_answers_outlive_the_process_and_are_shared_by_two_workers(cached, item_request):
    first, second = cached(), cached()
    _ask(first, item_request())
    _ask(second, item_request())
    asyncio.run(first.aclose())
    assert first.backend.closed
    third = cached()
    _ask(third, item_request())
    assert [len(one.backend.asked) for one in (first, second, third)] == [1, 0, 0]


def test_another_model_prompt_or_text_is_asked_anew(cached, item_request, news, monkeypatch):
    _ask(cached(), item_request())
    for changed, request in (({"model": "other"}, item_request()), ({}, item_request(text="Something else."))):
        one = cached(**changed)
        _ask(one, request)
        assert len(one.backend.asked) == 1
    monkeypatch.setattr("extractor.answer_cache.prompt_version", lambda _: "news-2/9")
    one = cached()
    _ask(one, item_request())
    assert len(one.backend.asked) == 1


def test_users_with_the_same_history_share_but_do_not_name_each_other(cached, user_request):
    one = cached()
    history = ("Harbour opens", True, {})
    _, second = (_ask(one, user_request(history, ident=ident))[0] for ident in ("u1", "u2"))
    assert len(one.backend.asked) == 1
    assert (second.subject, second.shared_from) == ("user:u2", "")


def test_a_cluster_s_answer_is_kept_with_its_tier(cached, item_request):
    request = item_request(members=(Member(subject="item:a", text="about ships"),), cluster_size=5, mode="collective")
    request = msgspec.structs.replace(request, subject="cluster:item-1", item=None)
    one = cached(CountingBackend(tier="collective"))
    _ask(one, request)
    [again] = _ask(one, request)
    assert len(one.backend.asked) == 1
    assert again.tier == "collective"


@pytest.mark.parametrize("fields", [{"tier": "attributes", "backend": "attributes"}, {"shared_from": "item:x"}])
def test_stand_ins_and_shared_answers_are_not_kept(cached, item_request, fields):
    one = cached(CountingBackend(**fields))
    _ask(one, item_request(text=LONG))
    _ask(one, item_request(text=LONG))
    _ask(one, item_request(text=LONG, ident="n2"))
    assert len(one.backend.asked) == 3
    assert one.saved == {}


def test_equal_questions_at_the_same_time_are_asked_once(cached, item_request):
    one = cached()

    async def scene():
        one.backend.gate = asyncio.Event()
        tasks = [asyncio.create_task(one.extract(item_request(ident=f"n{n}"))) for n in range(5)]
        await asyncio.sleep(0)
        one.backend.gate.set()
        return await asyncio.gather(*tasks)

    made = asyncio.run(scene())
    assert len(one.backend.asked) == 1
    assert {knowledge.shared_from for knowledge in made[1:]} == {"item:n0"}
    assert len(one._asking) == 0


def test_the_second_asks_itself_where_the_first_fails_or_is_cancelled(cached, item_request):
    one = cached()

    async def scene():
        one.backend.gate = asyncio.Event()
        first, second = (asyncio.create_task(one.extract(item_request())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        one.backend.gate.set()
        assert (await second).summary == "s"

    asyncio.run(scene())
    assert len(one.backend.asked) == 2
    failing = cached(CountingBackend(error=UnavailableError("x", wanted="y", todo="z")), cache_mib=0)
    with pytest.raises(UnavailableError):
        _ask(failing, item_request())


def test_a_near_duplicate_shares_the_answer_and_says_whose(cached, item_request):
    one = cached()
    [first] = _ask(one, item_request(text=LONG))
    [second] = _ask(one, item_request(text=f"{LONG} again", ident="n2"))
    assert len(one.backend.asked) == 1
    assert (second.subject, second.shared_from, second.factors) == ("item:n2", "item:n1", first.factors)
    assert one.saved == {"near-duplicate": 1}
    assert one.saved_tokens == {"near-duplicate": 120}
    _ask(one, item_request(text=f"again {LONG}", ident="n3"))
    assert one.saved["near-duplicate"] == 2


def test_a_changed_item_is_asked_about_again_also_where_its_old_twin_is_known(cached, item_request):
    one = cached()
    _ask(one, item_request(text=LONG))
    _ask(one, item_request(text=f"{LONG} again"))  # the same subject: never by its own old content
    assert len(one.backend.asked) == 2
    _ask(one, item_request(text=f"{LONG} twice", ident="n2"))  # shares n1's
    _ask(one, item_request(text=f"{LONG} thrice", ident="n2", reason="changed_item"))  # would share the same answer again
    assert len(one.backend.asked) == 3


def test_after_a_restart_what_the_cache_answers_is_shared_again(cached, item_request):
    _ask(cached(), item_request(text=LONG))
    one = cached()
    _ask(one, item_request(text=LONG), item_request(text=f"{LONG} again", ident="n2"))
    assert one.backend.asked == []
    assert one.saved == {"cache": 1, "near-duplicate": 1}


def test_both_can_be_switched_off(cached, item_request, tmp_path):
    one = cached(cache_mib=0, near_duplicate=0, folder=tmp_path / "none")
    for ident in ("n1", "n1", "n2"):
        _ask(one, item_request(text=LONG, ident=ident))
    assert len(one.backend.asked) == 3
    assert not (tmp_path / "none").exists()


def test_what_is_known_can_be_had_without_asking(cached, item_request):
    one = cached()
    assert one.known(item_request()) is None
    _ask(one, item_request())
    assert one.known(item_request()).factors == {"topic": "answer 1"}
    assert one.backend.asked[1:] == []


def _damaged(folder):
    folder.mkdir(exist_ok=True)
    (folder / "cache.db").write_bytes(b"no database" * 1000)


def _a_file(folder):
    folder.write_text("in the way")


def _no_database(folder):
    (folder / "cache.db").mkdir(parents=True)


@pytest.mark.parametrize("spoil", [_damaged, _a_file, _no_database])
def test_a_cache_that_cannot_be_opened_is_one_warning_and_no_cache(cached, item_request, tmp_path, caplog, spoil):
    folder = tmp_path / "spoilt"
    spoil(folder)
    one = cached(folder=folder, near_duplicate=0)
    with caplog.at_level(logging.WARNING):
        made = [_ask(one, item_request())[0] for _ in range(3)]
    assert len(made) == len(one.backend.asked) == 3
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text


def test_a_cache_that_breaks_while_it_is_used_is_a_warning_and_a_miss(cached, item_request, tmp_path, caplog):
    one = cached(near_duplicate=0)
    _ask(one, item_request())
    with sqlite3.connect(tmp_path / "answers" / "cache.db") as database:
        database.execute("DROP TABLE Cache")
    with caplog.at_level(logging.WARNING):
        assert len(_ask(one, item_request(), item_request(ident="n2", title="Else"))) == 2
    assert len(caplog.records) == 1
    assert len(one.backend.asked) == 3


@pytest.mark.parametrize("stored", ["no knowledge", {"subject": "item:n1"}, 7])
def test_what_stands_there_and_is_no_answer_is_asked_anew_and_written_over(cached, item_request, tmp_path, stored):
    one = cached(near_duplicate=0)
    one._disk.put(one._key(item_request()), stored)
    _ask(one, item_request())
    _ask(one, item_request())
    assert len(one.backend.asked) == 1


class Planted:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_the_folder_is_never_read(tmp_path, caplog):
    disk = JsonOnDisk(tmp_path / "d", 1)
    disk.put("key", {"a": 1})
    with sqlite3.connect(tmp_path / "d" / "cache.db") as database:
        database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Planted(tmp_path / "planted")),))
    with caplog.at_level(logging.WARNING):
        assert disk.get("key") is None
    assert not (tmp_path / "planted").exists()
    assert disk.n_failures == 1
    disk.close()


def test_the_disk_is_bounded_and_the_least_recently_used_go_first(tmp_path):
    disk = JsonOnDisk(tmp_path / "d", 1)
    noise = [os.urandom(4_000).hex() for _ in range(400)]  # what does not compress: 1.6 MB
    disk.put("kept", "used all the time")
    for n, text in enumerate(noise):
        disk.put(f"k{n}", text)
        assert disk.get("kept") == "used all the time"
    assert disk.get("k0") is None
    assert disk.get("k399") == noise[399]
    size = sum(file.stat().st_size for file in (tmp_path / "d").rglob("*") if file.is_file() and not file.name.endswith("-wal"))
    assert size < 1.5 * 1024 * 1024
    disk.close()
