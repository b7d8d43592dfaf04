"""Roles are put together with what they count, and closed with what they opened."""

import asyncio

from prometheus_client import generate_latest

from contracts.settings import load_settings
from extractor.extraction import Extraction
from streams.wiring import build


def test_extract_is_counted_and_its_stop_closes_the_connections_to_the_model_server(tmp_path, publisher, monkeypatch):
    closed = []

    async def aclose(_stage):
        closed.append(True)

    monkeypatch.setattr(Extraction, "aclose", aclose)
    settings = load_settings(home=tmp_path, extract={"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"})
    (app,) = build("extract", settings, publisher).services
    assert "reki_llm_requests_total 0.0" in generate_latest().decode().splitlines()
    assert closed == []
    asyncio.run(app._stop_exit_stacks())
    assert closed == [True]
