"""What every backbone must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from contracts.errors import VectorError
from ranker.backbones import BACKBONES
from ranker.checkpoint import load_crm, save_version
from ranker.crm import CRM, CRMConfig, JointModel, build_optimizers
from ranker.features import FeatureConfig, Features

D_AUG = 4
N_ROWS = 40
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIZES = FeatureConfig(
    user_buckets=50,
    item_buckets=60,
    attribute_buckets=20,
    history=5,
    n_attributes=3,
    d_embedding=8,
    n_user_attributes=2,
    user_attribute_buckets=8,
)


def crm_of(name: str, d_aug: int = D_AUG) -> CRM:
    torch.manual_seed(0)
    return CRM(CRMConfig(backbone=name, features=SIZES, d_aug=d_aug))


def batch_of(n: int, n_users: int, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(1, high, shape, generator=generator)

    there = torch.arange(SIZES.history) < torch.randint(0, SIZES.history + 1, (n_users, 1), generator=generator)
    attributes = draw(SIZES.attribute_buckets, N_ROWS, SIZES.n_attributes)
    attributes[0] = 0
    attributes[1:4, 1:] = 0  # items with one attribute
    attributes[4] = 0  # and one without
    return Features(
        items=torch.cat([torch.zeros(1, dtype=torch.long), draw(SIZES.item_buckets, N_ROWS - 1)]),
        attributes=attributes,
        user=draw(SIZES.user_buckets, n_users),
        user_attributes=draw(SIZES.user_attribute_buckets, n_users, SIZES.n_user_attributes),
        history=draw(N_ROWS, n_users, SIZES.history) * there,
        history_liked=draw(4, n_users, SIZES.history) * there,
        item=draw(N_ROWS, n),
    )


def vectors_of(n: int, n_users: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n_users, D_AUG, generator=generator), torch.rand(n, D_AUG, generator=generator)


def one_of(features: Features, row: int) -> Features:
    user = row if features.user.shape[0] > 1 else 0
    users = slice(user, user + 1)
    return replace(
        features,
        user=features.user[users],
        user_attributes=features.user_attributes[users],
        history=features.history[users],
        history_liked=features.history_liked[users],
        item=features.item[row : row + 1],
    )


@pytest.fixture(params=sorted(BACKBONES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(("n", "n_users"), [(1, 1), (7, 1), (7, 7)])
@pytest.mark.parametrize("d_aug", [0, D_AUG])
def test_gives_one_logit_per_candidate(name: str, n: int, n_users: int, d_aug: int) -> None:
    crm = crm_of(name, d_aug).eval()
    features = batch_of(n, n_users)
    users, items = vectors_of(n, n_users)
    assert crm(features, users[:, :d_aug], items[:, :d_aug]).shape == (n,)
    assert crm.attention(features).shape == (n, SIZES.history)


def test_gives_no_logits_for_no_candidates(name: str) -> None:
    assert crm_of(name).eval()(batch_of(0, 1)).shape == (0,)


def test_one_user_for_all_candidates_scores_like_the_user_repeated(name: str) -> None:
    crm = crm_of(name).eval()
    users, items = vectors_of(9, 1)
    shared = batch_of(9, 1, seed=3)
    torch.testing.assert_close(
        crm(shared, users, items), crm(shared.per_item(), users.expand(9, -1), items), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("n_users", [1, 9])
def test_score_of_an_item_in_a_batch_is_its_score_alone(name: str, n_users: int) -> None:
    crm = crm_of(name)
    crm(batch_of(64, 64))  # running statistics that are not the initial ones
    crm.eval()
    features = batch_of(9, n_users)
    users, items = vectors_of(9, n_users)
    together = crm(features, users, items)
    for row in range(9):
        user = users[row : row + 1] if n_users > 1 else users
        alone = crm(one_of(features, row), user, items[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)


def test_what_padding_holds_does_not_matter(name: str) -> None:
    crm = crm_of(name).eval()
    features = batch_of(6, 6)
    padding = features.history == 0
    assert padding.any()
    other = replace(features, history_liked=torch.where(padding, 2, features.history_liked))
    torch.testing.assert_close(crm(other), crm(features))
    assert (crm.attention(features)[padding] == 0).all()


def test_the_history_counts(name: str) -> None:
    crm = crm_of(name).eval()
    features = batch_of(6, 1, seed=3)
    assert features.history.any()
    nothing = replace(
        features, history=torch.zeros_like(features.history), history_liked=torch.zeros_like(features.history_liked)
    )
    assert not torch.allclose(crm(features), crm(nothing))


def test_attributes_of_the_user_count(name: str) -> None:
    crm = crm_of(name).eval()
    features = batch_of(6, 1, seed=3)
    other = replace(features, user_attributes=features.user_attributes % 6 + 1)
    assert not torch.allclose(crm(features), crm(other))


def test_reads_no_user_attributes_where_there_are_none(name: str) -> None:
    sizes = replace(SIZES, n_user_attributes=0, user_attribute_buckets=1)
    crm = CRM(CRMConfig(backbone=name, features=sizes, d_aug=D_AUG)).eval()
    features = replace(batch_of(6, 1), user_attributes=torch.zeros(1, 0, dtype=torch.long))
    assert crm(features).shape == (6,)


def test_gradients_reach_every_parameter(name: str) -> None:
    crm = crm_of(name)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in crm.parameters():  # away from zeros and other saddles of the initialisation
            parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.1)
    features = batch_of(32, 32)
    users, items = (vectors.requires_grad_() for vectors in vectors_of(32, 32))
    torch.nn.functional.binary_cross_entropy_with_logits(crm(features, users, items), torch.arange(32) % 2 * 1.0).backward()
    without = [key for key, parameter in crm.named_parameters() if parameter.grad is None or not parameter.grad.to_dense().any()]
    assert without == []
    assert all(vectors.grad is not None and bool(vectors.grad.any()) for vectors in (users, items))


def test_overfits_one_batch(name: str) -> None:
    crm = crm_of(name)
    features, labels = batch_of(16, 16), (torch.arange(16) % 2).float()
    optimizers = build_optimizers(crm, 1e-2)
    for _ in range(150):
        crm.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(crm(features), labels)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05


def test_a_missing_vector_is_zeros(name: str) -> None:
    crm = crm_of(name).eval()
    features = batch_of(5, 1)
    zeros = crm(features, torch.zeros(1, D_AUG), torch.zeros(5, D_AUG))
    torch.testing.assert_close(crm(features), zeros)
    users, items = vectors_of(5, 1)
    assert not torch.allclose(crm(features, users, items), zeros)


@pytest.mark.parametrize("wrong", [(2, D_AUG), (1, D_AUG + 1)])
def test_a_vector_of_another_size_is_refused(name: str, wrong: tuple[int, int]) -> None:
    with pytest.raises(VectorError, match=r"wanted \(1, 4\)"):
        crm_of(name).eval()(batch_of(5, 1), torch.zeros(wrong), None)


def test_weights_saved_and_loaded_score_the_same(name: str) -> None:
    crm, other = crm_of(name), crm_of(name)
    with torch.no_grad():
        for parameter in crm.parameters():
            parameter.add_(0.01)
    other.load_state_dict(crm.state_dict())
    features = batch_of(5, 1)
    assert torch.equal(crm.eval()(features), other.eval()(features))


def train_once(crm: CRM) -> None:
    """One step on one batch: weights and running statistics that are not the initial ones."""
    users, items = vectors_of(64, 64)
    nn.functional.binary_cross_entropy_with_logits(crm(batch_of(64, 64), users, items), torch.arange(64) % 2 * 1.0).backward()
    for optimizer in build_optimizers(crm, 1e-2):
        optimizer.step()


@pytest.fixture
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU would round a GRU's inputs to ten bits by default."""
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")


