import json

from click.testing import CliRunner

from contracts.records import ModelManifest
from ranker.offline import Progress
from streams import training
from streams.cli.main import cli

MANIFEST = ModelManifest(
    version=3, step=0, state="trained", backbone="din", weights="w", sha256="", collection="", encoder="", d_text=1, d_aug=1,
    created_ms=0, n_samples=9, metrics={"auc": 0.75},
)  # fmt: skip


def run(monkeypatch, tmp_path, *options):
    def train_version(_settings, reading, trained):
        reading(5)
        for step in (4, 8):
            trained(Progress(epoch=0, step=step, n_steps=8, loss=1 / step))
        return MANIFEST

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train_version", train_version)
    return CliRunner().invoke(cli, ["train", *options])


def test_stdout_is_for_results_and_the_bars_are_on_stderr(monkeypatch, tmp_path):
    answer = run(monkeypatch, tmp_path)
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.splitlines()[0].startswith("version 3: 9 samples")
    assert "loss       0.1250" in answer.stdout
    assert "auc        0.7500" in answer.stdout
    assert "reading the log" not in answer.stdout
    for bar in ("reading the log", "training", "8/8"):
        assert bar in answer.stderr


def test_json_is_the_manifest_alone(monkeypatch, tmp_path):
    assert json.loads(run(monkeypatch, tmp_path, "--json").stdout)["version"] == 3
