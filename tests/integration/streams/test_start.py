"""How a start fails: all wrong settings in one message, before anything runs."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


def test_wrong_settings_stop_the_start_with_all_mistakes_in_one_message(tmp_path):
    environment = {
        **os.environ, "REKI__HOME": str(tmp_path), "REKI__PLAN__BATCH": "0", "REKI__RANK__PORT": "99999", "REKI__NO_SUCH": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "streams.cli.main", "run", "plan"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode in {1, 2}
    assert "3 wrong settings" in ended.stderr
    for mistake in ("plan.batch: got '0'", "rank.port: got '99999'", "REKI__NO_SUCH: no such setting"):
        assert mistake in ended.stderr
    assert "Traceback" not in ended.stderr
