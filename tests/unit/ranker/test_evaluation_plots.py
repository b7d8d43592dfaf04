"""The pictures are PNGs of the promised width; what a name holds cannot break them."""

import io

import matplotlib.image
import msgspec
import pytest

from ranker.evaluation import plots
from ranker.evaluation.comparison import ARM_ORDER, compare
from ranker.evaluation.results import EpochResult, RunResult


def run(arm, seed, *, backbone="din", epochs=2, gates=True, **metrics):
    lift = len(arm) / 1000
    return RunResult(
        task="ctr",
        dataset="ml-1m",
        backbone=backbone,
        arm=arm,
        seed=seed,
        metrics=metrics or {"auc": 0.78 + lift + seed / 2000, "logloss": 0.55 - lift},
        epochs=[EpochResult(loss=0.6 - n / 100, validation={"auc": 0.7 + n / 100 + lift}, train_s=1.0) for n in range(epochs)],
        best_epoch=0,
        n_samples={},
        n_parameters=1,
        samples_per_s=1.0,
        recipe={"n_shared": 2},
        gates={"user": [0.5, 0.3, 0.2], "item": [0.2, 0.2, 0.6]} if gates else {},
        commit="abc",
        data_hash="d",
        versions={},
        machine={},
    )


def size(png):
    """(height, width) in pixels."""
    return matplotlib.image.imread(io.BytesIO(png), format="png").shape[:2]


def drawn(monkeypatch):
    """Keeps the figures on their way to a PNG."""
    kept = []
    real = plots._png

    def keep(figure):
        kept.append(figure)
        return real(figure)

    monkeypatch.setattr(plots, "_png", keep)
    return kept


def texts(figure):
    return [text.get_text() for text in figure.findobj(plots.Text)]


def test_bars_of_nine_backbones_and_every_arm(monkeypatch):
    kept = drawn(monkeypatch)
    runs = [run(arm, seed, backbone=f"backbone{n}") for n in range(9) for arm in ARM_ORDER for seed in (0, 1)]
    assert size(plots.score_bars(compare(runs).summaries, "auc"))[1] == 1350
    (axes,) = kept[0].axes
    heights = [bar.get_height() for bar in axes.patches]
    assert len(heights) == 9 * len(ARM_ORDER)
    assert heights[0] == pytest.approx(0.784 + 0.00025)
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert len(set(colours)) == len(ARM_ORDER)
    assert colours[: len(ARM_ORDER)] == colours[-len(ARM_ORDER) :]


def test_the_cut_of_the_axis_and_the_seeds_are_said(monkeypatch):
    kept = drawn(monkeypatch)
    plots.score_bars(compare([run("base", 0), run("knowledge", 0), run("knowledge", 1)]).summaries, "logloss")
    (axes,) = kept[0].axes
    start = axes.get_ylim()[0]
    assert start > 0.5
    caption = " ".join(texts(kept[0]))
    assert f"it starts at {start:.4g}" in caption
    assert "n = 1 to 2 seeds" in caption
    assert "lower is better" in caption


def test_legends_and_titles_do_not_lie_over_the_panels(monkeypatch):
    kept = drawn(monkeypatch)
    runs = [run(arm, seed) for arm in ARM_ORDER for seed in (0, 1)]
    plots.score_bars(compare(runs).summaries, "auc")
    plots.training_curves(runs, "auc")
    plots.gate_load(runs)
    for figure in kept:
        legend = figure.legends[0].get_window_extent()
        assert legend.x1 <= figure.bbox.width
        assert all(axes.get_window_extent().y1 <= legend.y0 for axes in figure.axes)


def test_curves_show_every_seed_and_the_mean_as_far_as_all_trained(monkeypatch):
    kept = drawn(monkeypatch)
    plots.training_curves([run("base", 0, epochs=4), run("base", 1, epochs=2), run("knowledge", 0, epochs=0)], "auc")
    left, right = kept[0].axes
    assert [len(line.get_xdata()) for line in left.lines] == [4, 2, 2]
    assert list(right.lines[-1].get_ydata()) == pytest.approx([0.6, 0.59])
    assert "knowledge" not in texts(kept[0])


def test_gates_are_means_over_seeds_by_stream(monkeypatch):
    kept = drawn(monkeypatch)
    other = msgspec.structs.replace(run("knowledge", 1), gates={"user": [0.1, 0.3, 0.6], "item": [0.2, 0.2, 0.6]})
    plots.gate_load([run("base", 0, gates=False), run("knowledge", 0), other])
    user, item = kept[0].axes
    assert [bar.get_height() for bar in user.patches] == pytest.approx([0.3, 0.3, 0.4])
    assert "Experts 1 to 2 serve both streams" in " ".join(texts(kept[0]))
    assert [bar.get_height() for bar in item.patches] == pytest.approx([0.2, 0.2, 0.6])


def test_hostile_names_are_drawn_as_they_are(monkeypatch):
    kept = drawn(monkeypatch)
    names = ["<script>", "$\\frac$", "_hidden", "\u4e2d\u6587", "x" * 200, "a\nb"]
    runs = [run(arm, 0, backbone=backbone) for backbone in names for arm in names]
    for png in (plots.score_bars(compare(runs).summaries, "auc"), plots.training_curves(runs, "auc"), plots.gate_load(runs)):
        assert size(png)[1] == 1350
    for figure in kept:
        labels = sorted(text.get_text().strip() for text in figure.legends[0].get_texts())
        assert labels == ["$\\frac$", "<script>", "\\u4e2d\\u6587", "_hidden", "a b", "x" * 21 + "..."]


def test_equal_scores_and_a_score_of_zero_can_be_drawn(monkeypatch):
    kept = drawn(monkeypatch)
    plots.score_bars(compare([run("base", seed, auc=0.0) for seed in (0, 1)]).summaries, "auc")
    assert kept[0].axes[0].get_ylim()[0] == 0
    assert "cut" not in " ".join(texts(kept[0]))


def test_the_same_runs_give_the_same_bytes():
    summaries = compare([run("base", 0), run("knowledge", 0)]).summaries
    assert plots.score_bars(summaries, "auc") == plots.score_bars(summaries, "auc")
