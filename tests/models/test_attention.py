# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import math

import pytest
import torch

from boxwright.models.attention import C2PSA, PSA, Attention, PSABlock, heads_of


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_attention_against_a_loop_over_cells(memory_format):
    """Per head: keys and queries of half the width, softmax over all cells, and the convolved values added."""
    torch.manual_seed(0)
    block = Attention(8, 2).double().eval()
    x = picture(2, 8, 3, 4)

    with torch.no_grad():
        found = block.to(memory_format=memory_format)(x.to(memory_format=memory_format))
        channels = block.qkv(x)
        read, values = torch.zeros(2, 8, 3, 4).double(), torch.zeros(2, 8, 3, 4).double()
        for head in range(2):
            part = channels[:, 8 * head : 8 * head + 8]
            query, key, value = part[:, :2].flatten(2), part[:, 2:4].flatten(2), part[:, 4:]
            values[:, 4 * head : 4 * head + 4] = value
            for image in range(2):
                for cell in range(12):
                    scores = [float(query[image, :, cell] @ key[image, :, other]) / math.sqrt(2) for other in range(12)]
                    largest = max(scores)
                    shares = [math.exp(score - largest) for score in scores]
                    mean = sum(s * value[image].flatten(1)[:, i] for i, s in enumerate(shares)) / sum(shares)
                    read[image, 4 * head : 4 * head + 4, cell // 4, cell % 4] = mean
        expected = block.proj(read + block.position(values))

    torch.testing.assert_close(found, expected)


def test_psa_block_adds_both_steps():
    torch.manual_seed(0)
    block = PSABlock(8).double().eval()
    x = picture(1, 8, 3, 3)

    with torch.no_grad():
        middle = x + block.attention(x)
        torch.testing.assert_close(block(x), middle + block.reduce(block.expand(middle)))
    assert (block.expand.conv.out_channels, block.reduce.act_name) == (16, "none")


def test_c2psa_attends_in_the_second_half():
    torch.manual_seed(0)
    block = C2PSA(8, 8, 2).double().eval()
    x = picture(1, 8, 3, 3)

    with torch.no_grad():
        first, second = block.entry(x)[:, :4], block.entry(x)[:, 4:]
        expected = block.exit(torch.cat((first, block.units[1](block.units[0](second))), 1))
        torch.testing.assert_close(block(x), expected)


def test_psa_is_one_block():
    assert len(PSA(8, 8).units) == 1


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (64, 1), (128, 2), (320, 5)])
def test_one_head_for_every_64_channels(channels, heads):
    assert heads_of(channels) == heads
    assert Attention(channels, heads).key_width * 2 == channels // heads
