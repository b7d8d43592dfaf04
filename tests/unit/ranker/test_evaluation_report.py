"""The report says what is in the runs, where they come from, and lets no name of a file become markup."""

import base64
import json
import re
from html.parser import HTMLParser
from itertools import count

import msgspec
import pytest

from contracts.errors import SettingsError
from ranker.evaluation.comparison import key_of
from ranker.evaluation.report import Report, write_report
from ranker.evaluation.results import EpochResult, RunResult

HOSTILE = "<script>alert(1)</script>"


def run(arm="base", seed=0, *, auc=None, **changes):
    lift = {"base": 0.0, "random": -0.02, "metadata": 0.001, "knowledge": 0.03}.get(arm, 0.0)
    fields = {
        "task": "ctr",
        "dataset": "ml-1m",
        "backbone": "din",
        "arm": arm,
        "seed": seed,
        "metrics": {
            "auc": auc or 0.78 + lift + seed / 1000,
            "gauc": 0.73 + lift + seed / 1000,
            "logloss": 0.55 - lift + seed / 1000,
        },
        "epochs": [EpochResult(loss=0.6, validation={"auc": 0.7 + lift}, train_s=2.5) for _ in range(2)],
        "best_epoch": 1,
        "n_samples": {"train": 700, "test": 90},
        "n_parameters": 1234567,
        "samples_per_s": 50000.0,
        "recipe": {"lr": 0.001, "dropout": 0.5 if arm == "knowledge" else 0.0, "seed": seed},
        "gates": {},
        "commit": "abc",
        "data_hash": "d4",
        "versions": {"torch": "2.13.0"},
        "machine": {"processor": "Xeon", "cores": 2},
    }
    return RunResult(**fields | changes)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Drawing is slow and tested elsewhere: here each picture is some bytes of its own."""
    numbers = count()
    for name in ("score_bars", "training_curves", "gate_load"):
        monkeypatch.setattr(f"ranker.evaluation.plots.{name}", lambda *_: b"picture %d" % next(numbers))


RUNS = [run(arm, seed) for arm in ("base", "random", "metadata", "knowledge") for seed in range(3)]


def written(folder, runs, **options):
    report = write_report(folder, runs, **options)
    return report, (folder / "report.md").read_text(), (folder / "report.html").read_text()


class Tags(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def cells(markdown, *start):
    """The cells of the first row that starts so."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines() if line.startswith("| ")]
    return next(row for row in rows if row[: len(start)] == list(start))


def test_scores_differences_and_verdicts_stand_in_the_tables(tmp_path):
    _, markdown, page = written(tmp_path, RUNS)
    scores = "**+0.0300 (+3.84 %), beyond 3 sd**"
    assert cells(markdown, "din", "knowledge", "3")[3:5] == ["0.8110 ± 0.0010", scores]
    assert cells(markdown, "din", "random", "3")[4] == "**-0.0200 (-2.56 %), worse beyond 3 sd**"
    assert cells(markdown, "din", "metadata", "3")[4] == "+0.0010 (+0.13 %), within 3 sd"
    assert cells(markdown, "din", "knowledge", "3")[8] == "**-0.0300 (-5.44 %), beyond 3 sd**"
    assert cells(markdown, "din", "knowledge", "metadata")[3].startswith("**+0.0290 ± 0.0000 (+3.71 %), beyond 3 sd")
    assert cells(markdown, "din", "knowledge", "**yes**")[2:] == ["**yes**"] * 3
    assert "Not run with every backbone: base-long, attributes." in markdown
    for text in ("+0.0300 (+3.84\u00a0%), beyond 3 sd", "Against the controls: AUC, GAUC, LogLoss", "1 234 567"):
        assert text in Tags(page).text


def test_the_json_reads_back_as_what_was_returned(tmp_path):
    report, _, _ = written(tmp_path, RUNS, notes="n")
    raw = (tmp_path / "report.json").read_bytes()
    assert msgspec.json.decode(raw, type=Report) == report
    assert len(json.loads(raw)["runs"]) == len(RUNS)
    assert report.runs[0].train_s == 5.0
    assert report.warnings == ()


def test_environment_command_recipe_and_notes(tmp_path):
    _, markdown, page = written(tmp_path, RUNS, command="reki evaluate ctr \\\n  --seeds 3", notes="*Why* & <b>how</b>")
    assert cells(markdown, "recipe")[1] == "lr 0.001"
    assert cells(markdown, "recipe of din with knowledge")[1] == "dropout 0.5"
    assert cells(markdown, "machine")[1] == "processor Xeon, cores 2"
    assert "\n    reki evaluate ctr \\\n      --seeds 3\n" in markdown
    assert markdown.endswith("## Notes\n\n*Why* & <b>how</b>\n")
    assert Tags(page).text.rstrip().endswith("*Why* & <b>how</b>")
    assert "b" not in Tags(page).elements


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": "def"}, "2 commits: abc, def"),
        ({"commit": "abc+changes"}, "uncommitted changes"),
        ({"machine": {"processor": "Epyc", "cores": 2}}, "2 machines"),
        ({"data_hash": "d5"}, "2 different data: d4, d5"),
        ({"versions": {"torch": "2.14.0"}}, "2 sets of versions"),
        ({"recipe": {"lr": 0.1, "seed": 3}}, "din/base have 2 recipes"),
    ],
)
def test_mixed_origins_are_said_at_the_top(tmp_path, changes, said):
    report, markdown, page = written(tmp_path, [*RUNS, run("base", 3, **changes)])
    assert any(said in one for one in report.warnings)
    assert said in markdown[: markdown.index("## ")]
    assert said in page[: page.index("<h2>")]


