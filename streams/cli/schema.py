"""`reki schema`: the JSON Schema of what travels, for producers in any language."""

from __future__ import annotations

import json

import click


@click.command(name="schema")
@click.argument("topic", required=False)
def command(topic: str | None) -> None:
    """Print the JSON Schema of a TOPIC's record, or of all records (always JSON)."""
    from contracts.codec import schemas
    from contracts.topics import TOPICS

    components = schemas()
    draft = "https://json-schema.org/draft/2020-12/schema"
    if topic is None:
        click.echo(json.dumps({"$schema": draft, "$defs": components}, indent=2))
        return
    records = {known.name: known.record.__name__ for known in TOPICS}
    if topic not in records:
        raise click.UsageError(f"got topic {topic!r}; wanted one of {', '.join(records)}")
    needed: dict[str, object] = {}
    _collect(records[topic], components, needed)
    click.echo(json.dumps({"$schema": draft, "$ref": f"#/$defs/{records[topic]}", "$defs": needed}, indent=2))


def _collect(name: str, components: dict[str, dict[str, object]], needed: dict[str, object]) -> None:
    """Add a record and, through its references, every record it is made of."""
    needed[name] = components[name]
    text = json.dumps(components[name])
    for other in components:
        if other not in needed and f'"#/$defs/{other}"' in text:
            _collect(other, components, needed)
