"""`reki status`: what `reki up` started, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from contracts.settings import load_settings


@click.command(name="status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(*, as_json: bool) -> None:
    """Show process, pid, state, uptime, restarts, memory and port. Exit code 1 where nothing runs."""
    from streams.embedded.overview import overview
    from streams.embedded.supervision import Running

    home = load_settings().home
    running = Running.read(home)
    rows = [] if running is None else overview(home, running)
    if as_json:
        page = None if running is None else running.page
        click.echo(json.dumps({"running": running is not None, "home": str(home.resolve()), "page": page, "processes": rows}))
    elif running is None:
        click.echo(f"nothing runs in {home}; start it with `reki up`", err=True)
    else:
        _print(rows, running.page)
    if running is None:
        sys.exit(1)


def _print(rows: list[dict[str, Any]], page: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("process", "pid", "state", "up", "restarts", "memory", "port", box=None, header_style="bold")
    for row in rows:
        up_for = "-" if row["uptime_s"] is None else f"{row['uptime_s']} s"
        memory = "-" if row["rss_bytes"] is None else f"{row['rss_bytes'] / 2**20:.0f} MB"
        table.add_row(row["name"], str(row["pid"] or "-"), row["state"], up_for, str(row["restarts"]), memory, str(row["port"]))
    Console().print(table)
    if page:
        click.echo(f"page: {page}")
