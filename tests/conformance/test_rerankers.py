"""What every re-ranker must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from contracts.errors import CheckpointError, VectorError
from ranker.crm import build_optimizers
from ranker.evaluation.rerank_training import list_loss
from ranker.features import FeatureConfig, Features
from ranker.rerankers import RERANKERS, Reranker, build_reranker

D_AUG = 4
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
N_PLACES = 6
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
READ_THE_ORDER = ["dlcm", "prm", "setrank"]

Inputs = tuple[Features, Tensor, Tensor, Tensor, Tensor]


def reranker_of(name: str, d_aug: int = D_AUG) -> Reranker:
    torch.manual_seed(0)
    return build_reranker(name, SIZES, d_aug, N_PLACES)


def lists_of(n_lists: int, n_items: int, n_history: int = 5, seed: int = 0, *, full: bool = False) -> Inputs:
    """Features, vectors of users and items, initial scores, present; unless ``full`` most lists have empty places at the end."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(1, high, shape, generator=generator)

    known = torch.arange(n_history) < torch.randint(0, n_history + 1, (n_lists, 1), generator=generator)
    length = torch.full((n_lists, 1), n_items) if full else torch.randint(1, n_items + 1, (n_lists, 1), generator=generator)
    present = torch.arange(n_items) < length
    attributes = draw(SIZES.attribute_buckets, N_ROWS, SIZES.n_attributes)
    attributes[0] = 0
    features = Features(
        items=torch.cat([torch.zeros(1, dtype=torch.long), draw(SIZES.item_buckets, N_ROWS - 1)]),
        attributes=attributes,
        user=draw(SIZES.user_buckets, n_lists),
        user_attributes=draw(SIZES.user_attribute_buckets, n_lists, SIZES.n_user_attributes),
        history=draw(N_ROWS, n_lists, n_history) * known,
        history_liked=draw(4, n_lists, n_history) * known,
        item=(draw(N_ROWS, n_lists, n_items) * present).flatten(),
    )
    users, items = torch.rand(n_lists, D_AUG, generator=generator), torch.rand(n_lists * n_items, D_AUG, generator=generator)
    initial = torch.rand(n_lists, n_items, generator=generator).sort(dim=1, descending=True).values
    return features, users, items, initial, present


def one_of(inputs: Inputs, row: int, n_items: int | None = None) -> Inputs:
    """List ``row`` alone, of its first ``n_items`` places."""
    features, users, items, initial, present = inputs
    one, wide = slice(row, row + 1), initial.shape[1]
    places = slice(row * wide, row * wide + (n_items or wide))
    alone = replace(
        features,
        user=features.user[one],
        user_attributes=features.user_attributes[one],
        history=features.history[one],
        history_liked=features.history_liked[one],
        item=features.item[places],
    )
    return alone, users[one], items[places], initial[one, :n_items], present[one, :n_items]


def moved(inputs: Inputs, order: Tensor) -> Inputs:
    """All lists with their places in another order, (K,), everything moving together."""
    features, users, items, initial, present = inputs
    shape = initial.shape
    return (
        replace(features, item=features.item.view(shape)[:, order].flatten()),
        users,
        items.view(*shape, -1)[:, order].flatten(0, 1),
        initial[:, order],
        present[:, order],
    )


def as_double(inputs: Inputs) -> Inputs:
    features, users, items, initial, present = inputs
    return features, users.double(), items.double(), initial.double(), present


