# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import torch

from boxwright.models.backbones.chain import Chain
from boxwright.models.backbones.stems import PeleeStem, PoolStem, make_entry
from boxwright.models.blocks import Conv, Focus


def test_both_stems_quarter_the_size_also_where_it_is_odd():
    for stem in (PoolStem(3, 8), PeleeStem(3, 8)):
        assert stem(torch.zeros(1, 3, 32, 48)).shape == (1, 8, 8, 12)
        assert stem(torch.zeros(1, 3, 34, 30)).shape == (1, 8, 9, 8)


def test_pelee_mixes_convolved_and_pooled_maps():
    stem = PeleeStem(3, 8).eval()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        first = stem.first(x)
        pooled = torch.nn.functional.max_pool2d(first, 2)
        expected = stem.mix(torch.cat((stem.down(stem.narrow(first)), pooled), 1))

        torch.testing.assert_close(stem(x), expected)


def test_entries_by_name():
    assert isinstance(make_entry("pelee", 8), PeleeStem)
    assert isinstance(make_entry("focus", 8), Focus)


def test_a_chain_measures_what_it_returns():
    chain = Chain([Conv(3, 4, 3, 2), Conv(4, 6, 3), PoolStem(6, 10)], (1, 2))

    assert (chain.channels, chain.strides) == ((6, 10), (2, 8))
    assert next(chain.parameters()).device.type == "cpu"
    assert chain.layers[0].bn.num_batches_tracked == 0  # measuring leaves no trace
    assert [tuple(x.shape) for x in chain(torch.zeros(1, 3, 16, 32))] == [(1, 6, 8, 16), (1, 10, 2, 4)]
