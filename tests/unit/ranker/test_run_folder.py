"""A folder of runs is taken, resumed, extended or refused; a damaged file is named."""

import msgspec
import pytest

from contracts.errors import CheckpointError, SettingsError
from ranker.evaluation.results import EpochResult, RunResult
from ranker.evaluation.run_folder import EvaluationPlan, RunFolder

PLAN = EvaluationPlan(
    task="ctr",
    dataset="ml-1m",
    backbones=("din", "dcn"),
    arms=("base", "knowledge"),
    seeds=(0, 1),
    recipe={"lr": 0.001, "batch": 512},
    data_hash="d4",
)


def run(backbone="din", arm="base", seed=0, auc=0.7, **changes):
    fields = {
        "task": "ctr",
        "dataset": "ml-1m",
        "backbone": backbone,
        "arm": arm,
        "seed": seed,
        "metrics": {"auc": auc},
        "epochs": [EpochResult(loss=0.5, validation={"auc": 0.6}, train_s=1.0)],
        "best_epoch": 0,
        "n_samples": {"train": 10},
        "n_parameters": 1,
        "samples_per_s": 1.0,
        "recipe": {"lr": 0.001},
        "gates": {"user": [0.5, 0.5]},
        "commit": "abc",
        "data_hash": "d4",
        "versions": {},
        "machine": {"cores": 2},
    }
    return RunResult(**fields | changes)


def opened(path, plan=PLAN):
    """The folder, let go again."""
    with RunFolder.hold(path, plan) as folder:
        return folder


def test_a_killed_evaluation_resumes(tmp_path):
    out = tmp_path / "new" / "out"
    first = opened(out, PLAN)
    first.save(run(seed=1))
    first.save(run(backbone="dcn", arm="knowledge"))
    again = opened(out, PLAN)
    assert again.results() == [run(seed=1), run(backbone="dcn", arm="knowledge")]
    assert [key for key in again.planned() if again.done(key.backbone, key.arm, key.seed)] == [
        again.planned()[1],
        again.planned()[6],
    ]
    assert again.plans == [PLAN]


def test_an_empty_folder_is_taken_and_leaves_no_temporary_file(tmp_path):
    folder = opened(tmp_path)
    file = folder.save(run())
    assert file == tmp_path / "runs" / "din.base.0.json"
    assert sorted(one.name for one in tmp_path.rglob("*") if one.is_file() and one.name != ".lock") == [
        "din.base.0.json",
        "evaluation.json",
    ]


def test_results_come_in_the_order_of_the_plan_and_unplanned_ones_last(tmp_path):
    folder = opened(tmp_path)
    for one in (run("initial"), run("dcn", seed=1), run("din", "knowledge"), run("dcn", seed=0), run("din")):
        folder.save(one)
    assert [(one.backbone, one.arm, one.seed) for one in folder.results()] == [
        ("din", "base", 0),
        ("din", "knowledge", 0),
        ("dcn", "base", 0),
        ("dcn", "base", 1),
        ("initial", "base", 0),
    ]


def test_a_run_made_again_replaces_the_old_one(tmp_path):
    folder = opened(tmp_path)
    folder.save(run(auc=0.6))
    folder.save(run(auc=0.8))
    assert [one.metrics["auc"] for one in folder.results()] == [0.8]


def test_a_folder_is_extended_by_backbones_arms_and_seeds(tmp_path):
    opened(tmp_path).save(run())
    more = msgspec.structs.replace(PLAN, backbones=("din", "deepfm"), arms=("base", "random"), seeds=(0, 4))
    found = opened(tmp_path, more)
    assert found.plans == [PLAN, more] == RunFolder.read(tmp_path).plans
    assert found.results() == [run()]
    assert len(found.planned()) == 8 + 8 - 1
    asked = {(key.backbone, key.arm, key.seed) for key in found.planned()}
    assert ("deepfm", "random", 4) in asked
    assert ("dcn", "random", 4) not in asked  # no plan asked for it


def test_another_recipe_for_the_same_backbone_and_arm_is_refused(tmp_path):
    opened(tmp_path)
    with pytest.raises(SettingsError, match=r"din/base where lr is 0\.001; wanted lr 0\.01;.*--out"):
        opened(tmp_path, msgspec.structs.replace(PLAN, recipe={"lr": 0.01, "batch": 512}))
    other = msgspec.structs.replace(PLAN, backbones=("deepfm",), recipe={"lr": 0.01, "batch": 512})
    assert opened(tmp_path, other).plans == [PLAN, other]


def test_recipes_of_single_arms_count(tmp_path):
    tuned = msgspec.structs.replace(PLAN, recipes={"din/knowledge": {"dropout": 0.5}})
    assert tuned.recipe_of("din", "knowledge") == {"lr": 0.001, "batch": 512, "dropout": 0.5}
    opened(tmp_path, tuned)
    with pytest.raises(SettingsError, match=r"din/knowledge where dropout is 0\.5; wanted dropout None"):
        opened(tmp_path)