@pytest.fixture(params=sorted(RERANKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(("n_lists", "n_items", "n_history"), [(1, 1, 1), (3, 6, 5), (7, 2, 9), (2, 4, 1)])
@pytest.mark.parametrize("d_aug", [0, D_AUG])
def test_gives_one_logit_per_place(name: str, n_lists: int, n_items: int, n_history: int, d_aug: int) -> None:
    features, users, items, initial, present = lists_of(n_lists, n_items, n_history)
    logits = reranker_of(name, d_aug)(features, users[:, :d_aug], items[:, :d_aug], initial, present)
    assert logits.shape == (n_lists, n_items)
    assert logits[present].isfinite().all()
    assert (logits[~present] == -torch.inf).all()


def test_gives_no_logits_for_no_lists(name: str) -> None:
    assert reranker_of(name)(*lists_of(0, 4)).shape == (0, 4)


def test_a_list_alone_scores_as_in_a_batch(name: str) -> None:
    model, inputs = reranker_of(name), lists_of(8, N_PLACES)
    together = model(*inputs)  # in training mode: lists do not touch one another there either
    for row in range(8):
        torch.testing.assert_close(model(*one_of(inputs, row))[0], together[row], rtol=1e-5, atol=1e-6)


def test_empty_places_change_nothing(name: str) -> None:
    model, inputs = reranker_of(name), lists_of(8, N_PLACES)
    together, lengths = model(*inputs), inputs[4].sum(dim=1)
    assert len(set(lengths.tolist())) > 2
    for row, length in enumerate(lengths.tolist()):
        cut = model(*one_of(inputs, row, length))
        torch.testing.assert_close(cut[0], together[row, :length], rtol=1e-5, atol=1e-6)


def test_what_empty_places_hold_does_not_matter(name: str) -> None:
    model, (features, users, items, initial, present) = reranker_of(name), lists_of(8, N_PLACES)
    empty = ~present.flatten()
    other = replace(features, item=torch.where(empty, 7, features.item))
    others = model(other, users, items + 5 * empty.unsqueeze(1), initial + 9 * ~present, present)
    torch.testing.assert_close(others, model(features, users, items, initial, present))


def test_empty_places_may_stand_anywhere(name: str) -> None:
    model, inputs = reranker_of(name), lists_of(8, N_PLACES)
    order = torch.tensor([5, 3, 1, 0, 4, 2])
    torch.testing.assert_close(model(*moved(inputs, order)), model(*inputs)[:, order], rtol=1e-5, atol=1e-6)


def test_what_padding_of_the_history_holds_does_not_matter(name: str) -> None:
    model, (features, *rest) = reranker_of(name), lists_of(8, N_PLACES)
    padding = features.history == 0
    assert padding.any()
    other = replace(features, history_liked=torch.where(padding, 2, features.history_liked))
    torch.testing.assert_close(model(other, *rest), model(features, *rest))


def test_more_padding_behind_the_history_changes_nothing(name: str) -> None:
    model, (features, *rest) = reranker_of(name), lists_of(8, N_PLACES)
    wide = [torch.nn.functional.pad(column, (0, 5)) for column in (features.history, features.history_liked)]
    other = replace(features, history=wide[0], history_liked=wide[1])
    torch.testing.assert_close(model(other, *rest), model(features, *rest), rtol=1e-5, atol=1e-6)


def test_the_company_of_an_item_counts(name: str) -> None:
    model, (features, users, items, initial, present) = reranker_of(name), lists_of(1, N_PLACES, full=True)
    item = features.item.clone()
    item[-1] = item[-1] % (N_ROWS - 1) + 1
    other = model(replace(features, item=item), users, items, initial, present)
    assert not torch.allclose(other[0, 0], model(features, users, items, initial, present)[0, 0], atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("part", ["user", "user_attributes", "history"])
def test_the_user_counts(name: str, part: str) -> None:
    model, (features, *rest) = reranker_of(name), lists_of(8, N_PLACES, full=True)
    changed = getattr(features, part) % 7 + 1
    other = replace(features, **{part: torch.where(getattr(features, part) == 0, 0, changed)})
    assert not torch.allclose(model(other, *rest), model(features, *rest))


def test_items_that_move_with_their_initial_scores_keep_their_logits(name: str) -> None:
    model, inputs = reranker_of(name), lists_of(5, N_PLACES, full=True)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(model(*moved(inputs, order)), model(*inputs)[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(RERANKERS))
def test_the_initial_order_counts_but_for_mir(name: str) -> None:
    model, (features, users, items, initial, present) = reranker_of(name), lists_of(5, N_PLACES, full=True)
    before, after = (model(features, users, items, one, present) for one in (initial, initial.flip(1)))
    assert torch.allclose(before, after) == (name not in READ_THE_ORDER)


def test_only_the_order_of_the_initial_scores_counts(name: str) -> None:
    model, (features, users, items, initial, present) = reranker_of(name), lists_of(5, N_PLACES)
    assert torch.equal(model(features, users, items, 7 * initial - 3, present), model(features, users, items, initial, present))


def test_without_a_mask_every_place_is_taken(name: str) -> None:
    model, inputs = reranker_of(name), lists_of(5, N_PLACES, full=True)
    assert torch.equal(model(*inputs[:4]), model(*inputs))


def test_gradients_reach_every_parameter_and_both_vectors(name: str) -> None:
    model, (features, users, items, initial, present) = reranker_of(name), lists_of(32, N_PLACES)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():  # away from zeros and other saddles of the initialisation
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    users.requires_grad_()
    items.requires_grad_()
    logits = model(features, users, items, initial, present)
    labels = (torch.rand(logits.shape, generator=generator) < 0.5).float()
    # per item: a loss over the softmax of a list would rightly leave out what shifts all its logits alike
    torch.nn.functional.binary_cross_entropy_with_logits(logits[present], labels[present]).backward()
    without = [
        key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.to_dense().any()
    ]
    assert without == []
    assert all(vectors.grad is not None and bool(vectors.grad.any()) for vectors in (users, items))


def test_an_empty_list_does_not_spoil_the_gradient(name: str) -> None:
    model, (features, users, items, initial, present) = reranker_of(name), lists_of(4, N_PLACES)
    present[2] = False
    list_loss(model(features, users, items, initial, present), torch.ones_like(initial), present).backward()
    assert all(parameter.grad.to_dense().isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_overfits_one_batch(name: str) -> None:
    model, inputs = reranker_of(name), lists_of(16, N_PLACES, full=True)
    labels = torch.zeros(16, N_PLACES).scatter(
        1, torch.randint(0, N_PLACES, (16, 1), generator=torch.Generator().manual_seed(3)), 1
    )
    optimizers = build_optimizers(model, 1e-2)
    for _ in range(60):
        model.zero_grad()
        loss = list_loss(model(*inputs), labels, inputs[4])
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert loss.item() < 0.05


def test_a_missing_vector_is_zeros(name: str) -> None:
    model, (features, users, items, initial, present) = reranker_of(name), lists_of(5, 4)
    zeros = model(features, torch.zeros_like(users), torch.zeros_like(items), initial, present)
    assert torch.equal(model(features, None, None, initial, present), zeros)
    assert not torch.allclose(model(features, users, items, initial, present), zeros)


@pytest.mark.parametrize("wrong", [(4, D_AUG), (5, D_AUG + 1)])
def test_a_vector_of_another_size_is_refused(name: str, wrong: tuple[int, int]) -> None:
    features, _, items, initial, present = lists_of(5, 4)
    with pytest.raises(VectorError, match=r"wanted \(5, 4\)"):
        reranker_of(name)(features, torch.zeros(wrong), items, initial, present)


def test_a_list_that_is_too_long_is_refused(name: str) -> None:
    with pytest.raises(VectorError, match="wanted at most 6"):
        reranker_of(name)(*lists_of(2, N_PLACES + 1))


def test_weights_saved_and_loaded_score_the_same(name: str) -> None:
    model, other = reranker_of(name), reranker_of(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    other.load_state_dict(model.state_dict())
    inputs = lists_of(5, 4)
    assert torch.equal(model(*inputs), other(*inputs))


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_agrees_with_double_precision(name: str, device: str) -> None:
    model, inputs = reranker_of(name), lists_of(8, N_PLACES)
    features, *rest = inputs
    single = model.to(device)(features.to(device), *(tensor.to(device) for tensor in rest)).cpu()
    exact = model.to("cpu").double()(*as_double(inputs)).float()
    tight = device == "cpu"
    torch.testing.assert_close(single, exact, rtol=1e-4 if tight else 1e-3, atol=1e-5 if tight else 1e-4)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(CheckpointError, match="wanted one of dlcm, mir, prm, setrank"):
        build_reranker("listwise", SIZES, D_AUG, N_PLACES)
