"""Against a real HTTP server on loopback that serves RSS and Atom with validators."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from contracts.errors import UnavailableError
from contracts.records import ItemEvent
from contracts.topics import DEAD_LETTERS, ITEMS
from streams.ingest import feed
from streams.ingest.feed import Feeds

NOW_MS = 1_800_000_000_000
RSS = """<?xml version="1.0"?><rss version="2.0"><channel><title>The Paper</title>
<item><guid>g1</guid><title>One &amp;amp; more</title><description>&lt;p&gt;Text &lt;b&gt;one&lt;/b&gt;&lt;/p&gt;</description>
<category>sport</category><pubDate>Mon, 01 Jun 2026 08:00:00 GMT</pubDate></item>
<item><link>http://example.org/2</link><title>Two</title></item>
<item><title>No id</title></item>
</channel></rss>"""
ATOM = """<?xml version="1.0" encoding="utf-8"?><feed xmlns="http://www.w3.org/2005/Atom"><title>Notes</title>
<entry><id>urn:1</id><title>First</title><updated>2026-06-01T10:00:00Z</updated><content type="html">&lt;i&gt;long body&lt;/i&gt;</content></entry>
</feed>"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        site.seen.append(dict(self.headers))
        body, etag = site.pages.get(self.path, (None, None))
        if body is None:
            self.send_response(500)
            self.end_headers()
        elif etag and self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            self.end_headers()
        else:
            self.send_response(200)
            if etag:
                self.send_header("ETag", etag)
                self.send_header("Last-Modified", "Mon, 01 Jun 2026 08:00:00 GMT")
            self.end_headers()
            self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Site:
    def __init__(self):
        self.pages, self.seen = {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.site = self
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def __getitem__(self, path):
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Sent(list):
    broken = False

    def send(self, topic, record):
        self.append((topic, record))

    def flush(self):
        if self.broken:
            raise UnavailableError("no broker", wanted="one", todo="start it")


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def client():
    with httpx.Client(timeout=5, trust_env=False) as client:
        yield client


def test_rss_becomes_items_and_an_entry_without_an_id_a_dead_letter(site, client, tmp_path):
    site.pages["/rss"] = (RSS, None)
    sent = Sent()
    polled = Feeds(sent, tmp_path / "feeds.json", client, lambda: NOW_MS).poll([site["/rss"]])
    assert (polled.sent, polled.dead, polled.errors) == (2, 1, [])
    assert sent[0] == (
        ITEMS,
        ItemEvent(
            item="g1",
            published_ms=1_780_300_800_000,
            title="One & more",
            text="Text one",
            attributes={"feed": ("The Paper",), "tags": ("sport",)},
        ),
    )
    assert (sent[1][1].item, sent[1][1].published_ms) == ("http://example.org/2", NOW_MS)
    assert (sent[2][0], sent[2][1].offset) == (DEAD_LETTERS, 3)


def test_atom_and_a_local_file(site, client, tmp_path):
    (tmp_path / "notes.xml").write_text(ATOM)
    sent = Sent()
    Feeds(sent, tmp_path / "feeds.json", client).poll([str(tmp_path / "notes.xml")])
    ((_, item),) = sent
    assert (item.item, item.title, item.text, item.published_ms) == ("urn:1", "First", "long body", 1_780_308_000_000)


def test_what_was_seen_is_not_sent_again_also_by_a_new_process(site, client, tmp_path):
    site.pages["/atom"] = (ATOM, '"v1"')
    for expected in ((1, 0, 0), (0, 0, 1)):
        sent = Sent()
        polled = Feeds(sent, tmp_path / "feeds.json", client).poll([site["/atom"]])
        assert (len(sent), polled.unchanged, polled.not_modified) == expected
    assert site.seen[1]["If-None-Match"] == '"v1"'
    assert "If-Modified-Since" in site.seen[1]
    site.pages["/atom"] = (ATOM.replace("First", "First, corrected"), '"v2"')
    Feeds(sent, tmp_path / "feeds.json", client).poll([site["/atom"]])
    assert [item.title for _, item in sent] == ["First, corrected"]


def test_an_entry_without_a_date_is_not_new_at_every_poll(site, client, tmp_path):
    site.pages["/rss"] = (RSS, None)
    clock = iter(range(NOW_MS, NOW_MS + 10))
    feeds = Feeds(Sent(), tmp_path / "feeds.json", client, lambda: next(clock))
    assert [feeds.poll([site["/rss"]]).sent for _ in range(2)] == [2, 0]


def test_one_broken_feed_does_not_stop_the_others(site, client, tmp_path):
    site.pages |= {"/page": ("<html>no feed</html>", None), "/atom": (ATOM, None)}
    sent = Sent()
    feeds = Feeds(sent, tmp_path / "feeds.json", client)
    polled = feeds.poll([site["/gone"], site["/page"], "http://127.0.0.1:1/", str(tmp_path / "none.xml"), site["/atom"]])
    assert (len(sent), len(polled.errors)) == (1, 4)
    assert "HTTP 500" in polled.errors[0]


def test_what_the_broker_did_not_take_is_sent_at_the_next_poll(site, client, tmp_path):
    site.pages["/atom"] = (ATOM, '"v1"')
    sent = Sent()
    feeds = Feeds(sent, tmp_path / "feeds.json", client)
    sent.broken = True
    with pytest.raises(UnavailableError):
        feeds.poll([site["/atom"]])
    sent.broken = False
    assert feeds.poll([site["/atom"]]).sent == 1


def test_a_bad_entry_is_dead_lettered_once_and_again_when_it_changed_and_is_still_bad(site, client, tmp_path):
    site.pages["/rss"] = (RSS, None)
    polls = []
    for _ in range(3):
        polled = Feeds(Sent(), tmp_path / "feeds.json", client, lambda: NOW_MS).poll([site["/rss"]])
        polls.append((polled.sent, polled.dead, polled.unchanged))
    assert polls == [(2, 1, 0), (0, 0, 3), (0, 0, 3)]
    site.pages["/rss"] = (RSS.replace("No id", "Still no id"), None)
    assert Feeds(Sent(), tmp_path / "feeds.json", client, lambda: NOW_MS).poll([site["/rss"]]).dead == 1


def test_bad_entries_are_remembered_within_a_bound(site, client, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "MAX_BAD", 2)
    feeds = Feeds(Sent(), tmp_path / "feeds.json", client, lambda: NOW_MS)
    for n in range(4):
        site.pages["/rss"] = (RSS.replace("No id", f"No id {n}"), None)
        feeds.poll([site["/rss"]])
    assert len(json.loads((tmp_path / "feeds.json").read_text())[site["/rss"]]["bad"]) == 2


@pytest.mark.parametrize("broken", ["<html>down for repair</html>", ATOM[:-30]])
def test_a_feed_that_could_not_be_read_whole_is_fetched_again(site, client, tmp_path, broken):
    site.pages["/atom"] = (broken, '"v1"')
    feeds = Feeds(Sent(), tmp_path / "feeds.json", client)
    for _ in range(2):
        assert feeds.poll([site["/atom"]]).not_modified == 0
    site.pages["/atom"] = (ATOM, '"v2"')
    feeds.poll([site["/atom"]])
    assert feeds.poll([site["/atom"]]).not_modified == 1
