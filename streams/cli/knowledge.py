"""`reki knowledge`: export open questions, import a language model's answers, look at what is known of a subject."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.settings import load_settings
from contracts.subjects import split_subject

if TYPE_CHECKING:
    from extractor.exporting import Side

_SHOWN_ERRORS = 20


@click.group(name="knowledge")
def command() -> None:
    """Knowledge of items, users and clusters of them."""


@command.command(name="export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(["item", "user", "all"]), default="all", show_default=True, help="Whom to ask about.")
@click.option("--tier", type=click.Choice(["individual", "collective"]), default="individual", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Also subjects whose knowledge is up to date.")
@click.option("--model", help="Name of the model in the batch; default: setting extract.model.")
@click.option("--scenario", help="What to ask; default: setting extract.scenario.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export_questions(  # noqa: PLR0913 - one argument for each option
    file: Path, kind: str, tier: str, *, everything: bool, model: str | None, scenario: str | None, as_json: bool
) -> None:
    """Write the questions about all subjects that need knowledge to FILE: an OpenAI batch (JSONL), by subject.

    Tier individual asks about items and users: nothing is known of them, or only by attributes or a cluster, or their content or
    history is newer than what is known. Tier collective asks about clusters of items and of users whose last request is newer
    than what is known. The same topics give the same file. Bring the answers back with `reki knowledge import`.
    """
    from extractor.scenario import load_scenario
    from streams.exporting import export
    from streams.progress import bar

    settings = load_settings()
    kinds: list[Side] = ["item", "user"] if kind == "all" else ["item" if kind == "item" else "user"]
    with bar("reading the topics", None) as progress:
        done = export(
            settings,
            load_scenario(scenario or settings.extract.scenario),
            file,
            kinds=kinds,
            model=model or settings.extract.model,
            tier="collective" if tier == "collective" else "individual",
            everything=everything,
            progress=progress,
        )
    if as_json:
        summary = {
            "file": str(file),
            "tier": tier,
            "lines": {kind: done.lines[kind] for kind in kinds},
            "reasons": dict(done.reasons),
            "left_out": dict(done.left_out),
            "estimated_prompt_tokens": done.prompt_tokens,
            "of_these_shared": done.shared_tokens,
            "estimated_by": "characters / 4",
        }
        click.echo(json.dumps(summary))
        return
    of = "clusters of " if tier == "collective" else ""
    click.echo(f"{file}: {done.lines.total()} questions (" + ", ".join(f"{done.lines[kind]} {of}{kind}s" for kind in kinds) + ")")
    for what, counts in (("asked", done.reasons), ("left out", done.left_out)):
        if counts:
            click.echo(f"{what}: {_counts(counts)}")
    click.echo(
        f"about {done.prompt_tokens} prompt tokens (characters / 4), {done.shared_tokens} of them the instructions that all "
        "questions share"
    )


@command.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scenario", help="What was asked; default: setting extract.scenario.")
@click.option("--errors", type=click.Path(dir_okay=False, path_type=Path), help="List every unusable line there (JSONL).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the first 1000 errors.")
def import_file(file: Path, scenario: str | None, errors: Path | None, *, as_json: bool) -> None:
    """Send the answers in FILE, an OpenAI batch output file, to imported-knowledge. Twice is the same as once.

    Exit code 1 if a line could not be used; the others are imported.
    """
    from contextlib import nullcontext

    from extractor.scenario import load_scenario
    from streams.importing import errors_file, import_answers
    from streams.progress import bar
    from streams.publisher import KafkaPublisher

    settings = load_settings()
    asked = load_scenario(scenario or settings.extract.scenario)
    with (
        errors_file(errors) if errors else nullcontext() as listed,
        KafkaPublisher(settings) as publisher,
        bar("importing", None) as progress,
    ):
        done = import_answers(file, asked, publisher, errors=listed, progress=progress)
    if as_json:
        rows = [asdict(error) for error in done.errors]
        click.echo(
            json.dumps({"imported": done.answers, "n_errors": done.reasons.total(), "reasons": done.reasons, "errors": rows})
        )
    else:
        click.echo(f"imported {done.answers.total()}: " + (_counts(done.answers, "s") or "nothing"))
        for error in done.errors[:_SHOWN_ERRORS]:
            click.echo(f"line {error.line}: {error.reason}", err=True)
        if done.reasons:
            where = errors or "--errors FILE lists them all"
            click.echo(f"not usable {done.reasons.total()}: {_counts(done.reasons)} ({where})", err=True)
    sys.exit(1 if done.reasons else 0)


@command.command(name="show")
@click.argument("subject")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(subject: str, *, as_json: bool) -> None:
    """What is known of SUBJECT (item:ID, user:ID or cluster:ID), and the last ten pieces of knowledge that stood before.

    Exit code 1 if nothing is known.
    """
    from streams.cli.knowledge_page import as_record, print_page
    from streams.publisher import wall_ms
    from streams.showing import known

    try:
        split_subject(subject)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    document = known(load_settings(), subject)
    if document is None:
        click.echo(f"nothing is known of {subject} yet", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(as_record(document, wall_ms())))
    else:
        print_page(document, wall_ms())


def _counts(counts: Mapping[Any, int], plural: str = "") -> str:
    return ", ".join(f"{n} {name}{plural}" for name, n in sorted(counts.items()))
