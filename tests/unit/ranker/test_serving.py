from __future__ import annotations

import threading
import time
from importlib.resources import files

import pytest
from starlette.testclient import TestClient

from contracts.errors import UnavailableError
from contracts.records import Knowledge
from contracts.settings import load_settings
from ranker.serving.app import build_app
from ranker.serving.outbox import Outbox

HOSTILE = "<img src=x onerror=alert(1)>"


def knowledge_of(subjects):
    made = Knowledge(
        subject="user:u", factors={"topic": HOSTILE}, summary="s", tier="attributes", backend="attributes",
        scenario="news", prompt_version="1", model="", as_of_ms=1,
    )  # fmt: skip
    return {subject: made for subject in subjects if subject in {"user:u", "item:a/b c"}}


class Served:
    def __init__(self, ranker, **rank):
        self.published = []
        self.ready = {"items": True}
        self.about = {"simulated": True, "dataset": "news"}
        settings = load_settings(rank={"host": "testserver", **rank})  # the name that starlette's client asks for
        self.app = build_app(ranker.scorer, knowledge_of, lambda: self.ready, self.published.extend, settings, self.about)


@pytest.fixture
def served(ranker):
    ranker.holder.install(ranker.bundle())
    return Served(ranker)


@pytest.fixture
def client(served):
    with TestClient(served.app) as client:
        yield client


def test_a_ranking_over_http_is_the_scorers_and_is_published(ranker, served):
    with TestClient(served.app) as client:
        body = {"user": "u", "candidates": ["i1", "i2", "i9", "x"], "k": 3, "request": "mine", "event_ms": 500}
        response = client.post("/v1/rank", json=body)
        answer = response.json()
        generated = client.post("/v1/rank", json={"user": "u", "candidates": ["i1"]}).json()
    assert response.status_code == 200
    assert (answer["ranking"], answer["version"], answer["step"], len(answer["items"])) == ("mine", 1, 0, 3)
    assert {"item", "score", "tier", "knowledge_age_ms", "default_vector", "unknown_item"} == set(answer["items"][0])
    assert [one.ranking for one in served.published] == ["mine", generated["ranking"]]
    assert served.published[0].snapshot.user_vector is not None


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"not json", "JSON object"),
        (b"[]", "JSON object"),
        (b'{"user": "u"}', "JSON object"),
        (b'{"user": "u", "candidates": []}', "1 to 20"),
        (b'{"user": "u", "candidates": ["i1"], "k": "three"}', "JSON object"),
        (b'{"user": "u", "candidates": ["i1"], "k": 0}', "JSON object"),
        (b'{"user": "u", "candidates": ["a\\u0000b"]}', "JSON object"),
        (b'{"user": "u", "candidates": ["i1"], "tomfoolery": 1}', "JSON object"),
        (b'{"user": "u", "candidates": ["i1"], "event_ms": 253402300799999}', "a day after now"),
        (b'{"user": "u", "candidates": [' + b",".join(b'"i%d"' % n for n in range(21)) + b"]}", "1 to 20"),
        (b'"' + b"a" * 5_000_000 + b'"', "less"),
        (b"[" * 100_000, "JSON object"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/rank", "/v1/explain"])
def test_a_bad_body_is_refused_with_got_wanted_and_todo(client, path, body, wanted):
    if path == "/v1/explain" and b'"k"' in body:
        wanted = "JSON object"
    response = client.post(path, content=body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert set(error) == {"got", "wanted", "todo"}
    assert wanted in error["wanted"]
    assert len(error["got"]) < 500


def test_before_the_first_version_requests_are_told_to_come_again_and_readyz_says_what_is_missing(ranker):
    served = Served(ranker)
    served.ready = {"items": False}
    with TestClient(served.app) as client:
        response = client.post("/v1/rank", json={"user": "u", "candidates": ["i1"]})
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["missing"]) == (503, ["model", "items"])
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/about").json()["model"] is None
        ranker.holder.install(ranker.bundle())
        served.ready = {"items": True}
        assert client.get("/readyz").status_code == 200


def test_explanations_items_users_knowledge_and_about(client, served):
    explained = client.post("/v1/explain", json={"user": "u", "candidates": ["i1", "i2"], "event_ms": 500}).json()
    assert [one["place"] for one in explained["items"]] == [1, 2]
    assert explained["history"][-1] == {"item": "i3", "liked": True}
    assert client.get("/v1/users?n=1").json() == {"users": ["u"]}
    assert [one["item"] for one in client.get("/v1/items?recent=2").json()["items"]] == ["i9", "i8"]
    assert [one["title"] for one in client.get("/v1/items?ids=i1&ids=none&ids=i0").json()["items"]] == ["Title 1", "Title 0"]
    assert client.get("/v1/items?recent=x").status_code == 422
    assert client.get("/v1/knowledge/user:u").json()["factors"] == {"topic": HOSTILE}
    assert client.get("/v1/knowledge/item:a%2Fb%20c").status_code == 200
    assert client.get("/v1/knowledge/item:none").status_code == 404
    assert list(client.get("/v1/knowledge?subject=user:u&subject=item:none").json()["knowledge"]) == ["user:u"]
    served.about["dataset"] = "other"
    about = client.get("/v1/about").json()
    assert (about["simulated"], about["dataset"], about["model"]["version"]) == (True, "other", 1)
    assert about["live"]["newest_ms"] == 400


@pytest.mark.parametrize("clock", ["wall", "stream"])
def test_a_request_without_a_time_is_of_now_or_in_a_replay_of_the_time_of_the_stream(ranker, clock):
    """A ranking from now, in a replay of events from the past, would close every window before it."""
    ranker.holder.install(ranker.bundle())
    before_ms = time.time_ns() // 1_000_000
    with TestClient(Served(ranker, clock=clock).app) as client:
        for path in ("/v1/rank", "/v1/explain"):
            event_ms = client.post(path, json={"user": "u", "candidates": ["i1"]}).json()["event_ms"]
            assert event_ms == 400 if clock == "stream" else event_ms >= before_ms
        assert client.get("/v1/about").json()["clock"] == clock


def test_metrics_count_rankings_default_vectors_and_refusals(client):
    client.post("/v1/rank", json={"user": "stranger", "candidates": ["i1", "i9"]})
    client.post("/v1/rank", json={"user": "u", "candidates": []})
    lines = client.get("/metrics").text.splitlines()
    for line in (
        "reki_rank_seconds_count 1.0",
        'reki_rank_default_vectors_total{subject="item"} 1.0',
        'reki_rank_default_vectors_total{subject="user"} 1.0',
        'reki_rank_refused_total{why="invalid"} 1.0',
        "reki_vector_misses_total 2.0",
        "reki_model_version 1.0",
        "reki_model_step 0.0",
        "reki_rank_candidates_sum 2.0",
    ):
        assert line in lines


def test_the_page_may_run_and_load_nothing_but_its_own_files_and_builds_text_only(client):
    for path, kind in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
        ("/v1/users", "application/json"),
    ]:
        response = client.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert response.headers["x-content-type-options"] == "nosniff"
    page = {name: files("ranker.serving.page").joinpath(name).read_text() for name in ("index.html", "page.js", "page.css")}
    for text in page.values():
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "http://", "https://", " style="):
            assert word not in text


