"""`reki topics`: create them, list them."""

from __future__ import annotations

import json

import click

from contracts.settings import load_settings


@click.group(name="topics")
def command() -> None:
    """Create or list the topics."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON list of the names created.")
def create(*, as_json: bool) -> None:
    """Create what is missing. A topic that exists is left as it is."""
    from streams.topics import create_topics

    created = create_topics(load_settings())
    if as_json:
        click.echo(json.dumps(created))
    else:
        click.echo("\n".join(created) if created else "every topic is there")


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def list_topics(*, as_json: bool) -> None:
    """List the topics, what they carry and how long they are kept; asks no broker."""
    from contracts.topics import TOPICS

    prefix = load_settings().kafka.prefix
    rows = [
        {
            "name": f"{prefix}{topic.name}",
            "key": topic.key,
            "record": topic.record.__name__,
            "wire": topic.wire,
            "kept": topic.kept,
        }
        for topic in TOPICS
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:<{width}}  key {row['key']:<8}  {row['record']:<16}  {row['wire']:<7}  {row['kept']}")
