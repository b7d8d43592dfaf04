"""`reki`: the command line. One file per command in this folder; each is imported only when it is called.

Exit codes: 0 done; 1 it failed; 2 the call or a setting is wrong. An error of ours is one message on stderr, never a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "up": ("streams.cli.up:command", "Start everything on this machine: broker, vector store, all roles."),
    "down": ("streams.cli.down:command", "Stop what `reki up` started."),
    "status": ("streams.cli.status:command", "Show what `reki up` started: state, restarts, memory, ports."),
    "demo": ("streams.cli.demo:command", "The whole path on the sample, or on a data set, with a summary."),
    "run": ("streams.cli.run:command", "Run one or several roles in this process."),
    "topics": ("streams.cli.topics:command", "Create or list the topics."),
    "ingest": ("streams.cli.ingest:command", "Send items and interactions from a file or from news feeds."),
    "replay": ("streams.cli.replay:command", "Send a data set in event-time order."),
    "simulate": ("streams.cli.simulate:command", "Send simulated readers and their clicks."),
    "knowledge": ("streams.cli.knowledge:command", "Import a language model's answers; export prompts."),
    "scenario": ("streams.cli.scenario:command", "List the scenarios; check a new one and see its prompts."),
    "train": ("streams.cli.train:command", "Train a new version of the model on the log."),
    "evaluate": ("streams.cli.evaluate:command", "Compare models with and without knowledge, over seeds, with a report."),
    "models": ("streams.cli.models:command", "List the published model versions."),
    "rank": ("streams.cli.rank:command", "Ask for one ranking."),
    "schema": ("streams.cli.schema:command", "Print the JSON Schema of a topic's records."),
    "settings": ("streams.cli.settings:command", "Print the settings in force, secrets masked."),
}
"""Name -> where its click command stands, and its line in the help (so that the help imports nothing)."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click calls it so
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = getattr(import_module(module), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{module}.{attribute} is {type(found).__name__}, not a click command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click calls it so
        """The table, without importing what stands in it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an error of ours becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except Exception as error:
            from contracts.errors import RekiError, SettingsError

            if not isinstance(error, RekiError):
                raise
            click.echo(f"reki: {error}", err=True)
            ctx.exit(2 if isinstance(error, SettingsError) else 1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help="Settings file instead of ./reki.toml.")
@click.option("--home", type=click.Path(file_okay=False, path_type=Path), help="Folder of everything that lasts (setting home).")
@click.version_option(package_name="reki")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, home: Path | None) -> None:
    """A streaming, incremental recommender with knowledge of language models."""
    # as environment variables, so that `load_settings()` anywhere, here and in children, sees them
    for variable, value in (("REKI_CONFIG", config), ("REKI__HOME", home)):
        if value is not None:
            ctx.call_on_close(_putting_back(variable))
            os.environ[variable] = str(value.absolute())


def _putting_back(variable: str) -> Any:
    before = os.environ.get(variable)

    def put_back() -> None:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before

    return put_back


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command `reki`."""
    cli.main(args=list(sys.argv[1:] if arguments is None else arguments), prog_name="reki")


if __name__ == "__main__":
    main()
