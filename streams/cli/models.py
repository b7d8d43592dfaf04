"""`reki models`: what model states were published."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from contracts.settings import load_settings


@click.group(name="models")
def command() -> None:
    """Model versions and their online steps."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line a state.")
def show(*, as_json: bool) -> None:
    """The states on the models topic, oldest first (it is compacted: old ones of a version may be gone)."""
    from contracts.codec import encode
    from contracts.topics import MODELS
    from streams.manifests import manifests

    found = manifests(load_settings())
    for manifest in found:
        if as_json:
            click.echo(encode(MODELS, manifest))
            continue
        at = datetime.fromtimestamp(manifest.created_ms / 1000, UTC).isoformat(timespec="seconds")
        metrics = " ".join(f"{name}={value:.4g}" for name, value in manifest.metrics.items())
        click.echo(
            f"version {manifest.version} step {manifest.step:5} {manifest.state:8} {at} {manifest.n_samples} samples {metrics}"
        )
    if not found:
        click.echo(json.dumps(None) if as_json else "no model yet: `reki train`", err=not as_json)
