"""`reki run ROLE...`: one or several roles in this process."""

from __future__ import annotations

import sys

import click

from contracts.roles import ROLES
from contracts.settings import load_settings


@click.command()
@click.argument("roles", nargs=-1, required=True, type=click.Choice(ROLES))
def command(roles: tuple[str, ...]) -> None:
    """Run ROLES until stopped: plan, extract, cluster, encode, augment, join, train, rank."""
    from streams.run import run_roles

    sys.exit(run_roles(load_settings(), roles))
