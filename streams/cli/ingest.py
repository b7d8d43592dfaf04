"""`reki ingest`: items and interactions from JSON lines or news feeds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import BinaryIO

import click

from contracts.settings import load_settings
from contracts.topics import INTERACTIONS, ITEMS

_CHOICES = {topic.name: topic for topic in (ITEMS, INTERACTIONS)}


@click.group(name="ingest")
def command() -> None:
    """Send items and interactions. A bad one goes to the dead letters with its reason and does not stop the run."""


@command.command(name="jsonl")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--topic", type=click.Choice(list(_CHOICES)), help="What every line is; default: told by its fields.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def jsonl(file: Path, topic: str | None, *, as_json: bool) -> None:
    """Send the lines of FILE (- for standard input), each a JSON item or interaction.

    A bad line goes to dead-letters with its reason and line number.
    """
    from streams.ingest.jsonl import JsonLines
    from streams.progress import bar
    from streams.publisher import KafkaPublisher

    stdin = str(file) == "-"
    with KafkaPublisher(load_settings()) as publisher:
        lines = JsonLines(publisher)
        chosen = _CHOICES[topic] if topic else None
        source: BinaryIO = sys.stdin.buffer if stdin else file.open("rb")
        with source, bar("ingest", None if stdin else file.stat().st_size) as progress:
            done = lines.ingest(source, "stdin" if stdin else file.name, chosen, progress)
    if as_json:
        click.echo(json.dumps({"lines": done.lines, "sent": dict(done.sent), "dead_letters": dict(done.dead)}))
        return
    click.echo(f"{done.lines} lines: " + ", ".join(f"{n} to {name}" for name, n in sorted(done.sent.items())))
    if n_dead := done.dead.total():
        click.echo(f"{n_dead} bad lines are in dead-letters, with reason and line number")


@command.command(name="feed")
@click.argument("addresses", nargs=-1, required=True, metavar="URL...")
@click.option("--every", "every_s", type=click.FloatRange(min=1), help="Poll again every so many seconds, until Ctrl-C.")
@click.option("--timeout", "timeout_s", default=20.0, show_default=True, help="Of one fetch, seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line a poll.")
def feed(addresses: tuple[str, ...], every_s: float | None, timeout_s: float, *, as_json: bool) -> None:
    """Send the entries of RSS or Atom feeds (addresses or files) as items; what was sent before and is unchanged is passed over.

    Exit code 1 if a feed could not be read (with --every: it is tried again).
    """
    import dataclasses

    import httpx

    from streams.ingest.feed import Feeds, poll_forever
    from streams.publisher import KafkaPublisher

    settings = load_settings()
    n_errors = 0
    client = httpx.Client(timeout=timeout_s, follow_redirects=True, headers={"User-Agent": "reki"})
    with KafkaPublisher(settings) as publisher, client:
        feeds = Feeds(publisher, settings.home / "feeds.json", client)
        polls = poll_forever(lambda: feeds.poll(addresses), every_s) if every_s else iter([feeds.poll(addresses)])
        try:
            for polled in polls:
                n_errors = len(polled.errors)
                for error in polled.errors:
                    click.echo(f"reki: {error}", err=True)
                if as_json:
                    click.echo(json.dumps(dataclasses.asdict(polled)))
                else:
                    click.echo(f"{polled.sent} sent, {polled.unchanged} unchanged, {polled.dead} dead letters")
        except KeyboardInterrupt:
            return
    sys.exit(1 if n_errors else 0)
