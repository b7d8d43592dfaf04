"""SLAttention: a set of candidates and a list of history items attend to each other (MIR, arXiv 2204.09370).

The affinity of history item h and candidate k is of items, q W_b v, and of features: every feature of the one with every
feature of the other, q_f W_f v_g, weighed and summed by one kernel over the pairs (f, g). It counts once for the long-term
interest, and once more, fading with the age of the history item at the user's own rate theta, for the short-term one:
    C = tanh(F + F exp(-theta age)).
From C come two attention maps, candidates over candidates and candidates over history:
    A_v = softmax(tanh(S + R^T C)),  A_q = softmax(tanh(R^T + S C^T)).

S and R are the authors' V W_v and Q W_q. In their code (and in KAR's) W_v and W_q have one column per place of the list, which
ties weights to places: the model is then not invariant to the order of the candidates, which the paper claims and proves, and
reads lists of one length only. Here the column of a place is made of the candidate that stands there, W_v v and W_q v, so S = V
W_v V^T and R = Q W_q V^T. Other differences: theta >= 0 by softplus, where the authors' code has a ReLU (which may die) and a
rising exponent; age counts history items, newest 0, because a batch holds no times. products with V are divided by the root of
d_v, as in any attention, or the tanh would saturate and pass no gradient. KAR leaves the decay out.

Shapes: L lists, K places, H history, d_v candidate, d_q history item, F_v and F_q features of d numbers each, d_u user.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

DECAY: Final = 32  # hidden units behind theta: the authors' code
_NOTHING: Final = 1e-9  # keeps a softmax over nothing at zero


class SLAttention(nn.Module):
    """Set-to-list attention.

    Args:
        d_v: Size of a candidate.
        d_q: Size of a history item.
        d_user: Size of what theta is made of.
        d: Size of a feature.
        n_features: F_q and F_v.
    """

    def __init__(self, d_v: int, d_q: int, d_user: int, d: int, n_features: tuple[int, int]) -> None:
        super().__init__()
        self.item_level = _matrix(d_q, d_v)  # W_b
        self.feature_level = _matrix(d, d)  # W_f
        self.kernel = nn.Parameter(torch.full(n_features, 1 / (n_features[0] * n_features[1])))  # (F_q, F_v)
        self.theta = nn.Sequential(nn.Linear(d_user, DECAY), nn.ReLU(), nn.Linear(DECAY, 1), nn.Softplus())
        self.candidate = _matrix(d_v, d_v)  # W_v
        self.history = _matrix(d_q, d_v)  # W_q
        self.scale = d_v**-0.5

    def forward(self, v: Tensor, q: Tensor, affinity: Tensor, present: Tensor, history_present: Tensor) -> tuple[Tensor, Tensor]:
        """What each candidate draws from the candidates and from the history.

        Args:
            v: Candidates, (L, K, d_v).
            q: History items, (L, H, d_q).
            affinity: C of `affinity`, (L, H, K).
            present: (L, K) bool.
            history_present: (L, H) bool.

        Returns:
            (L, K, d_v) and (L, K, d_q), zeros where there is no history.
        """
        c = affinity * (history_present.unsqueeze(2) & present.unsqueeze(1))  # (L, H, K)
        keys = v.transpose(1, 2) * self.scale  # (L, d_v, K)
        s = (v @ self.candidate) @ keys  # (L, K, K)
        r = ((q @ self.history) @ keys).transpose(1, 2)  # (L, K, H), R^T
        over_candidates = _softmax(torch.tanh(s + r @ c), present)  # (L, K, K)
        over_history = _softmax(torch.tanh(r + s @ c.transpose(1, 2)), history_present)  # (L, K, H)
        return over_candidates @ v, over_history @ q

    def affinity(self, v: Tensor, q: Tensor, v_features: Tensor, q_features: Tensor, faded: Tensor) -> Tensor:
        """C, (L, H, K).

        Args:
            v: (L, K, d_v).
            q: (L, H, d_q).
            v_features: (L, K, F_v, d).
            q_features: (L, H, F_q, d).
            faded: What is left of each history item as a short-term interest, (L, H), see `fade`.
        """
        items = (q @ self.item_level) @ v.transpose(1, 2) * self.scale  # (L, H, K)
        mixed = torch.einsum(
            "fg,lkgd->lkfd", self.kernel, v_features
        )  # (L, K, F_q, d): the sum over g first, it is the cheaper one
        features = (q_features @ self.feature_level).flatten(2) @ mixed.flatten(2).transpose(1, 2)  # (L, H, K)
        together = items + features
        return torch.tanh(together + together * faded.unsqueeze(2))

    def fade(self, user: Tensor, history_present: Tensor) -> Tensor:
        """exp(-theta age), (L, H), of users (L, d_u) with histories of which (L, H) is there, oldest first."""
        age = history_present.sum(dim=1, keepdim=True) - 1 - torch.arange(history_present.shape[1], device=user.device)  # (L, H)
        return torch.exp(-self.theta(user) * age.clamp(min=0))


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(rows, columns)))


def _softmax(bounded: Tensor, present: Tensor) -> Tensor:
    """Softmax of (L, K, J) in -1..1 over those J that are ``present`` (L, J); zeros where none is."""
    return functional.normalize(bounded.exp() * present.unsqueeze(1), p=1, dim=2, eps=_NOTHING)
