"""`reki demo`: the whole path on the sample, or on a data set."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import click

from contracts.settings import load_settings


@click.command(name="demo")
@click.option("--dataset", type=click.Choice(["news", "ml-1m", "mind", "ebnerd"]), default="news", show_default=True)
@click.option(
    "--path", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the data set; not needed for news."
)
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many interactions of the data set (not for news).")
@click.option("--exit", "leave", is_flag=True, help="Stop everything after the summary instead of leaving the page up.")
@click.option(
    "--home", type=click.Path(file_okay=False, path_type=Path), help="Folder of this run; default: a new one under .reki."
)
@click.option("--fresh", is_flag=True, help="Empty --home first, if an earlier demo made it.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(  # noqa: PLR0913 - one parameter an option
    dataset: str, path: Path | None, limit: int | None, home: Path | None, *, leave: bool, fresh: bool, as_json: bool
) -> None:
    """Start everything, train on the first part of a data set, stream the rest with rankings, print what happened.

    Readers of the sample (news) are simulated. Exit code 1 if an event is not accounted for.
    """
    from streams.datasets.registry import open_dataset
    from streams.demo.demo import Demo, play_of
    from streams.demo.home import prepare
    from streams.demo.stage import Stage
    from streams.demo.summary import print_summary

    def report(line: str) -> None:
        click.echo(line, err=True)

    opened = open_dataset(dataset, path)
    settings = prepare(load_settings(), home, opened, fresh=fresh)
    report(f"home of this run: {settings.home}")
    begun = time.monotonic()
    summary = None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything stops in order
    try:
        with Stage(settings, report) as stage:
            summary = Demo(stage, opened, play_of(opened, limit, settings), report).run()
            summary["took_s"]["all"] = round(time.monotonic() - begun, 1)
            if as_json:
                click.echo(json.dumps(summary))
            else:
                print_summary(summary)
            if not leave:
                report(f"page: {stage.page} (Ctrl-C stops everything)")
                while stage.alive():
                    time.sleep(0.5)
    except KeyboardInterrupt:
        report("stopped")
    sys.exit(0 if summary and summary["all_accounted_for"] else 1)
