"""`reki scenario`: the domains that reki can ask about, and the check of a new one (docs/scenarios.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import click

from contracts.settings import load_settings


@click.group(name="scenario")
def command() -> None:
    """Scenarios: the words and factors of one domain."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="A JSON list.")
def list_scenarios(*, as_json: bool) -> None:
    """List the scenarios that come with reki."""
    from extractor.prompts import prompt_version
    from extractor.scenario import load_scenario, shipped_scenarios

    scenarios = [load_scenario(name) for name in shipped_scenarios()]
    if as_json:
        rows = [
            {
                "name": one.name,
                "prompt_version": prompt_version(one),
                "item_word": one.item_word,
                "user_word": one.user_word,
                "factors": one.factors,
                "attributes": one.attributes,
            }
            for one in scenarios
        ]
        click.echo(json.dumps(rows))
        return
    width = max(len(one.name) for one in scenarios)
    for one in scenarios:
        click.echo(
            f"{one.name:<{width}}  {prompt_version(one):<{width + 4}}  {one.user_word}, {one.item_word}: {', '.join(one.factors)}"
        )


@command.command(name="check")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: str, *, as_json: bool) -> None:
    """Check FILE, a scenario's TOML file (or the name of a shipped one), and show the prompts for an example.

    Exit code 2 if it has mistakes; all are listed. Remarks do not fail it.
    """
    from extractor.checking import check_scenario
    from extractor.prompts import prompt_version

    settings = load_settings()
    count, counted_by = _counter(settings.encoder.model)
    checked = check_scenario(
        file, n_history=settings.plan.history, max_answer_tokens=settings.extract.max_answer_tokens, n_tokens=count
    )
    size = checked.size
    if as_json:
        report = {
            "name": checked.scenario.name,
            "prompt_version": prompt_version(checked.scenario),
            "factors": checked.scenario.factors,
            "remarks": checked.remarks,
            "tokens": {**asdict(size), "counted_by": counted_by},
            "prompts": {"system": checked.item.system, "item": checked.item.user, "user": checked.user.user},
            "schema": checked.item.schema,
        }
        click.echo(json.dumps(report))
        return
    for heading, text in (
        ("instructions, the same for every item and user", checked.item.system),
        (f"then, for a {checked.scenario.item_word}", checked.item.user),
        (f"or, for a {checked.scenario.user_word} (here with a short history)", checked.user.user),
    ):
        click.echo(f"--- {heading} ---\n{text}\n")
    click.echo(f"{prompt_version(checked.scenario)}: {len(checked.scenario.factors)} factors, no mistakes")
    click.echo(
        f"tokens: instructions {size.shared}, this {checked.scenario.item_word} {size.item}, a {checked.scenario.user_word} with "
        f"{settings.plan.history} lines of history {size.user}; an answer at most about {size.answer} ({counted_by})"
    )
    for remark in checked.remarks:
        click.echo(f"remark: {remark}")


def _counter(model: str) -> tuple[Callable[[str], int], str]:
    """How tokens are counted, and how to say so."""
    from contracts.errors import SettingsError
    from extractor.checking import estimated_tokens
    from hein.tokens import token_counter

    try:
        return token_counter(model), "an estimate by the text encoder's tokenizer; a language model's own differs"
    except SettingsError:  # no encoder here: its absence is no mistake of the scenario
        return estimated_tokens, "an estimate: characters / 4"
