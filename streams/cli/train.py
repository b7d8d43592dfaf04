"""`reki train`: a new model version from the log."""

from __future__ import annotations

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from contracts.settings import load_settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(*, as_json: bool) -> None:
    """Train HEIN and the ranking model on everything on the log, and announce the new version."""
    from ranker.offline import Progress as Step
    from streams.training import train_version

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=as_json) as bars:
        reading = bars.add_task("reading the log", total=None)
        training = bars.add_task("training", total=None)

        def trained(step: Step) -> None:
            bars.update(training, completed=step.step, total=step.n_steps, description=f"training (loss {step.loss:.4f})")

        manifest = train_version(load_settings(), lambda n: bars.advance(reading, n), trained)
    if as_json:
        print(msgspec.json.encode(manifest).decode())
        return
    print(f"version {manifest.version}: {manifest.n_samples} samples, {manifest.weights}")
    for name, value in sorted(manifest.metrics.items()):
        print(f"  {name:10} {value:.4f}  (last tenth by time, held out)")
    print("announced as trained; the augment role makes its vectors, then rankers swap to it")
