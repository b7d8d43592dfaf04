"""Weights and optimiser moments of online learning as named arrays, small enough to be written every few seconds.

A table has 65,536 rows and a stream touches few of them, so tables are kept as the rows that differ: weights from the frozen
twin, moments from zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

Arrays = dict[str, NDArray[Any]]
MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam and of SparseAdam


def changed_weights(network: nn.Module, base: nn.Module) -> Arrays:
    """What of a network differs from another one of the same shape."""
    before = base.state_dict()
    arrays: Arrays = {}
    for name, tensor in network.state_dict().items():
        arrays |= _changed(f"weights.{name}", tensor, before[name])
    return arrays


def restore_weights(network: nn.Module, base: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Undo `changed_weights`.

    Raises:
        KeyError: If an array is missing.
        RuntimeError: If a shape differs.
    """
    network.load_state_dict({name: _rebuilt(f"weights.{name}", arrays, old) for name, old in base.state_dict().items()})


def optimizer_state(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[dict[str, float], Arrays]:
    """Step counts by parameter, and moments, of Adam and SparseAdam."""
    steps: dict[str, float] = {}
    arrays: Arrays = {}
    for name, optimizer, parameter in _parameters(optimizers):
        state = optimizer.state.get(parameter)
        if state:
            steps[name] = float(state["step"])
            for moment in MOMENTS:
                arrays |= _changed(f"{name}.{moment}", state[moment], torch.zeros_like(state[moment]))
    return steps, arrays


def restore_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], steps: Mapping[str, float], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Undo `optimizer_state` on fresh optimisers of the same parameters.

    Raises:
        KeyError: If an array is missing.
        RuntimeError: If a shape differs.
    """
    for name, optimizer, parameter in _parameters(optimizers):
        if name in steps:
            zeros = torch.zeros_like(parameter, requires_grad=False)
            moments = {moment: _rebuilt(f"{name}.{moment}", arrays, zeros) for moment in MOMENTS}
            counted = isinstance(optimizer, torch.optim.SparseAdam)  # it counts in an int, Adam in a tensor
            step = int(steps[name]) if counted else torch.tensor(steps[name], dtype=torch.float32)
            optimizer.state[parameter] = {"step": step, **moments}


def _parameters(
    optimizers: Sequence[torch.optim.Optimizer],
) -> Iterator[tuple[str, torch.optim.Optimizer, torch.nn.Parameter]]:
    for number, optimizer in enumerate(optimizers):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            yield f"optimizer.{number}.{index}", optimizer, parameter


def _changed(name: str, tensor: Tensor, base: Tensor) -> Arrays:
    new = tensor.detach().cpu()
    if new.dim() == 0:
        return {f"{name}.whole": new.numpy().copy()}
    rows = torch.nonzero((new != base).flatten(1).any(dim=1) if new.dim() > 1 else new != base).flatten()  # (n,)
    return {f"{name}.rows": rows.numpy(), f"{name}.values": new[rows].numpy()}


def _rebuilt(name: str, arrays: Mapping[str, NDArray[Any]], base: Tensor) -> Tensor:
    if base.dim() == 0:
        return torch.from_numpy(np.array(arrays[f"{name}.whole"]))
    whole = base.detach().clone()
    rows = torch.from_numpy(arrays[f"{name}.rows"].copy())
    values = torch.from_numpy(arrays[f"{name}.values"].copy())
    if values.shape[1:] != whole.shape[1:] or (len(rows) and int(rows.max()) >= len(whole)):
        raise RuntimeError(f"{name} of shape {tuple(values.shape)} does not fit into {tuple(whole.shape)}")
    whole[rows] = values
    return whole
