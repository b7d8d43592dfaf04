"""`reki down`: stop what `reki up` started."""

from __future__ import annotations

import sys

import click

from contracts.settings import load_settings


@click.command(name="down")
def command() -> None:
    """Stop roles, then broker and vector store. Data stays. Exit code 1 where nothing ran."""
    from streams.embedded.supervision import Running, end, end_left_over

    home = load_settings().home
    running = Running.read(home)
    if running is not None:
        end(home, running)
        click.echo(f"stopped what ran in {home}")
    elif n_left := end_left_over(home):
        click.echo(f"ended {n_left} process(es) that an earlier run had left behind")
    else:
        click.echo(f"nothing runs in {home}", err=True)
        sys.exit(1)
