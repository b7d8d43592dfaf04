"""The report of an evaluation: the same answer as JSON, as Markdown and as one HTML file that needs nothing else.

    OUT/report.json   runs, comparison, provenance
    OUT/report.md     tables and links to the plots
    OUT/report.html   the same, plots inside; no script, no network
    OUT/plots/*.png

Names of arms, backbones and data sets come from files: they are escaped everywhere.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import jinja2
import msgspec

from contracts.errors import SettingsError
from ranker.checkpoint import write_atomically
from ranker.evaluation import plots
from ranker.evaluation.comparison import Comparison, RunKey, compare
from ranker.evaluation.provenance import Provenance, pairs_text, provenance, warnings
from ranker.evaluation.results import RunResult, Task
from ranker.evaluation.tables import (
    Cell,
    Table,
    answer_table,
    control_tables,
    markdown,
    markdown_text,
    metric_name,
    run_table,
    score_tables,
)

_SHOWN = 24  # characters of a name that cannot be a file name as it is
_PLOTTED: dict[Task, tuple[str, ...]] = {"ctr": ("auc", "gauc", "logloss"), "rerank": ("ndcg@7", "map@7", "ndcg@1")}


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A run without its epochs, which stand in the run's own file."""

    task: Task
    dataset: str
    backbone: str
    arm: str
    seed: int
    metrics: dict[str, float]
    best_epoch: int
    n_epochs: int
    n_parameters: int
    samples_per_s: float
    train_s: float
    commit: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``report.json`` holds.

    Args:
        warnings: What to know before believing it.
        comparison: Means, differences and answers.
        provenance: Code, data, machine, command and recipe.
        runs: All runs.
        plots: Paths of the pictures, relative to the report.
        notes: Markdown of whoever wrote the report.
    """

    warnings: tuple[str, ...]
    comparison: Comparison
    provenance: Provenance
    runs: tuple[RunSummary, ...]
    plots: tuple[str, ...]
    notes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture; ``file`` is its path from the report."""

    file: str
    caption: str
    png: bytes

    @property
    def data_uri(self) -> str:
        """The picture inside an HTML file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One task on one data set. ``scores`` are the plots of results, ``training`` those of curves and gates."""

    title: str
    tables: tuple[Table, ...]
    scores: tuple[Plot, ...]
    training: tuple[Plot, ...]
    runs: Table


