from __future__ import annotations

from dataclasses import replace
from typing import get_args

import torch

from contracts.settings import Backbone, load_settings
from hein.network import HEIN, HeinConfig
from ranker.backbones import BACKBONES
from ranker.backbones.embedding import DENSE_ROWS
from ranker.crm import CRM, CRMConfig, JointModel, build_optimizers
from ranker.features import FeatureConfig, Features
from ranker.offline import build_joint

SIZES = FeatureConfig(user_buckets=50, item_buckets=60, attribute_buckets=20, history=5, n_attributes=3, d_embedding=8)


def joint_of() -> JointModel:
    torch.manual_seed(0)
    hein = HEIN(HeinConfig(d_text=6, d_hidden=8, d_aug=4, n_shared=1, n_dedicated=2, dropout=0.0))
    return JointModel(CRM(CRMConfig(backbone="din", features=SIZES, d_aug=4)), hein)


def batch_of(n: int) -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(
        items=torch.arange(20),
        attributes=torch.randint(0, 20, (20, 3), generator=generator),
        user=torch.randint(1, 50, (n,), generator=generator),
        user_attributes=torch.zeros(n, 0, dtype=torch.long),
        history=torch.randint(1, 20, (n, 5), generator=generator),
        history_liked=torch.randint(1, 4, (n, 5), generator=generator),
        item=torch.randint(1, 20, (n,), generator=generator),
    )


def test_hein_runs_once_per_distinct_row_and_gives_what_row_by_row_gives() -> None:
    joint = joint_of().eval()
    assert joint.hein is not None
    matrix = torch.randn(9, 6)
    users, items = torch.tensor([1, 1, 2, 1, 2]), torch.tensor([3, 4, 3, 3, 4])
    sizes = []
    joint.hein.register_forward_hook(lambda _module, args, _output: sizes.append(len(args[0])))
    together = joint(batch_of(5), users, items, matrix)
    assert sizes == [2, 2]
    plain = joint.crm(batch_of(5), joint.hein(matrix[users], "user"), joint.hein(matrix[items], "item"))
    torch.testing.assert_close(together, plain)


def test_row_zero_is_the_default_vector_whatever_the_matrix_holds() -> None:
    joint = joint_of().eval()
    missing = torch.zeros(5, dtype=torch.long)
    torch.testing.assert_close(joint(batch_of(5), missing, missing, torch.randn(9, 6)), joint.crm(batch_of(5)))


def test_one_loss_trains_hein_through_both_streams() -> None:
    joint = joint_of()
    joint(batch_of(5), torch.arange(1, 6), torch.arange(1, 6), torch.randn(9, 6)).sum().backward()
    assert joint.hein is not None
    assert all(p.grad is not None and p.grad.any() for name, p in joint.hein.named_parameters() if "w1" in name or "gate" in name)


def test_the_base_arm_has_no_knowledge_and_the_other_is_sized_by_the_settings() -> None:
    settings = load_settings(model={"hash_buckets": 64}, hein={"d_aug": 5, "n_shared": 3})
    base = build_joint(settings, 0, base=True)
    assert base.hein is None
    assert base.crm.config.d_aug == 0
    knowing = build_joint(settings, 6)
    assert knowing.hein is not None
    assert (knowing.crm.config.d_aug, knowing.hein.config.d_text, knowing.hein.config.n_shared) == (5, 6, 3)


def test_a_large_table_moves_in_the_rows_of_the_batch_alone() -> None:
    config = replace(SIZES, item_buckets=DENSE_ROWS + 1)
    crm = CRM(CRMConfig(backbone="din", features=config, d_aug=0))
    before = {name: weight.detach().clone() for name, weight in crm.named_parameters()}
    optimizers = build_optimizers(crm, 0.01)
    for _ in range(3):
        crm.zero_grad()
        crm(batch_of(5)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["SparseAdam", "AdamW"]
    moved = {name: (weight != before[name]) for name, weight in crm.named_parameters()}
    rows = moved["backbone.embedding.item.weight"].any(dim=1).nonzero().flatten()
    assert set(rows.tolist()) <= set(range(1, 20))
    assert len(rows) > 5
    assert all(changed.any() for changed in moved.values())


def test_the_setting_offers_every_backbone_that_there_is() -> None:
    assert set(get_args(Backbone)) == set(BACKBONES)
