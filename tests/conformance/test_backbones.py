"""What every backbone must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from contracts.errors import VectorError
from ranker.backbones import BACKBONES
from ranker.crm import CRM, CRMConfig, build_optimizers
from ranker.features import FeatureConfig, Features

D_AUG = 4
N_ROWS = 40
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
