"""AUGRU: a GRU whose update gate is scaled by attention (Zhou et al., AAAI 2019, arXiv 1809.03672, interest evolving layer).

    u_t = sigmoid(W_u i_t + U_u h_{t-1} + b_u)            h~_t = tanh(W_h i_t + r_t * (U_h h_{t-1}) + b_h)
    r_t = sigmoid(W_r i_t + U_r h_{t-1} + b_r)            h_t = (1 - a_t u_t) * h_{t-1} + a_t u_t * h~_t

An input with a_t = 0 leaves the state as it is, so padding needs no mask of its own. The authors' code differs: its gate is the
share of the old state that is kept, and that one is scaled by 1 - a_t, so an input without attention still moves the state; and
r_t stands inside the product, U_h (r_t * h_{t-1}). This follows the paper, as DeepCTR-Torch and FuxiCTR do.

Shapes: B candidates or samples, U users (B or 1), H history, d state.
"""

from __future__ import annotations

from torch import Tensor, nn


class AUGRU(nn.Module):
    """The last state of a sequence under attention.

    Args:
        d: Size of an input and of the state.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.d = d
        self.input = nn.Linear(d, 3 * d)  # W_u, W_r, W_h and their biases
        self.state = nn.Linear(d, 3 * d, bias=False)  # U_u, U_r, U_h

    def forward(self, inputs: Tensor, attention: Tensor) -> Tensor:
        """Run over the sequence.

        Args:
            inputs: (U, H, d); their products are computed once per user.
            attention: (B, H), 0 at padding.

        Returns:
            (B, d)
        """
        given = self.input(inputs).unbind(1)  # H times (U, 3 d); unbound at once: a slice per step costs a gradient of all steps
        state = inputs.new_zeros(attention.shape[0], self.d)  # (B, d)
        for of_input, weight in zip(given, attention.unsqueeze(2).unbind(1), strict=True):  # (U, 3 d), (B, 1)
            gates_given, new_given = of_input.split([2 * self.d, self.d], dim=1)  # (U, 2 d), (U, d)
            gates_state, new_state = self.state(state).split([2 * self.d, self.d], dim=1)  # (B, 2 d), (B, d)
            update, reset = (gates_given + gates_state).sigmoid().chunk(2, dim=1)  # (B, d) each
            candidate = (new_given + reset * new_state).tanh()  # (B, d)
            state = state + weight * update * (candidate - state)  # (B, d)
        return state
