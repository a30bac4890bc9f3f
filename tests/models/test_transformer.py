# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import torch
from torch import nn

from boxwright.models.transformer import MLP, SelfAttention


def reference(attention: SelfAttention, width: int) -> nn.MultiheadAttention:
    """The framework's module with the same weights."""
    other = nn.MultiheadAttention(width, attention.heads, batch_first=True).double()
    with torch.no_grad():
        other.in_proj_weight.copy_(attention.qkv.weight)
        other.in_proj_bias.copy_(attention.qkv.bias)
        other.out_proj.weight.copy_(attention.output.weight)
        other.out_proj.bias.copy_(attention.output.bias)
    return other


def test_attention_equals_the_framework_s_with_positions_in_query_and_key_only():
    torch.manual_seed(0)
    attention = SelfAttention(16, 4).double()
    nn.init.normal_(attention.qkv.bias)
    x, position = torch.randn(2, 5, 16, dtype=torch.float64), torch.randn(1, 5, 16, dtype=torch.float64)
    blocked = torch.zeros(5, 5, dtype=torch.bool)
    blocked[:2, 3:] = True
    blocked[4, :3] = True

    with torch.no_grad():
        found = attention(x, position, blocked)
        place = x + position
        expected, _ = reference(attention, 16)(place, place, x, attn_mask=blocked, need_weights=False)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_blocked_tokens_are_not_read():
    torch.manual_seed(0)
    attention = SelfAttention(8, 2)
    x, position = torch.randn(1, 4, 8), torch.zeros(1, 4, 8)
    blocked = torch.zeros(4, 4, dtype=torch.bool)
    blocked[:2, 2:] = True
    other = x.clone()
    other[:, 2:] += 3

    with torch.no_grad():
        first, second = attention(x, position, blocked), attention(other, position, blocked)

    torch.testing.assert_close(first[:, :2], second[:, :2], rtol=0, atol=0)
    assert (first[:, 2:] - second[:, 2:]).abs().amin() > 1e-4


def test_mlp_has_relu_between_its_layers_only():
    mlp = MLP((1, 2, 1))
    with torch.no_grad():
        mlp.layers[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        mlp.layers[1].weight.copy_(torch.tensor([[-2.0, -3.0]]))
        for layer in mlp.layers:
            layer.bias.zero_()

        assert mlp(torch.tensor([[4.0], [-5.0]])).tolist() == [[-8.0], [-15.0]]
