"""Fi-GNN: fields are the nodes of a graph and pass messages along weighted edges (Li et al., CIKM 2019, arXiv 1910.05552).

Taken from the paper: first states by self-attention of several heads and ReLU; edge weights by attention over the embeddings of
both ends, normalised over the edges that leave a node, none to itself; messages through a matrix of the sending and one of the
receiving node; a GRU, to which the first state is added; a logit that sums one score a node, times its weight. No first order.
The bias of the aggregation is left to the GRU, whose own absorbs it. As in the authors' code all steps share their weights, a
message passes the sender's matrix before the sum and the receiver's after it (W_out and W_in, read from the left), each
scoring network is one layer, and the weight of a node passes a sigmoid.

Public implementations differ. FuxiCTR, and KAR which follows it, start from the embeddings without self-attention, normalise over
the edges that enter a node (the paper prints A[n_j, n_i] = w(n_j, n_i), with w a softmax over its second node), and weigh all
nodes by one layer over all states; FuxiCTR has other matrices for each step. The authors' own (model_fignn.py) has a graph of
ones instead of attention. RecBole has the self-attention, with a residual, and the rest as FuxiCTR, without the sigmoid.

Shapes: B samples, F fields (nodes), d embedding, H heads, a size of a head, s = H a state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.backbones.fields import FieldBackbone

if TYPE_CHECKING:
    from ranker.features import FeatureConfig

N_STEPS: Final = 2  # as the code of KAR
N_HEADS: Final = 2  # as AutoInt, from where the layer comes
D_HEAD: Final = 16  # so that a state is as large as an embedding of 32, the size of REKI
STATE: Final = N_HEADS * D_HEAD


class FiGNN(FieldBackbone):
    """The graph network over fields.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__(config, d_aug)
        d, n = config.d_embedding, self.n_fields
        self.attend = nn.Linear(d, 3 * STATE, bias=False)  # query, key, value
        self.ends = nn.Linear(d, 2, bias=False)  # W_w of the paper in two halves: sending and receiving end
        self.sending = nn.Parameter(nn.init.xavier_normal_(torch.empty(n, STATE, STATE)))
        self.receiving = nn.Parameter(nn.init.xavier_normal_(torch.empty(n, STATE, STATE)))
        self.update = nn.GRUCell(STATE, STATE)
        self.score = nn.Linear(STATE, 2)  # score and weight of a node
        self.register_buffer("loops", torch.eye(n, dtype=torch.bool), persistent=False)
        self.loops: Tensor

    def meet(self, fields: Tensor) -> Tensor:
        """See `FieldBackbone.meet`."""
        edges = self.edges(fields)  # (B, F, F)
        first = state = self.first_state(fields)  # (B, F, s)
        for _ in range(N_STEPS):
            state = self.step(state, first, edges)  # (B, F, s)
        score, weight = self.score(state).unbind(2)  # (B, F) each
        logits: Tensor = (torch.sigmoid(weight) * score).sum(1)  # (B,)
        return logits

    def first_state(self, fields: Tensor) -> Tensor:
        """Self-attention, (B, F, d) -> (B, F, s)."""
        heads = self.attend(fields).view(*fields.shape[:2], 3, N_HEADS, D_HEAD).permute(2, 0, 3, 1, 4)  # (3, B, H, F, a)
        query, key, value = heads.unbind(0)  # (B, H, F, a) each
        # keys in rows: over a last axis of seven the softmax is slow
        weights = torch.softmax(key @ query.transpose(2, 3) / D_HEAD**0.5, dim=2)  # (B, H, F keys, F queries)
        return torch.relu(weights.transpose(2, 3) @ value).transpose(1, 2).flatten(2)  # (B, F, s)

    def edges(self, fields: Tensor) -> Tensor:
        """Weight of the edge from node j to node i at [:, i, j], 0 from a node to itself, (B, F, d) -> (B, F, F)."""
        sending, receiving = self.ends(fields).unbind(2)  # (B, F) each
        both = functional.leaky_relu(receiving.unsqueeze(2) + sending.unsqueeze(1))  # (B, F, F)
        return torch.softmax(both.masked_fill(self.loops, -torch.inf), dim=1)

    def step(self, state: Tensor, first: Tensor, edges: Tensor) -> Tensor:
        """One exchange of messages, (B, F, s) -> (B, F, s)."""
        sent = torch.einsum("bfs,fst->bft", state, self.sending)  # (B, F, s)
        gathered = edges @ sent  # (B, F, s)
        received = torch.einsum("bfs,fst->bft", gathered, self.receiving)  # (B, F, s)
        updated: Tensor = self.update(received.flatten(0, 1), state.flatten(0, 1))  # (B F, s)
        return updated.view(state.shape) + first
