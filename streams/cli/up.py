"""`reki up`: start everything on this machine, and stop it again on Ctrl-C."""

from __future__ import annotations

import signal
import time
from types import FrameType

import click

from contracts.errors import UnavailableError
from contracts.settings import load_settings


@click.command(name="up")
@click.argument("groups", nargs=-1, metavar="[ROLE,ROLE...]...")
@click.option("--detach", is_flag=True, help="Return when everything is ready; `reki down` stops it.")
@click.option("--services-only", is_flag=True, help="Broker, vector store and topics; no role.")
def command(groups: tuple[str, ...], *, detach: bool, services_only: bool) -> None:
    """Start broker, vector store and roles; return or wait when all answer.

    Roles in one comma-separated group share a process; by default: plan,extract,cluster encode augment,join,train rank.
    With kafka.bootstrap_servers or milvus.uri set, that one is used and none is started.
    """
    from contracts.roles import ROLES
    from streams.embedded.processes import ROLE_GROUPS, EmbeddedDefault, parse_groups

    if services_only and groups:
        raise click.UsageError("got roles and --services-only; wanted one of the two")
    try:
        chosen = parse_groups(groups, ROLES)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    roles = () if services_only else chosen or ROLE_GROUPS
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _interrupt)
    try:
        with EmbeddedDefault(load_settings(), roles, tied=not detach, report=click.echo) as everything:
            served = any("rank" in group for group in roles)
            click.echo(f"ready; the page is at {everything.page}" if served else "ready")
            if detach:
                return
            click.echo("Ctrl-C stops everything; data stays")
            while everything.alive():
                time.sleep(0.3)
            if everything.was_told_to_end():
                click.echo("stopped by another process")
                return
    except KeyboardInterrupt:
        click.echo("stopped")
        return
    raise UnavailableError(
        "a supervisor that ended by itself", wanted="one that runs until Ctrl-C", todo="see supervisord.log among the logs"
    )


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not cut the stopping short
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt
