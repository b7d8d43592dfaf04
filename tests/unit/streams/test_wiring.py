"""Roles are put together with what they count, and closed with what they opened."""

import threading

from prometheus_client import generate_latest

from contracts.settings import load_settings
from extractor.answer_cache import CachedBackend
from streams.wiring import build


def test_extract_is_counted(tmp_path, publisher):
    settings = load_settings(home=tmp_path, extract={"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"})
    build("extract", settings, publisher)
    metrics = generate_latest().decode().splitlines()
    assert "reki_llm_retries_total 0.0" in metrics
    assert 'reki_llm_breaker{state="closed"} 1.0' in metrics
    assert 'reki_llm_saved_requests_total{by="collective"} 0.0' in metrics


def test_a_stop_closes_the_connections_to_the_model_server(tmp_path, publisher, monkeypatch):
    closed = []

    async def aclose(_backend):
        closed.append(threading.current_thread().name)

    monkeypatch.setattr(CachedBackend, "aclose", aclose)
    settings = load_settings(home=tmp_path, extract={"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"})
    (service,) = build("extract", settings, publisher).services
    asking = service._role._asking
    asking.start()
    asking.close()
    assert closed == ["asking"]


def test_where_no_language_model_is_asked_nothing_is_clustered(tmp_path, publisher):
    part = build("cluster", load_settings(home=tmp_path), publisher)
    assert (part.services, part.missing()) == ([], "")
