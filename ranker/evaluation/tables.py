"""The tables of a report, once for Markdown and HTML: rows of text, with a tone where a verdict stands.

Metrics of one family stand in one table: AUC, GAUC and LogLoss; MAP at every depth; NDCG at every depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ranker.evaluation.comparison import BASE, Answer, ArmSummary, Comparison, Difference
from ranker.evaluation.results import RunResult
from ranker.evaluation.verdicts import HIGHER_IS_BETTER, Score

_FAMILIES = (("auc", "gauc", "logloss"), tuple(f"map@{k}" for k in (1, 3, 5, 7)), tuple(f"ndcg@{k}" for k in (1, 3, 5, 7)))
_NAMES = {"auc": "AUC", "gauc": "GAUC", "logloss": "LogLoss"}
_MARKS = re.compile(r"[\\`*_\[\]|~$]")  # what Markdown reads inside a line; what it reads at its beginning never stands there
_NOTHING = "\u2013"
_PLUS_MINUS = "\u00a0\u00b1\u00a0"  # a narrow column breaks no figure in two

Tone = Literal["", "up", "down"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A text, and whether it is a lift (``up``), a loss (``down``) or neither. Strong text is bold in Markdown."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with a heading and, below it, how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def metric_name(metric: str) -> str:
    """As people write it: ``AUC``, ``NDCG@7``."""
    return _NAMES.get(metric, metric.upper())


def answer_table(answers: Sequence[Answer]) -> Table:
    """Does knowledge beat base and every control? One row for each backbone and arm of one task and data set."""
    metrics = _in_order(one.metric for one in answers)
    found = {(one.backbone, one.arm, one.metric): one for one in answers}
    rows = []
    for backbone, arm in dict.fromkeys((one.backbone, one.arm) for one in answers):
        said = [_answer_cell(found.get((backbone, arm, metric))) for metric in metrics]
        rows.append((Cell(text=backbone), Cell(text=arm), *said))
    absent = list(dict.fromkeys(name for one in answers for name in one.absent))
    note = "yes: better than base and than every control by more than 3 sd over seeds. After no: what it does not beat so."
    if absent:
        note += f" Not run with every backbone: {', '.join(absent)}."
    return Table(
        title="Does it beat base and every control?",
        columns=("backbone", "arm", *map(_directed, metrics)),
        rows=tuple(rows),
        note=note,
    )


def score_tables(comparison: Comparison) -> list[Table]:
    """Mean, standard deviation and difference to base of every arm, of one task and data set."""
    to_base = {(one.backbone, one.arm, one.metric): one for one in comparison.differences if one.reference == BASE}
    tables = []
    for family in _families(comparison.summaries):
        rows = [
            (
                Cell(text=one.backbone),
                Cell(text=one.arm),
                Cell(text=str(len(one.seeds))),
                *(
                    cell
                    for metric in family
                    for cell in (
                        _score_cell(one.scores.get(metric)),
                        _difference_cell(to_base.get((one.backbone, one.arm, metric))),
                    )
                ),
            )
            for one in comparison.summaries
            if not one.scores.keys().isdisjoint(family)
        ]
        columns = [column for metric in family for column in (_directed(metric), "minus base")]
        tables.append(
            Table(
                title=f"Scores: {', '.join(map(metric_name, family))}",
                columns=("backbone", "arm", "seeds", *columns),
                rows=tuple(rows),
                note="Mean \u00b1 standard deviation over seeds, test users. Differences are paired by seed. "
                "A lift counts beyond 3 sd: the larger of the sd of the paired differences and the pooled sd of both arms.",
            )
        )
    return tables


def control_tables(comparison: Comparison) -> list[Table]:
    """Arm minus control, of one task and data set; none without controls."""
    against = [one for one in comparison.differences if one.reference != BASE]
    found = {(one.backbone, one.arm, one.reference, one.metric): one for one in against}
    tables = []
    for family in _families(comparison.summaries):
        keys = dict.fromkeys((one.backbone, one.arm, one.reference) for one in against if one.metric in family)
        rows = tuple(
            (*(Cell(text=name) for name in key), *(_difference_cell(found.get((*key, metric)), pairs=True) for metric in family))
            for key in keys
        )
        if rows:
            tables.append(
                Table(
                    title=f"Against the controls: {', '.join(map(metric_name, family))}",
                    columns=("backbone", "arm", "minus", *map(_directed, family)),
                    rows=rows,
                    note="Mean of the paired differences \u00b1 their standard deviation.",
                )
            )
    return tables


def run_table(runs: Sequence[RunResult]) -> Table:
    """Every run of one task and data set."""
    metrics = _in_order(name for run in runs for name in run.metrics)
    rows = tuple(
        tuple(
            Cell(text=text)
            for text in (
                run.backbone,
                run.arm,
                str(run.seed),
                *(f"{run.metrics[name]:.4f}" if name in run.metrics else _NOTHING for name in metrics),
                f"{run.best_epoch + 1} of {len(run.epochs)}" if run.epochs else _NOTHING,
                f"{run.n_parameters:,}".replace(",", " "),
                f"{run.samples_per_s:,.0f}".replace(",", " "),
            )
        )
        for run in runs
    )
    columns = ("backbone", "arm", "seed", *map(metric_name, metrics), "best epoch", "parameters", "samples/s")
    return Table(title="Runs", columns=columns, rows=rows)


def markdown(table: Table, *, level: int = 3) -> str:
    """A heading, the table and its note. Every text of a cell is escaped."""
    lines = [f"{'#' * level} {markdown_text(table.title)}", ""]
    lines.append("| " + " | ".join(map(markdown_text, table.columns)) + " |")
    lines.append("|" + "---|" * len(table.columns))
    for row in table.rows:
        shown = [f"**{markdown_text(cell.text)}**" if cell.tone else markdown_text(cell.text) for cell in row]
        lines.append("| " + " | ".join(shown) + " |")
    lines += ["", markdown_text(table.note), ""] if table.note else [""]
    return "\n".join(lines)


def markdown_text(text: str) -> str:
    """A text from outside as one line that no Markdown or HTML can hide in."""
    one_line = " ".join(text.split())
    escaped = _MARKS.sub(lambda mark: "\\" + mark.group(), one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _families(summaries: Iterable[ArmSummary]) -> list[tuple[str, ...]]:
    there = {metric for one in summaries for metric in one.scores}
    return [found for family in _FAMILIES if (found := tuple(metric for metric in family if metric in there))]


def _in_order(metrics: Iterable[str]) -> list[str]:
    there = set(metrics)
    return [metric for metric in HIGHER_IS_BETTER if metric in there]


def _directed(metric: str) -> str:
    return metric_name(metric) if HIGHER_IS_BETTER[metric] else f"{metric_name(metric)} (lower is better)"


def _score_cell(value: Score | None) -> Cell:
    if value is None:
        return Cell(text=_NOTHING)
    return Cell(text=f"{value.mean:.4f}" if value.sd is None else f"{value.mean:.4f}{_PLUS_MINUS}{value.sd:.4f}")


def _difference_cell(one: Difference | None, *, pairs: bool = False) -> Cell:
    """The mean, in % of the reference, and the verdict; pairs that are not there are named."""
    if one is None:
        return Cell(text=_NOTHING)
    if one.mean is None:
        return Cell(text=one.verdict)
    spread = f"{_PLUS_MINUS}{one.sd:.4f}" if pairs and one.sd is not None else ""
    percent = f" ({one.percent:+.2f}\u00a0%)" if one.percent is not None else ""
    missing = f", {one.n} of {one.n + len(one.missing_seeds)} pairs" if one.missing_seeds else ""
    tone: Tone = "up" if one.verdict.startswith("beyond") else "down" if one.verdict.startswith("worse") else ""
    return Cell(text=f"{one.mean:+.4f}{spread}{percent}, {one.verdict}{missing}", tone=tone)


def _answer_cell(one: Answer | None) -> Cell:
    if one is None:
        return Cell(text=_NOTHING)
    seeds = " (2 seeds)" if one.n == 2 and one.beats_all != "no verdict" else ""  # noqa: PLR2004 - as the verdicts say it
    if one.beats_all == "no":
        open_ones = f"; no verdict: {', '.join(one.undecided)}" if one.undecided else ""
        return Cell(text=f"no{seeds}: {', '.join(one.not_beaten)}{open_ones}")
    if one.beats_all == "no verdict":
        return Cell(text=f"no verdict: {', '.join(one.undecided) or 'no control was run'}")
    return Cell(text=f"yes{seeds}", tone="up")
