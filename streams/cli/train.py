"""`reki train`: a new model version from the log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
import msgspec

from contracts.settings import load_settings

if TYPE_CHECKING:
    from ranker.offline import Progress


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(*, as_json: bool) -> None:
    """Train HEIN and the ranking model on everything on the log, and announce the new version."""
    from streams.progress import bar
    from streams.training import train_version

    done: list[Progress] = []
    with ExitStack() as shown:  # one bar at a time
        advance: Callable[[int], None] = shown.enter_context(bar("reading the log", None))

        def trained(step: Progress) -> None:
            nonlocal advance
            if not done:
                shown.close()
                advance = shown.enter_context(bar("training", step.n_steps))
            advance(step.step - (done[-1].step if done else 0))
            done[:] = [step]

        manifest = train_version(load_settings(), advance, trained)
    if as_json:
        print(msgspec.json.encode(manifest).decode())
        return
    print(f"version {manifest.version}: {manifest.n_samples} samples, {manifest.weights}")
    for step in done:
        print(f"  {'loss':10} {step.loss:.4f}  (at the end of the training)")
    for name, value in sorted(manifest.metrics.items()):
        print(f"  {name:10} {value:.4f}  (last tenth by time, held out)")
    print("announced as trained; the augment role makes its vectors, then rankers swap to it")
