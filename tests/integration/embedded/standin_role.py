"""A stand-in for `reki run`: answers /readyz where the role would, until a signal ends it."""

import http.server
import os
import sys

from contracts.settings import load_settings


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


settings = load_settings()  # as a role would: from the environment that the supervisor hands down
if os.environ.get("STANDIN_FAILS"):
    sys.exit("a role that cannot start")
port = settings.rank.port if "rank" in sys.argv else settings.metrics_port
http.server.ThreadingHTTPServer(("127.0.0.1", port), Ready).serve_forever()
