"""`reki rank`: one ranking over HTTP."""

from __future__ import annotations

import json

import click

from contracts.errors import RankRequestError, UnavailableError
from contracts.settings import load_settings

_UNPROCESSABLE = 422


@click.command(name="rank")
@click.argument("user")
@click.argument("items", nargs=-1, required=True)
@click.option("--k", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many items back.")
@click.option("--at-ms", type=click.IntRange(min=0), help="Event time; default: now; in a replay, the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as it came.")
def command(user: str, items: tuple[str, ...], k: int, at_ms: int | None, *, as_json: bool) -> None:
    """Rank ITEMS for USER by the ranker that runs here (settings rank.host, rank.port)."""
    import httpx

    rank = load_settings().rank
    server = f"http://{rank.host}:{rank.port}"
    request = {"user": user, "candidates": items, "k": k} | ({} if at_ms is None else {"event_ms": at_ms})
    try:
        with httpx.Client(base_url=server, timeout=30) as client:
            answer = client.post("/v1/rank", json=request)
    except httpx.HTTPError as error:
        raise UnavailableError(f"no answer from {server} ({error})", wanted="a ranker", todo="`reki up`") from error
    if answer.status_code == _UNPROCESSABLE:
        raise RankRequestError(answer.text[:500], wanted="a request that can be answered", todo="see the message")
    if answer.status_code != httpx.codes.OK:
        todo = f"see {server}/readyz"
        raise UnavailableError(f"HTTP {answer.status_code} {answer.text[:200]}", wanted="a ranking", todo=todo)
    if as_json:
        click.echo(json.dumps(answer.json()))
        return
    ranking = answer.json()
    click.echo(f"model version {ranking['version']}, step {ranking['step']}, {ranking['took_ms']:.1f} ms")
    for place, item in enumerate(ranking["items"], 1):
        about = f"knowledge: {item['tier']}" if item.get("tier") else "no knowledge yet (default vector)"
        click.echo(f"{place:3} {item['score']:.4f} {item['item']}  {about}" + ("  unknown item" * bool(item.get("unknown_item"))))
