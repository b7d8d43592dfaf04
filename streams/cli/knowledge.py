"""`reki knowledge`: export open questions, import a language model's answers, look at what is known of a subject."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from contracts.settings import load_settings
from contracts.subjects import split_subject

_SHOWN_ERRORS = 20


@click.group(name="knowledge")
def command() -> None:
    """Knowledge of items and users."""


@command.command(name="export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(["item", "user", "all"]), default="all", show_default=True, help="Whom to ask about.")
@click.option("--tier", type=click.Choice(["individual", "collective"]), default="individual", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Also subjects whose knowledge is individual and up to date.")
@click.option("--model", help="Name of the model in the batch; default: setting extract.model.")
@click.option("--scenario", help="What to ask; default: setting extract.scenario.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export_questions(  # noqa: PLR0913 - one argument for each option
    file: Path, kind: str, tier: str, *, everything: bool, model: str | None, scenario: str | None, as_json: bool
) -> None:
    """Write the questions about all subjects that need individual knowledge to FILE: an OpenAI batch (JSONL), by subject.

    A subject needs it when nothing is known of it, or only by attributes or a cluster, or when its content or history is newer
    than what is known. The same topics give the same file. Bring the answers back with `reki knowledge import`.
    """
    from contracts.subjects import Kind
    from extractor.scenario import load_scenario
    from streams.exporting import export
    from streams.progress import bar

    if tier == "collective":
        raise click.UsageError("collective knowledge (of clusters) is not built yet; `--tier individual` is what can be exported")
    settings = load_settings()
    kinds: list[Kind] = ["item", "user"] if kind == "all" else ["item" if kind == "item" else "user"]
    with bar("reading the topics", None) as progress:
        done = export(
            settings,
            load_scenario(scenario or settings.extract.scenario),
            file,
            kinds=kinds,
            model=model or settings.extract.model,
            everything=everything,
            progress=progress,
        )
    if as_json:
        summary = {
            "file": str(file),
            "lines": {kind: done.lines[kind] for kind in kinds},
            "reasons": dict(done.reasons),
            "left_out": dict(done.left_out),
            "estimated_prompt_tokens": done.prompt_tokens,
            "of_these_shared": done.shared_tokens,
            "estimated_by": "characters / 4",
        }
        click.echo(json.dumps(summary))
        return
    click.echo(f"{file}: {done.lines.total()} questions (" + ", ".join(f"{done.lines[kind]} {kind}s" for kind in kinds) + ")")
    for what, counts in (("asked", done.reasons), ("left out", done.left_out)):
        if counts:
            click.echo(f"{what}: " + ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items())))
    click.echo(
        f"about {done.prompt_tokens} prompt tokens (characters / 4), {done.shared_tokens} of them the instructions that all "
        "questions share"
    )


@command.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--scenario", help="What was asked; default: setting extract.scenario.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_answers(file: Path, scenario: str | None, *, as_json: bool) -> None:
    """Send the answers in FILE, an OpenAI batch output file, to imported-knowledge. Twice is the same as once.

    Exit code 1 if a line could not be used; the others are imported.
    """
    from contracts.topics import IMPORTED
    from extractor.batch_file import BadAnswer, read_answers
    from extractor.scenario import load_scenario
    from streams.publisher import KafkaPublisher

    settings = load_settings()
    imported: Counter[str] = Counter()
    errors: list[dict[str, Any]] = []
    with KafkaPublisher(settings) as publisher:
        for answer in read_answers(file, load_scenario(scenario or settings.extract.scenario)):
            if isinstance(answer, BadAnswer):
                errors.append({"line": answer.line, "custom_id": answer.custom_id, "reason": answer.reason})
                continue
            publisher.send(IMPORTED, answer)
            imported[split_subject(answer.subject)[0]] += 1
        publisher.flush()
    if as_json:
        click.echo(json.dumps({"imported": dict(imported), "errors": errors}))
    else:
        click.echo(f"imported {imported.total()}: " + (", ".join(f"{n} {kind}s" for kind, n in imported.items()) or "nothing"))
        for error in errors[:_SHOWN_ERRORS]:
            click.echo(f"line {error['line']}: {error['reason']}", err=True)
        if len(errors) > _SHOWN_ERRORS:
            click.echo(f"and {len(errors) - _SHOWN_ERRORS} more; --json lists all", err=True)
    sys.exit(1 if errors else 0)


@command.command(name="show")
@click.argument("subject")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(subject: str, *, as_json: bool) -> None:
    """What is known of SUBJECT (item:ID or user:ID), from the vector store. Exit code 1 if nothing is."""
    from streams.wiring import knowledge_store

    try:
        split_subject(subject)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    store = knowledge_store(load_settings())
    try:
        row = store.fetch([subject]).get(subject)
    finally:
        store.close()
    if row is None:
        click.echo(f"nothing is known of {subject} yet", err=True)
        sys.exit(1)
    document = json.loads(row.document) if row.document else {}
    if as_json:
        click.echo(json.dumps({"subject": subject, "tier": row.tier, "as_of_ms": row.as_of_ms, "document": document}))
        return
    click.echo(f"{subject}: {row.tier}, as of {row.as_of_ms} ms")
    factors = document.get("factors") or {}
    for name, text in factors.items():
        click.echo(f"  {name}: {text}")
    for name, value in document.items():
        if name != "factors" and value:
            click.echo(f"  {name}: {value}")