@pytest.mark.usefixtures("no_tf32")
@pytest.mark.parametrize("device", DEVICES)
def test_scores_like_float64_on_every_device(name: str, device: str) -> None:
    crm = crm_of(name)
    train_once(crm)
    crm.eval()
    features, (users, items) = batch_of(33, 33), vectors_of(33, 33)
    with torch.inference_mode():
        scores = crm.to(device)(features.to(device), users.to(device), items.to(device)).cpu()
        seen = crm.attention(features.to(device)).cpu()
        exact = crm.to("cpu").double()
        torch.testing.assert_close(scores.double(), exact(features, users.double(), items.double()), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.double(), exact.attention(features).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("no_tf32")
@pytest.mark.parametrize("device", DEVICES)
def test_learns_like_float64_on_every_device(name: str, device: str) -> None:
    features, (users, items), labels = batch_of(32, 32), vectors_of(32, 32), torch.arange(32) % 2 * 1.0

    def gradients(device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        crm = crm_of(name).to(device, dtype)
        logits = crm(features.to(device), users.to(device, dtype), items.to(device, dtype))
        nn.functional.binary_cross_entropy_with_logits(logits, labels.to(device, dtype)).backward()
        return {key: p.grad.to_dense().cpu().double() for key, p in crm.named_parameters() if p.grad is not None}

    found, exact = gradients(device, torch.float32), gradients("cpu", torch.float64)
    assert found.keys() == exact.keys()
    for key, wanted in exact.items():
        torch.testing.assert_close(found[key], wanted, rtol=1e-3, atol=1e-5 + 1e-4 * wanted.abs().max().item(), msg=key)


def test_a_trained_model_saved_and_loaded_scores_the_same(name: str, tmp_path: Path) -> None:
    crm = crm_of(name)
    train_once(crm)
    manifest = save_version(
        tmp_path, JointModel(crm, None), version=1, encoder="e", d_text=8, collection="c", metrics={}, n_samples=64
    )
    features, (users, items) = batch_of(9, 9, seed=1), vectors_of(9, 9)
    assert torch.equal(load_crm(tmp_path, manifest)(features, users, items), crm.eval()(features, users, items))


def test_a_user_without_history_is_scored_and_learnt_from(name: str) -> None:
    crm = crm_of(name)
    none = torch.zeros(4, SIZES.history, dtype=torch.long)
    features = replace(batch_of(4, 4), history=none, history_liked=none)
    logits = crm(features)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad.to_dense().isfinite().all() for parameter in crm.parameters() if parameter.grad is not None)
    assert not crm.eval().attention(features).any()


def test_what_the_padding_row_names_does_not_matter(name: str) -> None:
    crm = crm_of(name).eval()
    features = batch_of(6, 6)
    items, attributes = features.items.clone(), features.attributes.clone()
    items[0], attributes[0] = 7, 3
    torch.testing.assert_close(crm(replace(features, items=items, attributes=attributes)), crm(features))


def test_every_part_of_the_input_counts(name: str) -> None:
    crm = crm_of(name).eval()
    features, (users, items) = batch_of(6, 1, seed=3), vectors_of(6, 1)
    scores = crm(features, users, items)
    others = {
        "user": crm(replace(features, user=features.user % 40 + 1), users, items),
        "item": crm(replace(features, items=features.items.roll(7) * (torch.arange(N_ROWS) > 0)), users, items),
        "attributes": crm(replace(features, attributes=features.attributes.roll(7, 0)), users, items),
        "what was liked": crm(replace(features, history_liked=features.history_liked % 3 + (features.history > 0)), users, items),
        "vector of the user": crm(features, users + 1, items),
        "vectors of the items": crm(features, users, items + 1),
    }
    assert [what for what, other in others.items() if torch.allclose(other, scores, rtol=1e-6, atol=1e-7)] == []


def test_one_missing_side_is_zeros_and_leaves_the_other(name: str) -> None:
    crm = crm_of(name).eval()
    features, (users, items) = batch_of(5, 1), vectors_of(5, 1)
    torch.testing.assert_close(crm(features, users, None), crm(features, users, torch.zeros_like(items)))
    torch.testing.assert_close(crm(features, None, items), crm(features, torch.zeros_like(users), items))
    assert not torch.allclose(crm(features, users, None), crm(features))


@pytest.mark.parametrize("d_aug", [0, SIZES.d_embedding])
def test_has_no_idle_parameter_without_vectors_or_with_vectors_of_the_size_of_an_embedding(name: str, d_aug: int) -> None:
    crm = crm_of(name, d_aug)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in crm.parameters():  # away from zeros and other saddles of the initialisation
            parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.1)
    logits = crm(batch_of(32, 32), torch.rand(32, d_aug, generator=generator), torch.rand(32, d_aug, generator=generator))
    nn.functional.binary_cross_entropy_with_logits(logits, torch.arange(32) % 2 * 1.0).backward()
    idle = [key for key, parameter in crm.named_parameters() if parameter.grad is None or not parameter.grad.to_dense().any()]
    assert idle == []


def test_learns_from_the_smallest_batch(name: str) -> None:
    crm = crm_of(name)
    loss = nn.functional.binary_cross_entropy_with_logits(crm(batch_of(2, 2)), torch.tensor([0.0, 1.0]))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.to_dense().isfinite().all() for parameter in crm.parameters() if parameter.grad is not None)
