from __future__ import annotations

import msgspec
import pytest
import torch

from contracts.errors import CheckpointError
from contracts.records import ModelManifest
from contracts.settings import load_settings
from ranker.checkpoint import (
    as_trained,
    load_crm,
    load_hein,
    next_version,
    read_manifest,
    save_step,
    save_version,
    write_manifest,
)
from ranker.crm import JointModel
from ranker.offline import build_joint


@pytest.fixture
def joint() -> JointModel:
    torch.manual_seed(0)
    return build_joint(load_settings(model={"hash_buckets": 64, "d_embedding": 8}, hein={"d_aug": 4, "d_hidden": 8}), 6)


def save(folder, joint: JointModel, version: int = 1, keep: int = 3) -> ModelManifest:
    return save_version(
        folder,
        joint,
        version=version,
        encoder="toy",
        d_text=6,
        collection=f"augmented_v{version}",
        metrics={"auc": 0.5},
        n_samples=9,
        keep=keep,
    )


def test_what_is_saved_is_loaded_in_eval_mode(tmp_path, joint: JointModel) -> None:
    manifest = save(tmp_path, joint)
    crm, hein = load_crm(tmp_path, manifest), load_hein(tmp_path, manifest)
    assert not crm.training
    assert not hein.training
    assert crm.config == joint.crm.config
    for mine, theirs in ((crm, joint.crm), (hein, joint.hein)):
        assert theirs is not None
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())
    assert read_manifest(tmp_path) == manifest
    assert manifest.weights == "v0001/step-000000.safetensors"
    assert manifest.state == "trained"


def test_the_base_arm_has_no_hein(tmp_path) -> None:
    manifest = save(tmp_path, build_joint(load_settings(model={"hash_buckets": 64}), 0, base=True))
    assert load_crm(tmp_path, manifest).config.d_aug == 0
    with pytest.raises(CheckpointError, match=r"hein\.safetensors"):
        load_hein(tmp_path, manifest)


def test_a_step_keeps_version_hein_and_collection(tmp_path, joint: JointModel) -> None:
    first = save(tmp_path, joint)
    before = joint.crm.state_dict()["backbone.embedding.item.weight"].clone()
    with torch.no_grad():
        joint.crm.get_parameter("backbone.embedding.item.weight").add_(1)
    second = save_step(tmp_path, joint.crm, first, step=1, metrics={}, n_samples=20)
    assert (second.version, second.step, second.collection, second.hein_sha256) == (1, 1, first.collection, first.hein_sha256)
    assert torch.equal(load_crm(tmp_path, first).state_dict()["backbone.embedding.item.weight"], before)
    assert not torch.equal(load_crm(tmp_path, second).state_dict()["backbone.embedding.item.weight"], before)
    assert torch.equal(load_crm(tmp_path, as_trained(second)).state_dict()["backbone.embedding.item.weight"], before)
    assert load_hein(tmp_path, second)
    assert read_manifest(tmp_path, 1) == second


def test_only_the_last_steps_and_versions_stay(tmp_path, joint: JointModel) -> None:
    manifest = save(tmp_path, joint)
    for step in range(1, 6):
        manifest = save_step(tmp_path, joint.crm, manifest, step=step, metrics={}, n_samples=0, keep=2)
    assert sorted(p.name for p in (tmp_path / "v0001").iterdir()) == [
        "hein.safetensors",
        "manifest.json",
        "step-000000.safetensors",
        "step-000004.safetensors",
        "step-000005.safetensors",
    ]
    for version in (2, 3):
        save(tmp_path, joint, version, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v0002", "v0003"]


def test_the_step_just_written_stays_where_a_killed_run_left_later_ones(tmp_path, joint: JointModel) -> None:
    manifest = save(tmp_path, joint)
    for step in (7, 8, 9):
        save_step(tmp_path, joint.crm, manifest, step=step, metrics={}, n_samples=0, keep=2)
    again = save_step(tmp_path, joint.crm, manifest, step=2, metrics={}, n_samples=0, keep=1)
    assert load_crm(tmp_path, again)


def test_versions_count_on_and_a_half_written_one_is_used_again(tmp_path, joint: JointModel) -> None:
    assert next_version(tmp_path) == 1
    assert read_manifest(tmp_path) is None
    save(tmp_path, joint)
    (tmp_path / "v0002").mkdir()
    assert next_version(tmp_path) == 2


def test_a_new_state_keeps_the_weights(tmp_path, joint: JointModel) -> None:
    ready = msgspec.structs.replace(save(tmp_path, joint), state="ready")
    write_manifest(tmp_path, ready)
    assert read_manifest(tmp_path, 1) == ready
    assert load_crm(tmp_path, ready)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "not safetensors", "other shape", "other kind"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path, joint: JointModel, damage: str) -> None:
    import hashlib

    manifest = save(tmp_path, joint)
    path = tmp_path / manifest.weights
    content = path.read_bytes()
    rehash = damage in {"not safetensors", "other shape", "other kind"}
    if damage == "missing":
        path.unlink()
    else:
        changed = {
            "cut": content[:-10],
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "not safetensors": b"\x80\x04pickle",
            "other shape": content.replace(b'\\"history\\": 20', b'\\"history\\": 21').replace(
                b'\\"user_buckets\\": 64', b'\\"user_buckets\\": 65'
            ),
            "other kind": (tmp_path / "v0001" / "hein.safetensors").read_bytes(),
        }[damage]
        assert changed != content
        path.write_bytes(changed)
        if rehash:
            manifest = msgspec.structs.replace(manifest, sha256=hashlib.sha256(changed).hexdigest())
    with pytest.raises(CheckpointError, match=r"(?s)step-000000\.safetensors.*wanted.*train a new version"):
        load_crm(tmp_path, manifest)


def test_a_damaged_manifest_is_named(tmp_path, joint: JointModel) -> None:
    save(tmp_path, joint)
    (tmp_path / "v0001" / "manifest.json").write_text('{"version": 1}')
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_no_temporary_file_stays(tmp_path, joint: JointModel) -> None:
    manifest = save(tmp_path, joint)
    assert not list(tmp_path.rglob("*.part"))
    (tmp_path / "v0001" / ".step-000001.safetensors.77.part").write_bytes(b"half")
    save_step(tmp_path, joint.crm, manifest, step=1, metrics={}, n_samples=0)
    assert not list(tmp_path.rglob("*.part"))
