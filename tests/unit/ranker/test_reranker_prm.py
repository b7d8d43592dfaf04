"""PRM's formulas against torch's own transformer encoder with the same weights."""

from __future__ import annotations

import torch
from torch import nn

from ranker.features import FeatureConfig, Features
from ranker.rerankers.attention import AttentionBlock
from ranker.rerankers.base import FEED_FORWARD, HEADS, HIDDEN
from ranker.rerankers.prm import PRM

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=2, n_attributes=1, d_embedding=4)


def same_block(block: AttentionBlock) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(HIDDEN, HEADS, FEED_FORWARD, dropout=0.0, batch_first=True)
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.attention.query_key_value.weight)
        layer.self_attn.in_proj_bias.zero_()
        layer.self_attn.out_proj.weight.copy_(block.attention.out.weight)
        layer.self_attn.out_proj.bias.zero_()
    layer.norm1.load_state_dict(block.attention_norm.state_dict())
    layer.norm2.load_state_dict(block.feed_forward_norm.state_dict())
    layer.linear1.load_state_dict(block.feed_forward[0].state_dict())
    layer.linear2.load_state_dict(block.feed_forward[2].state_dict())
    return layer


def test_a_block_is_that_of_a_transformer_encoder() -> None:
    torch.manual_seed(0)
    block = AttentionBlock(HIDDEN, HEADS, FEED_FORWARD)
    x, present = torch.randn(3, 5, HIDDEN), torch.arange(5) < torch.tensor([[5], [2], [3]])
    expected = same_block(block)(x, src_key_padding_mask=~present)
    torch.testing.assert_close(block(x, present)[present], expected[present], rtol=1e-4, atol=1e-5)


def test_a_position_is_added_to_the_whole_candidate_before_the_first_layer() -> None:
    torch.manual_seed(0)
    model = PRM(SIZES, 2, 4)
    features = Features(
        items=torch.tensor([0, 3, 5]),
        attributes=torch.tensor([[0], [2], [4]]),
        user=torch.tensor([7]),
        user_attributes=torch.zeros(1, 0, dtype=torch.long),
        history=torch.tensor([[2, 1]]),
        history_liked=torch.tensor([[2, 1]]),
        item=torch.tensor([1, 2]),
    )
    user_vector, item_vectors, initial = torch.randn(1, 2), torch.randn(2, 2), torch.tensor([[0.1, 0.6]])
    table = model.embedding
    whole = [
        table.item.weight[bucket] + table.attribute.weight[value] + table.liked.weight[said]
        for bucket, value, said in ((5, 4, 2), (3, 2, 1))
    ]
    user = torch.cat([table.user.weight[7], whole[0] / 2, whole[1] / 2, user_vector[0]])  # liked one, disliked one, of H = 2
    rows = [
        torch.cat([table.item.weight[bucket], table.attribute.weight[value], item_vectors[place], user])
        + model.position.weight[rank]
        for place, (bucket, value, rank) in enumerate([(3, 2, 1), (5, 4, 0)])  # the second has the better initial score
    ]
    x = model.project(torch.stack(rows).unsqueeze(0))
    for block in model.blocks:
        x = block(x, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(model(features, user_vector, item_vectors, initial)[0], model.last(x)[0, :, 0])
