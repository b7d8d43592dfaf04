import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from ranker.serving import origins


def client(host="127.0.0.1"):
    app = FastAPI()
    app.add_route("/", lambda _: PlainTextResponse("yes"), methods=["GET", "POST"])
    return TestClient(origins.guarded(app, host))


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:28080", "[::1]:28080", "LOCALHOST"])
def test_loopback_is_ours_whatever_the_port(host):
    assert client().get("/", headers={"Host": host}).text == "yes"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:28080", "127.0.0.1.evil.example", "192.168.0.9", "", "[", "localhost@evil.example"]
)
def test_a_foreign_name_is_refused_with_got_wanted_and_todo(host):
    answer = client().get("/", headers={"Host": host})
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert host in error["got"]
    assert "localhost" in error["wanted"]
    assert error["todo"]


def test_the_name_it_listens_under_and_the_machines_own_are_ours(monkeypatch):
    monkeypatch.setattr(origins.socket, "gethostname", lambda: "Rank")
    named = client("ranker.internal")
    codes = [named.get("/", headers={"Host": host}).status_code for host in ("ranker.internal:28080", "rank:28080", "10.0.0.1")]
    assert codes == [200, 200, 403]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_where_it_listens_everywhere_every_address_is_ours_but_no_foreign_name(host):
    everywhere = client(host)
    asked = ("10.0.0.1:28080", "[fe80::1]:28080", "evil.example")
    assert [everywhere.get("/", headers={"Host": one}).status_code for one in asked] == [200, 200, 403]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:28080", 200),
        ("http://localhost", 200),
        ("http://evil.example", 403),
        ("https://localhost.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_only_its_own_page_may_post(origin, status):
    headers = {"Host": "localhost:28080"} | ({"Origin": origin} if origin else {})
    answer = client().post("/", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert origin in answer.json()["error"]["got"]


def test_a_read_needs_no_origin_of_ours():
    assert client().get("/", headers={"Host": "localhost", "Origin": "http://evil.example"}).status_code == 200
