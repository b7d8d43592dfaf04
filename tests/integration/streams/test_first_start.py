"""A role that starts for the first time on topics that are full already reads them from their first record."""

import pytest

from contracts.topics import ENCODINGS, KNOWLEDGE, REQUESTS
from integration.streams.running import START_MS, some_interactions, some_items
from streams.topics import n_records

pytestmark = pytest.mark.integration

USERS = [f"u{n}" for n in range(8)]


def test_a_backlog_is_read_from_its_first_record(make_reki):
    """faust threw away the first records of each partition where a group had committed nothing yet."""
    reki = make_reki()
    reki.send(*some_items(60))
    reki.send(*some_interactions(USERS, [f"n{n:03d}" for n in range(60)], 3, START_MS))
    reki.start("plan")
    reki.until(lambda: n_records(reki.settings, REQUESTS) >= 68, "every item and every user is asked for", 30)
    reki.start("extract")
    reki.until(lambda: len({one.subject for one in reki.typed(KNOWLEDGE)}) == 68, "every request is answered", 30)
    reki.start("encode")
    reki.until(lambda: len({one.subject for one in reki.typed(ENCODINGS)}) == 68, "all knowledge is encoded", 60)
