"""`reki replay`: a data set in event-time order."""

from __future__ import annotations

import json
from pathlib import Path

import click

from contracts.settings import load_settings


@click.command(name="replay")
@click.argument("dataset")
@click.option("--path", type=click.Path(file_okay=False, path_type=Path), help="Folder of the data set; not needed for news.")
@click.option("--speed", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Times event time; 0: full speed.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after this many interactions.")
@click.option("--from-start", is_flag=True, help="Send everything again, also what an earlier run has sent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0913 - one parameter an option
    dataset: str, path: Path | None, speed: float, limit: int | None, *, from_start: bool, as_json: bool
) -> None:
    """Send DATASET (news, ml-1m, mind or ebnerd): knowledge that comes with it, then items and interactions in event-time order.

    A run that was stopped, also by kill -9, goes on where it was.
    """
    from streams.datasets.registry import default_folder, open_dataset
    from streams.progress import bar
    from streams.publisher import KafkaPublisher
    from streams.replay import Replay, position_file

    settings = load_settings()
    opened = open_dataset(dataset, path)
    positions = position_file(settings.home, dataset, path or default_folder(dataset))
    with KafkaPublisher(settings) as publisher, bar(f"replay {dataset}", opened.count(limit)) as progress:
        replay = Replay(publisher, positions, speed=speed)
        sent = replay.run(opened, limit=limit, from_start=from_start, progress=progress)
    summary = {
        "dataset": opened.name,
        "licence": opened.licence,
        "simulated_users": opened.simulated,
        "sent": dict(sent.records),
        "sent_before": sent.skipped,
        "first_event_ms": sent.first_ms,
        "last_event_ms": sent.last_ms,
    }
    if as_json:
        click.echo(json.dumps(summary))
        return
    counts = ", ".join(f"{n} to {name}" for name, n in sent.records.items()) or "nothing"
    click.echo(f"sent {counts}; {sent.skipped} events were sent before" + ("; users are simulated" if opened.simulated else ""))
    click.echo(f"licence of the data: {opened.licence}")