def write_report(
    folder: Path, runs: Sequence[RunResult], *, planned: Collection[RunKey] = (), command: str = "", notes: str = ""
) -> Report:
    """Write report.json, report.md, report.html and plots/ into a folder; older ones are replaced, each by a rename.

    Args:
        folder: Made if missing; may be the evaluation's own.
        runs: The finished ones.
        planned: All that were to be run (`RunFolder.planned`): what is not there is listed.
        command: That printed it, as typed.
        notes: Markdown, put at the end as it is; in HTML as plain text.

    Raises:
        SettingsError: There is no run, two are the same, or one has an unknown metric.
    """
    if not runs:
        raise SettingsError("no finished run", wanted="at least one", todo="run `reki evaluate` to its end first")
    comparison = compare(runs, planned)
    found = provenance(runs, command)
    settings = list(dict.fromkeys((one.task, one.dataset) for one in comparison.summaries))
    sections = [_section(task, dataset, comparison, runs) for task, dataset in settings]
    pictures = [plot for section in sections for plot in (*section.scores, *section.training)]
    report = Report(
        warnings=tuple(warnings(runs, found, comparison.missing)),
        comparison=comparison,
        provenance=found,
        runs=tuple(map(_summary, runs)),
        plots=tuple(plot.file for plot in pictures),
        notes=notes,
    )
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for plot in pictures:
        write_atomically(folder / plot.file, plot.png)
    write_atomically(folder / "report.json", msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    write_atomically(folder / "report.md", _markdown(report, sections).encode())
    write_atomically(folder / "report.html", _html(report, sections).encode())
    return report


def provenance_table(found: Provenance) -> Table:
    """Commits, data, versions, machines and recipe, a row each."""
    rows = [("commit", commit) for commit in found.commits]
    for one in found.data:
        rows.append((f"data of {one.task} on {one.dataset}", ", ".join(one.data_hashes)))
        rows.append((f"samples of {one.task} on {one.dataset}", pairs_text(one.n_samples)))
    rows += [("versions", pairs_text(one)) for one in found.versions]
    rows += [("machine", pairs_text(one)) for one in found.machines]
    rows.append(("recipe", pairs_text(found.recipe)))
    rows += [
        (f"recipe of {', '.join(one.backbones)} with {', '.join(one.arms)}", pairs_text(one.recipe)) for one in found.recipes
    ]
    shown = tuple((Cell(text=name), Cell(text=text)) for name, text in rows)
    return Table(title="Environment", columns=("what", "value"), rows=shown)


def _section(task: Task, dataset: str, comparison: Comparison, runs: Sequence[RunResult]) -> Section:
    part = Comparison(
        summaries=tuple(one for one in comparison.summaries if (one.task, one.dataset) == (task, dataset)),
        differences=tuple(one for one in comparison.differences if (one.task, one.dataset) == (task, dataset)),
        answers=tuple(one for one in comparison.answers if (one.task, one.dataset) == (task, dataset)),
        missing=(),
    )
    here = [run for run in runs if (run.task, run.dataset) == (task, dataset)]
    answers = [answer_table(part.answers)] if part.answers else []
    return Section(
        title=f"{task} on {dataset}",
        tables=(*answers, *score_tables(part), *control_tables(part)),
        scores=tuple(_score_plots(task, dataset, part)),
        training=tuple(_training_plots(task, dataset, here)),
        runs=run_table(here),
    )


def _score_plots(task: Task, dataset: str, part: Comparison) -> list[Plot]:
    return [
        Plot(
            file=_file(task, dataset, metric.replace("@", "-")),
            caption=f"{metric_name(metric)} of every arm by backbone, {task} on {dataset}; the axis is cut",
            png=plots.score_bars(part.summaries, metric),
        )
        for metric in _PLOTTED[task]
        if any(metric in one.scores for one in part.summaries)
    ]


def _training_plots(task: Task, dataset: str, runs: Sequence[RunResult]) -> list[Plot]:
    found = []
    for backbone in dict.fromkeys(run.backbone for run in runs):
        some = [run for run in runs if run.backbone == backbone]
        if any(run.epochs for run in some):
            caption = f"Training of {backbone}, {task} on {dataset}: validation score and loss by epoch"
            png = plots.training_curves(some, _PLOTTED[task][0])
            found.append(Plot(file=_file(task, dataset, backbone, "training"), caption=caption, png=png))
        if any(run.gates for run in some):
            caption = f"Gates of HEIN under {backbone}, {task} on {dataset}: mean weight of each expert by stream"
            found.append(Plot(file=_file(task, dataset, backbone, "gates"), caption=caption, png=plots.gate_load(some)))
    return found


def _file(*parts: str) -> str:
    """A path from names of files, ``plots/ctr.ml-1m.ndcg-7.png``: nothing in it leads elsewhere, and no two names share it."""
    return "plots/" + ".".join(map(_file_part, parts)) + ".png"


def _file_part(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    return plain if plain == name else f"{plain.strip('-')[:_SHOWN]}-{crc32(name.encode()):08x}"


def _summary(run: RunResult) -> RunSummary:
    return RunSummary(
        task=run.task,
        dataset=run.dataset,
        backbone=run.backbone,
        arm=run.arm,
        seed=run.seed,
        metrics=run.metrics,
        best_epoch=run.best_epoch,
        n_epochs=len(run.epochs),
        n_parameters=run.n_parameters,
        samples_per_s=run.samples_per_s,
        train_s=sum(epoch.train_s for epoch in run.epochs),
        commit=run.commit,
    )


def _markdown(report: Report, sections: Sequence[Section]) -> str:
    lines = ["# Evaluation", ""]
    lines += [f"> **Note:** {markdown_text(said)}\n>" for said in report.warnings]
    lines += [""] if report.warnings else []
    for section in sections:
        lines += [f"## {markdown_text(section.title)}", ""]
        lines += [markdown(table) for table in section.tables]
        lines += [f"![{markdown_text(plot.caption)}]({plot.file})\n" for plot in (*section.scores, *section.training)]
    lines.append(markdown(provenance_table(report.provenance), level=2))
    if report.provenance.command:
        lines += ["Command:", "", *(f"    {line}" for line in report.provenance.command.splitlines()), ""]
    if report.notes:
        lines += ["## Notes", "", report.notes.strip(), ""]
    return "\n".join(lines).rstrip() + "\n"


def _html(report: Report, sections: Sequence[Section]) -> str:
    templates = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=templates, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        report=report, sections=sections, environment=provenance_table(report.provenance)
    )