class Named(str):
    """Stands for a ranking; only its id is asked for."""

    __slots__ = ()
    ranking = "r"


def test_a_log_that_does_not_take_rankings_slows_no_answer_and_is_counted(ranker):
    ranker.holder.install(ranker.bundle())
    gate = threading.Event()
    outbox = Outbox(lambda _: gate.wait(10), max_waiting=2)
    outbox.start()
    for _ in range(10):
        outbox.offer(Named("one"))
    assert outbox.dropped >= 7
    gate.set()
    outbox.close()


def test_a_ranking_is_tried_again_while_the_log_is_down_and_one_that_never_fits_does_not_stop_the_rest(monkeypatch):
    monkeypatch.setattr("ranker.serving.outbox._AGAIN_S", 0.0)
    taken, failures = [], [UnavailableError("nothing", wanted="an answer", todo="wait")] * 3
    done = threading.Event()

    def publish(rankings):
        if "bad" in rankings:
            raise ValueError("cannot be sent")
        if failures:
            raise failures.pop()
        taken.extend(rankings)
        if "last" in rankings:
            done.set()

    outbox = Outbox(publish)
    outbox.start()
    for name in ("first", "bad", "last"):
        outbox.offer(Named(name))
    assert done.wait(10)
    outbox.close()
    assert (taken, outbox.dropped) == (["first", "last"], 1)
