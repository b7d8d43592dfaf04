"""A model server on loopback that holds every answer until it is told to let go."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HeldModelServer:
    """Speaks the OpenAI chat-completion protocol.

    Attributes:
        under_way: Requests that wait for their answer, ever.
        let_go: Set it, and everything is answered at once.
    """

    def __init__(self) -> None:
        self.under_way = 0
        self.let_go = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.under_way += 1
                outer.let_go.wait()
                factors = body["response_format"]["json_schema"]["schema"]["properties"]["factors"]["required"]
                content = json.dumps({"factors": {factor: f"about {factor}" for factor in factors}, "summary": "Short."})
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                answer = json.dumps(
                    {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                ).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    return  # who asked has gone

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)
