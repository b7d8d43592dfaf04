"""`reki settings`: the settings in force, with secrets masked; also writes docs/settings.md."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from contracts.settings import ENV_PREFIX, Section, Settings, load_settings

_MARKDOWN_HEAD = f"""\
# Settings

Written by `reki settings --markdown`; a test fails when this file is out of date.

Defaults stand in `contracts/settings.py`; a file `reki.toml` in the current folder (or the one given by `reki --config FILE`)
goes over them, environment variables go over both: `[kafka] partitions` is `{ENV_PREFIX}KAFKA__PARTITIONS`. A wrong or unknown
setting stops the start, all mistakes in one message. `reki settings` prints what is in force, secrets masked. Units stand in
the names: `_ms`, `_s`.
"""


@click.command(name="settings")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--markdown", is_flag=True, help="The page docs/settings.md: every setting with default and meaning.")
def command(*, as_json: bool, markdown: bool) -> None:
    """Print the settings in force as a reki.toml, secrets masked."""
    if markdown:
        click.echo(to_markdown(), nl=False)
        return
    tree = _masked(load_settings())
    if as_json:
        click.echo(json.dumps(tree, indent=2))
        return
    for name, value in tree.items():
        if not isinstance(value, dict):
            click.echo(f"{name} = {json.dumps(value)}")
    for name, value in tree.items():
        if isinstance(value, dict):
            click.echo(f"\n[{name}]")
            for key, plain in value.items():
                click.echo(f"{key} = {json.dumps(plain)}")


def to_markdown() -> str:
    """docs/settings.md: a table per section, from the defaults and descriptions in `contracts.settings`."""
    top = [(name, field) for name, field in Settings.model_fields.items() if not isinstance(field.default, Section)]
    parts = [_MARKDOWN_HEAD, "## At the top of the file\n\n" + _table(top)]
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, Section):
            section = type(field.default)
            parts.append(f"## [{name}]\n\n{(section.__doc__ or '').strip()}\n\n{_table(list(section.model_fields.items()))}")
    return "\n".join(parts)


def _table(fields: list[tuple[str, FieldInfo]]) -> str:
    lines = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    for name, field in fields:
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        shown = f"`{json.dumps(default, default=str)}`"
        lines.append(f"| `{name}` | {shown} | {', '.join(_values(field))} | {field.description} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def _values(field: FieldInfo) -> Iterator[str]:
    kind = field.annotation
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        yield from (f"`{value}`" for value in get_args(kind))
        return
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias):
        yield {"Path": "path", "SecretStr": "secret text", "str": "text", "int": "whole number", "float": "number"}.get(
            kind.__name__, kind.__name__
        )
    for bound in field.metadata:
        for attribute, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if getattr(bound, attribute, None) is not None:
                yield f"{sign} {getattr(bound, attribute):,}".replace(",", " ")


def _masked(settings: Settings) -> dict[str, Any]:
    tree: dict[str, Any] = settings.model_dump(mode="json")
    for name, section in tree.items():
        if isinstance(section, dict):
            real = getattr(settings, name)
            for key in section:
                value = getattr(real, key)
                if isinstance(value, SecretStr):
                    section[key] = "******" if value.get_secret_value() else ""
    return tree
