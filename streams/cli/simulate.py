"""`reki simulate`: simulated readers of the sample, or of articles of your own."""

from __future__ import annotations

import json
from pathlib import Path

import click

from contracts.settings import load_settings


@click.command(name="simulate")
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with articles.jsonl and answers.jsonl; default: the sample.",
)
@click.option("--readers", type=click.IntRange(min=1), default=150, show_default=True, help="How many readers.")
@click.option("--days", type=click.FloatRange(min=0), help="Stop after so many days of event time; default: all.")
@click.option("--seed", type=int, default=7, show_default=True, help="Equal seeds give equal readers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(path: Path | None, readers: int, days: float | None, seed: int, *, as_json: bool) -> None:
    """Send articles as they appear, and what SIMULATED readers do with a front page of popular and new ones.

    The readers' tastes are made from the factors of the answers: what a model gains from these factors here says that everything
    is connected, not that it would gain with people.
    """
    from streams.datasets.news import SAMPLE, NewsSample
    from streams.progress import bar
    from streams.publisher import KafkaPublisher
    from streams.replay import send_event, topic_of
    from streams.simulation.openloop import open_loop
    from streams.simulation.readers import DAY_MS

    sample = NewsSample(path or SAMPLE, n_readers=readers, seed=seed)
    people = sample.readers()
    until_ms = None if days is None else people.from_ms + int(days * DAY_MS)
    sent: dict[str, int] = {}
    with KafkaPublisher(load_settings()) as publisher, bar("simulate", None) as progress:
        for n, event in enumerate(open_loop(people, sample.items, seed=seed, until_ms=until_ms), 1):
            send_event(publisher, event)
            sent[topic_of(event)] = sent.get(topic_of(event), 0) + 1
            progress(1)
            if n % 1000 == 0:
                publisher.flush()
        publisher.flush()
    if as_json:
        click.echo(json.dumps({"simulated": True, "readers": readers, "seed": seed, "sent": sent}))
    else:
        click.echo(f"sent {sent} of {readers} simulated readers (seed {seed})")
