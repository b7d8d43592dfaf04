from collections import Counter
from types import SimpleNamespace

import pytest

from contracts.records import DeadLetter
from contracts.settings import Settings
from contracts.topics import INTERACTIONS, ITEMS, KNOWLEDGE
from extractor.planning import UserState
from streams.demo import reading, summary
from streams.demo.draining import SLOW_PATH

TOLD = {
    "dataset": "news", "licence": "CC0", "simulated": True, "asked_ms": [], "n_retried": 0, "second_part_ms": 0, "start_s": {},
    "took_s": {},
}  # fmt: skip


def letter(offset, topic="interactions", stage="plan", reason="no"):
    return DeadLetter(topic=topic, partition=0, offset=offset, stage=stage, reason=reason, at_ms=1)


def accounts(monkeypatch, letters=(), sent=1000, on_log=1000, left=0, **taken_in):
    lags = {role: {topic.name: 0 for topic in topics} for role, topics in SLOW_PATH.items()}
    lags["encode"]["knowledge"] = left
    monkeypatch.setattr(summary, "behind", lambda _: lags)
    monkeypatch.setattr(summary, "n_records", lambda _, topic: on_log if topic in {INTERACTIONS, KNOWLEDGE} else 0)
    monkeypatch.setattr(summary.reading, "taken_in", lambda _: {"items": 0, "interactions": 0} | taken_in)
    told = summary.Told(**TOLD, sent=Counter(interactions=sent, items=50), n_items=40)
    return summary._accounts(None, told, letters)


def test_in_is_processed_and_dead_letters(monkeypatch):
    letters = [letter(1), letter(2), letter(1, stage="ingest"), letter(1, topic="items")]
    row = accounts(monkeypatch, letters, interactions=998)["interactions"]
    assert row == {"in": 1000, "on_log": 1000, "processed": 998, "dead_letters": 2, "ok": True}


@pytest.mark.parametrize("processed", [999, 1001])
def test_what_was_committed_but_not_taken_in_or_counted_twice_fails_the_check(monkeypatch, processed):
    assert not accounts(monkeypatch, interactions=processed)["interactions"]["ok"]


def test_mostly_dead_letters_fail_the_check(monkeypatch):
    assert not accounts(monkeypatch, [letter(n) for n in range(500)], interactions=500)["interactions"]["ok"]


def test_of_items_the_distinct_ones_count(monkeypatch):
    row = accounts(monkeypatch, items=40, interactions=1000)["items"]
    assert (row["in"], row["processed"], row["ok"]) == (40, 40, True)
    assert not accounts(monkeypatch, items=39)["items"]["ok"]


def test_what_later_stages_did_is_called_committed(monkeypatch):
    row = accounts(monkeypatch)["knowledge"]
    assert (row["in"], row["committed"], row["ok"], "processed" in row) == (1000, 1000, True, False)
    assert not accounts(monkeypatch, left=1)["knowledge"]["ok"]


def test_a_record_that_was_refused_at_every_delivery_is_one_dead_letter(monkeypatch):
    written = [letter(1), letter(1, reason="no, again"), letter(2), letter(1, stage="rank"), None]
    monkeypatch.setattr(reading, "records", lambda *_: [SimpleNamespace(record=one) for one in written])
    found = reading.dead_letters(None)
    assert [(one.stage, one.offset, one.reason) for one in found] == [
        ("plan", 1, "no, again"),
        ("plan", 2, "no"),
        ("rank", 1, "no"),
    ]
    assert reading.dead_letter_reasons(found) == {"interactions: no": 2, "interactions: no, again": 1}


def test_what_plan_has_taken_in_is_counted_in_its_own_state(monkeypatch):
    logs = {
        "p.plan-items-changelog": [(b"i", b"old"), (b"i", b"new"), (b"removed", b"seen"), (b"removed", None)],
        "p.plan-users-changelog": [
            (b"u", UserState(user="u", n_events=2).pack()),
            (b"v", UserState(user="v", n_events=4).pack()),
            (b"u", UserState(user="u", n_events=3).pack()),
            (b"gone", None),
        ],
    }
    monkeypatch.setattr(reading, "whole_log", lambda _, topic: (SimpleNamespace(key=k, value=v) for k, v in logs[topic]))
    assert reading.taken_in(Settings(kafka={"prefix": "p."})) == {ITEMS.name: 2, INTERACTIONS.name: 7}


def test_what_data_says_is_printed_as_it_is_and_not_taken_for_mark_up(capsys):
    reasons = {"interactions: got b'[/INST] hi'": 2, "items: [bold]x[/bold] \\": 1}
    served = {"auc": None, "log_loss": None, "gauc": None, "n_items": 0, "n_liked": 0}
    summary.print_summary(
        {
            "dataset": "[/red]", "licence": "[link=file:///]", "users_simulated": False, "dead_letter_reasons": reasons,
            "events": {"items": {"in": 1, "processed": 1, "dead_letters": 0, "ok": True}, "knowledge": {"in": 1, "committed": 0, "dead_letters": 0, "ok": False}},
            "knowledge": [{"kind": "item", "backend": "openai", "model": "[/m]", "tier": "individual", "records": 1}],
            "vectors_stored": {}, "rankings": {"answered": 0, "items": 0, "items_with_default_vector": 0},
            "impressions": {"joined": 0, "open": 0}, "served": served, "models": None, "event_to_vector_ms": {},
            "ranking_http_ms": None, "ranking_inside_ms": None, "memory_mb": {}, "start_s": {}, "took_s": {},
        }
    )  # fmt: skip
    said = capsys.readouterr().out
    for as_it_is in ("[/red]", "[link=file:///]", "[/m]", "b'[/INST] hi'", "[bold]x[/bold] \\"):
        assert as_it_is in said
    assert "in 1 = processed 1 + dead letters 0: ok" in said
    assert "in 1 = committed 0 + dead letters 0: NOT ACCOUNTED FOR" in said


def test_percentiles_of_nothing_are_none():
    assert summary.percentiles([]) is None
    assert summary.percentiles([1.0, 3.0]) == {"n": 2, "p50": 2.0, "p99": 2.98}
