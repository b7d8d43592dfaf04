"""`reki rank` against a small HTTP server on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from streams.cli.main import cli

RANKING = {
    "version": 3,
    "step": 7,
    "took_ms": 1.5,
    "items": [{"item": "b", "score": 0.9, "tier": "individual"}, {"item": "a", "score": 0.1}],
}


class Handler(BaseHTTPRequestHandler):
    def answer(self, body, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_POST(self):
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(*self.server.answers)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.answers = [], (RANKING,)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("REKI__RANK__PORT", str(server.server_port))
        yield server
        server.shutdown()
        thread.join()


def test_leaves_the_time_to_the_server_unless_told_and_prints_best_first(server):
    result = CliRunner().invoke(cli, ["rank", "u", "a", "b"])
    assert result.exit_code == 0, result.output
    assert server.asked[0] == {"user": "u", "candidates": ["a", "b"], "k": 20}
    CliRunner().invoke(cli, ["rank", "u", "a", "--at-ms", "1234"])
    assert server.asked[1]["event_ms"] == 1234
    assert [line.split()[2] for line in result.output.splitlines()[1:]] == ["b", "a"]
    assert "no knowledge yet" in result.output


def test_a_refusal_is_the_message_and_exit_code_1(server):
    server.answers = ({"detail": "too many"}, 422)
    result = CliRunner().invoke(cli, ["rank", "u", "a"])
    assert (result.exit_code, "too many" in result.output) == (1, True)


def test_no_ranker_is_one_message(monkeypatch):
    monkeypatch.setenv("REKI__RANK__PORT", "1")
    result = CliRunner().invoke(cli, ["rank", "u", "a"])
    assert result.exit_code == 1
    assert "reki up" in result.output
