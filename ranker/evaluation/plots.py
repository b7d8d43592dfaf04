"""The pictures of an evaluation, as PNG. Figures are built without pyplot: nothing global, nothing left open.

An arm has one colour in every picture (Okabe and Ito's palette, told apart by colour-blind readers too).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from itertools import zip_longest
from statistics import fmean
from zlib import crc32

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from ranker.evaluation.comparison import BASE, ArmSummary, arm_rank
from ranker.evaluation.results import RunResult
from ranker.evaluation.tables import metric_name
from ranker.evaluation.verdicts import higher_is_better, score

COLOURS = {
    "base": "#4d4d4d",
    "base-long": "#a6a6a6",
    "random": "#cc79a7",
    "metadata": "#009e73",
    "metadata-long": "#117733",
    "attributes": "#e69f00",
    "item-knowledge": "#56b4e9",  # the light and the dark blue: both are knowledge
    "item-knowledge-long": "#332288",
    "item-knowledge-disliked": "#d55e00",
    "knowledge": "#0072b2",
}
_OTHERS = ("#f0e442", "#000000", "#882255")
_WIDTH_INCHES, _DPI = 9.0, 150  # 10 pt read well where a page shows it 900 pixels wide
_GROUP = 0.84  # of the room of a backbone, the rest is the gap
_INK, _SOFT, _LINE = "#1d2127", "#5c6470", "#dfe1e4"
_SHOWN = 24  # characters of a name
_CROWDED = 6  # backbones whose names fit side by side
_LEGEND = 96  # characters of its names, with their patches, that fit in one row
_PATCH = 4


def colour(arm: str) -> str:
    """The same for an arm everywhere; an arm that is not ours gets one by its name."""
    return COLOURS.get(arm) or _OTHERS[crc32(arm.encode()) % len(_OTHERS)]


def score_bars(summaries: Sequence[ArmSummary], metric: str) -> bytes:
    """Test score of every arm by backbone, with one standard deviation over seeds.

    Args:
        summaries: Of one task and data set; those without the metric are left out.
        metric: A key of `ranker.evaluation.comparison.HIGHER_IS_BETTER`.

    Returns:
        A PNG.
    """
    shown = [one for one in summaries if metric in one.scores]
    backbones = list(dict.fromkeys(one.backbone for one in shown))
    arms = sorted({one.arm for one in shown}, key=arm_rank)
    figure, (axes,) = _figure(1, height=4.4)
    width = _GROUP / len(arms)
    for place, backbone in enumerate(backbones):
        of_backbone = sorted((one for one in shown if one.backbone == backbone), key=lambda one: arm_rank(one.arm))
        left = place - width * (len(of_backbone) - 1) / 2
        for slot, one in enumerate(of_backbone):
            value = one.scores[metric]
            axes.bar(left + slot * width, value.mean, 0.92 * width, color=colour(one.arm))
            if value.sd is not None:
                bar = (left + slot * width, value.mean)
                axes.errorbar(*bar, yerr=value.sd, color=_INK, capsize=min(3.0, 12 * width), elinewidth=1, capthick=1)
            if one.arm == BASE and len(of_backbone) > 1:
                axes.hlines(
                    value.mean, left - width / 2, left + width * (len(of_backbone) - 0.5), color=_INK, linestyle=":", linewidth=1
                )
    start = _cut(
        axes, [(value.mean - (value.sd or 0), value.mean + (value.sd or 0)) for value in (one.scores[metric] for one in shown)]
    )
    axes.set_xticks(range(len(backbones)), [_shown(name) for name in backbones], rotation=25 if len(backbones) > _CROWDED else 0)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(backbones) - 0.5)
    better = "higher" if higher_is_better(metric) else "lower"
    axes.set_ylabel(f"{metric_name(metric)} ({better} is better)")
    seeds = _seeds(one.scores[metric].n for one in shown)
    cut = f"The axis is cut: it starts at {start:.4g}." if start > 0 else ""
    dotted = "Dotted: base. " if BASE in arms else ""
    _frame(
        figure,
        arms,
        f"{metric_name(metric)} of the test users: {shown[0].dataset}, {shown[0].task}",
        f"Mean and 1 sd, {seeds}. {dotted}{cut}",
    )
    return _png(figure)


def training_curves(runs: Sequence[RunResult], metric: str) -> bytes:
    """Validation score and training loss by epoch, for each arm of one backbone.

    Args:
        runs: Of one task, data set and backbone; those without epochs are left out.
        metric: Of the validation users.

    Returns:
        A PNG.
    """
    trained = [run for run in runs if run.epochs]
    arms = sorted({run.arm for run in trained}, key=arm_rank)
    figure, (left, right) = _figure(2, height=4.0)
    for arm in arms:
        of_arm = [run for run in trained if run.arm == arm]
        _curves(left, arm, [[epoch.validation.get(metric, float("nan")) for epoch in run.epochs] for run in of_arm])
        _curves(right, arm, [[epoch.loss for epoch in run.epochs] for run in of_arm])
    last = max(len(run.epochs) for run in trained)
    for axes, label in ((left, f"validation {metric_name(metric)}"), (right, "training loss")):
        axes.set_ylabel(label)
        axes.set_xlabel("epoch")
        axes.set_xlim(0.7, last + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    seeds = _seeds(len([run for run in trained if run.arm == arm]) for arm in arms)
    first = trained[0]
    _frame(
        figure,
        arms,
        f"Training of {_shown(first.backbone)}: {first.dataset}, {first.task}",
        f"Thick: mean over seeds, as far as all of them trained; thin: one seed each; {seeds}.",
    )
    return _png(figure)


def gate_load(runs: Sequence[RunResult]) -> bytes:
    """Mean gate weight of each expert by stream, for each arm of one backbone.

    Args:
        runs: Of one task, data set and backbone; those without gates are left out.

    Returns:
        A PNG.
    """
    gated = [run for run in runs if run.gates]
    streams = list(dict.fromkeys(stream for run in gated for stream in run.gates))
    arms = sorted({run.arm for run in gated}, key=arm_rank)
    figure, panels = _figure(len(streams), height=3.8, share_y=True)
    width = _GROUP / len(arms)
    for axes, stream in zip(panels, streams, strict=True):
        n_experts = max(len(run.gates.get(stream, ())) for run in gated)
        for slot, arm in enumerate(arms):
            weights = [run.gates[stream] for run in gated if run.arm == arm and stream in run.gates]
            for expert, of_seeds in enumerate(zip_longest(*weights, fillvalue=0.0)):
                value = score(of_seeds)
                at = expert + 1 + (slot - (len(arms) - 1) / 2) * width
                axes.bar(at, value.mean, 0.92 * width, color=colour(arm))
                if value.sd is not None:
                    axes.errorbar(at, value.mean, yerr=value.sd, color=_INK, capsize=0, elinewidth=0.8)
        axes.axhline(1 / n_experts, color=_INK, linestyle=":", linewidth=1)
        axes.set_xticks(range(1, n_experts + 1))
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(f"expert of the {_shown(stream)} stream")
    panels[0].set_ylabel("mean gate weight")
    panels[0].set_ylim(bottom=0)
    seeds = _seeds(len([run for run in gated if run.arm == arm]) for arm in arms)
    first = gated[0]
    _frame(
        figure,
        arms,
        f"Gates of HEIN under {_shown(first.backbone)}: {first.dataset}, {first.task}",
        f"Mean over subjects and 1 sd over seeds, {seeds}. Dotted: all experts alike.{_shared(first)}",
    )
    return _png(figure)


def _shared(run: RunResult) -> str:
    """Which experts serve both streams: those in front, as many as the recipe says."""
    n_shared = run.recipe.get("n_shared", 0)
    if not isinstance(n_shared, int) or n_shared < 1:
        return ""
    return " Expert 1 serves both streams." if n_shared == 1 else f" Experts 1 to {n_shared} serve both streams."


def _figure(n_panels: int, *, height: float, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, n_panels, squeeze=False, sharey=share_y)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_LINE)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_SOFT, labelcolor=_INK)
    return figure, panels


def _frame(figure: Figure, arms: Sequence[str], title: str, caption: str) -> None:
    """Title and legend above the panels, the caption below them."""
    patches = [Patch(color=colour(arm), label=_shown(arm)) for arm in arms]
    legend = figure.legend(
        handles=patches,
        title=title,  # a suptitle and a legend above the panels would lie over each other
        title_fontproperties={"size": 12, "weight": "bold"},
        alignment="left",
        loc="outside upper left",
        ncols=_legend_columns(arms),
        frameon=False,
        fontsize=10,
        handlelength=1.0,
        columnspacing=1.2,
        borderpad=0.2,
    )
    legend.get_title().set_color(_INK)
    figure.supxlabel(caption, x=0.012, ha="left", fontsize=9, color=_SOFT)


def _legend_columns(arms: Sequence[str]) -> int:
    """All arms in one row if there is room, else as many as fit beneath each other."""
    lengths = [len(_shown(arm)) + _PATCH for arm in arms]
    return len(arms) if sum(lengths) <= _LEGEND else max(1, _LEGEND // max(lengths))


def _cut(axes: Axes, ranges: list[tuple[float, float]]) -> float:
    """Limit the y axis to where the bars differ; returns where it starts."""
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    room = (high - low) or abs(high) or 1.0
    start = max(0.0, low - 0.25 * room) if low >= 0 else low - 0.25 * room
    axes.set_ylim(start, high + 0.08 * room)
    return start


def _curves(axes: Axes, arm: str, curves: list[list[float]]) -> None:
    for curve in curves:
        axes.plot(range(1, len(curve) + 1), curve, color=colour(arm), linewidth=0.7, alpha=0.45)
    together = [fmean(at) for at in zip(*curves, strict=False)]  # a mean over other seeds than before would jump
    axes.add_line(Line2D(range(1, len(together) + 1), together, color=colour(arm), linewidth=2.2, marker="o", markersize=4))


def _seeds(counts: Iterable[int]) -> str:
    """How many seeds: ``n = 5 seeds``, ``n = 2 to 5 seeds``."""
    least, most = min(counts := sorted(counts)), counts[-1]
    return f"n = {least} {'seed' if most == 1 else 'seeds'}" if least == most else f"n = {least} to {most} seeds"


def _shown(name: str) -> str:
    """A name from a file as a label: no glyphs that the font lacks, not longer than there is room."""
    plain = " ".join(name.split()).encode("ascii", "backslashreplace").decode()
    plain = plain if len(plain) <= _SHOWN else plain[: _SHOWN - 3] + "..."
    return f" {plain}" if plain.startswith("_") else plain  # matplotlib leaves such labels out of a legend


def _png(figure: Figure) -> bytes:
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a "$" in a name is a dollar
    out = BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})  # the same runs give the same bytes
    return out.getvalue()