@pytest.mark.parametrize("change", [{"task": "rerank"}, {"dataset": "books"}, {"data_hash": "d5"}])
def test_another_task_or_data_is_refused(tmp_path, change):
    opened(tmp_path)
    with pytest.raises(SettingsError, match=next(iter(change))):
        opened(tmp_path, msgspec.structs.replace(PLAN, **change))
    assert RunFolder.read(tmp_path).plans == [PLAN]


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path):
    for name in "abcdefg":
        (tmp_path / name).touch()
    with pytest.raises(SettingsError, match=r"a, b, c, d, e and 2 more.*--out"):
        opened(tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == list("abcdefg")


def test_a_file_as_folder_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(SettingsError, match="a file where"):
        opened(tmp_path / "out", PLAN)


def test_a_foreign_evaluation_json_is_refused(tmp_path):
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"evaluation\.json"):
        opened(tmp_path)


def test_killed_before_the_plan_was_written(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / ".lock").touch()
    (tmp_path / ".evaluation.json.4711.part").write_text('{"pla')
    assert opened(tmp_path).results() == []
    assert not list(tmp_path.glob(".*.part"))


def test_reading_needs_an_evaluation(tmp_path):
    with pytest.raises(SettingsError, match="no evaluation in"):
        RunFolder.read(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b'{"task": "ctr"', b"{}", b"\xff\xfe"])
def test_a_damaged_run_is_named_before_anything_runs(tmp_path, content):
    folder = opened(tmp_path)
    file = folder.save(run())
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"din\.base\.0\.json.*delete this file"):
        opened(tmp_path)
    file.unlink()
    assert not opened(tmp_path).done("din", "base", 0)


def test_a_run_under_another_name_is_refused(tmp_path):
    folder = opened(tmp_path)
    folder.save(run()).rename(tmp_path / "runs" / "din.base.1.json")
    with pytest.raises(CheckpointError, match=r"din\.base\.1\.json with the run din\.base\.0"):
        folder.results()


def test_a_half_written_run_is_no_run(tmp_path):
    folder = opened(tmp_path)
    half = tmp_path / "runs" / ".din.base.0.json.4711.part"
    half.write_text('{"task"')
    assert folder.results() == []
    assert not folder.done("din", "base", 0)
    opened(tmp_path)
    assert not half.exists()


def test_runs_of_other_data_are_not_saved(tmp_path):
    folder = opened(tmp_path)
    with pytest.raises(SettingsError, match="d5"):
        folder.save(run(data_hash="d5"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_run_with_nan_is_not_saved(tmp_path, value):
    folder = opened(tmp_path)
    with pytest.raises(SettingsError, match="finite"):
        folder.save(run(auc=value))
    assert folder.results() == []


@pytest.mark.parametrize("name", ["../out", "<script>", "a.b", "", "a/b"])
def test_names_cannot_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(SettingsError, match="the name"):
        opened(tmp_path / "out", msgspec.structs.replace(PLAN, arms=(name,)))
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="the name"):
        opened(tmp_path).save(run(arm=name))


def test_two_evaluations_never_share_a_folder(tmp_path):
    more = msgspec.structs.replace(PLAN, seeds=(7,))
    with RunFolder.hold(tmp_path, PLAN) as folder:
        with pytest.raises(SettingsError, match="another evaluation"):
            opened(tmp_path, more)
        folder.save(run())
    assert RunFolder.read(tmp_path).plans == [PLAN]  # the refused one left nothing
    assert opened(tmp_path, more).plans == [PLAN, more]


def test_a_folder_is_let_go_by_an_evaluation_that_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder.hold(tmp_path, PLAN):
        raise ZeroDivisionError
    assert opened(tmp_path).plans == [PLAN]


def test_another_encoder_is_refused(tmp_path):
    one, other = (msgspec.structs.replace(PLAN, encoder=name) for name in ("one/int8", "other/int8"))
    opened(tmp_path, one)
    with pytest.raises(SettingsError, match=r"encoder one/int8; wanted encoder other/int8;.*--out"):
        opened(tmp_path, other)
    assert opened(tmp_path, one).plans == [one]


def test_a_plan_without_an_encoder_fits_any(tmp_path):
    """It reads no vectors, or is of a release that did not write the encoder down."""
    opened(tmp_path)
    named = msgspec.structs.replace(PLAN, encoder="one/int8")
    assert opened(tmp_path, named).plans == [PLAN, named]
    assert opened(tmp_path).plans == [PLAN, named]
    with pytest.raises(SettingsError, match="encoder one/int8"):
        opened(tmp_path, msgspec.structs.replace(PLAN, encoder="other/int8"))


def test_a_plan_of_a_release_without_encoders_is_read(tmp_path):
    opened(tmp_path)
    file = tmp_path / "evaluation.json"
    raw = msgspec.json.decode(file.read_bytes())
    del raw["plans"][0]["encoder"]
    file.write_bytes(msgspec.json.encode(raw))
    assert opened(tmp_path).plans == [PLAN]