def test_unfinished_runs_are_listed(tmp_path):
    planned = [key_of(one) for one in RUNS]
    _, markdown, _ = written(
        tmp_path, [one for one in RUNS if (one.arm, one.seed) not in {("knowledge", 1), ("random", 2)}], planned=planned
    )
    assert "2 runs are missing, and so are their pairs: ctr din/random seed 2; ctr din/knowledge seed 1" in markdown
    assert "beyond 3 sd (2 seeds), 2 of 3 pairs" in cells(markdown, "din", "knowledge", "2")[4]


def test_one_seed_has_no_verdict(tmp_path):
    _, markdown, _ = written(tmp_path, [run("base"), run("knowledge")])
    assert cells(markdown, "din", "knowledge", "1")[3:5] == ["0.8100", "+0.0300 (+3.85 %), one seed: no verdict"]


def test_names_from_files_are_no_markup(tmp_path):
    names = {
        "backbone": 'a|b"><img src=x onerror=y>',
        "dataset": "../../d<i>*_`$",
        "commit": "<u>",
        "machine": {"<p>": "[x](y)"},
    }
    runs = [run(arm, 0, **names) for arm in ("base", HOSTILE)]
    report, markdown, page = written(tmp_path / "out", runs, command="`<s>`")
    found = Tags(page)
    assert not {"script", "i", "u", "s", "p>"} & set(found.elements)
    assert "onerror" not in dict(found.attributes)
    assert found.elements.count("img") == len(report.plots)
    assert HOSTILE in found.text
    outside_code = re.sub(r"^    .*$", "", markdown, flags=re.MULTILINE)
    assert "<" not in outside_code
    assert "](y)" not in outside_code.replace("\\](y)", "")
    assert len(cells(markdown, 'a\\|b"&gt;&lt;img src=x onerror=y&gt;', "base")) == len(
        cells(markdown, "backbone", "arm", "seeds")
    )
    assert all(re.fullmatch(r"plots/[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+\.png", file) for file in report.plots)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out"]


def test_names_that_make_the_same_file_name_keep_their_pictures(tmp_path):
    report, _, _ = written(tmp_path, [run("base", backbone=name) for name in ("a.b", "a/b", "a-b")])
    assert len(set(report.plots)) == len(report.plots)


def test_the_page_needs_no_network_and_its_pictures_are_the_files(tmp_path):
    report, markdown, page = written(tmp_path, [run(arm, gates={"user": [0.4, 0.6]}) for arm in ("base", "knowledge")])
    assert sorted(report.plots) == sorted(f"plots/{one.name}" for one in (tmp_path / "plots").iterdir())
    assert len(report.plots) == 5
    assert all(f"]({file})" in markdown for file in report.plots)
    sources = [value for name, value in Tags(page).attributes if name == "src"]
    assert [base64.b64decode(value.removeprefix("data:image/png;base64,")) for value in sources] == [
        (tmp_path / file).read_bytes() for file in report.plots
    ]
    assert "script" not in Tags(page).elements
    assert not re.search(r"https?:|url\(|@import", page)
    assert not list(tmp_path.rglob("*.part"))


def test_rerankers_and_the_initial_ranker(tmp_path):
    metrics = {f"{name}@{k}": 0.5 for name in ("map", "ndcg") for k in (1, 3, 5, 7)}
    runs = [run(arm, seed, task="rerank", backbone="prm", metrics=metrics) for arm in ("base", "knowledge") for seed in range(3)]
    runs.append(run("base", 0, task="rerank", backbone="initial", metrics=metrics, epochs=[], best_epoch=0, recipe={}))
    report, markdown, _ = written(tmp_path, runs)
    assert cells(markdown, "initial", "base", "1")[3:] == ["0.5000", "\u2013"] * 4
    assert "### Scores: MAP@1, MAP@3, MAP@5, MAP@7" in markdown
    assert "plots/rerank.ml-1m.ndcg-7.png" in report.plots
    assert "plots/rerank.ml-1m.initial.training.png" not in report.plots
    assert report.provenance.recipe == {"lr": 0.001}


def test_a_second_report_replaces_the_first(tmp_path):
    written(tmp_path, RUNS, notes="first")
    _, markdown, page = written(tmp_path, RUNS, notes="second")
    assert "first" not in markdown + page


def test_no_run_no_report(tmp_path):
    with pytest.raises(SettingsError, match="no finished run"):
        write_report(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_real_pictures_are_pngs(tmp_path, monkeypatch):
    monkeypatch.undo()
    report = write_report(tmp_path, [run(arm, gates={"user": [0.4, 0.6]}) for arm in ("base", HOSTILE)])
    assert all((tmp_path / file).read_bytes().startswith(b"\x89PNG\r\n") for file in report.plots)
