# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import math

import numpy as np
import torch

from boxwright.models.deformable import DeformableAttention, sample_levels


def bilinear(plane: np.ndarray, x: float, y: float) -> np.ndarray:
    """Value of a (rows, columns, c) plane at (x, y) in shares of its size; outside it is zero."""
    rows, columns, width = plane.shape
    column, row = x * columns - 0.5, y * rows - 0.5
    result = np.zeros(width)
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < rows and 0 <= j < columns:
                result += (1 - abs(row - i)) * (1 - abs(column - j)) * plane[i, j]
    return result


def slow_sampling(values, shapes, locations, weights):
    """Loops over images, queries, heads, levels and points."""
    batch, _, heads, width = values.shape
    queries, points = locations.shape[1], locations.shape[4]
    result = np.zeros((batch, queries, heads, width))
    for image, query, head in np.ndindex(batch, queries, heads):
        first = 0
        for level, (rows, columns) in enumerate(shapes):
            plane = values[image, first : first + rows * columns, head].reshape(rows, columns, width)
            for point in range(points):
                x, y = locations[image, query, head, level, point]
                share = weights[image, query, head, level, point]
                result[image, query, head] += share * bilinear(plane, x, y)
            first += rows * columns
    return result.reshape(batch, queries, heads * width)


SHAPES = ((4, 6), (2, 3))


def random_inputs(queries: int = 3):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 30, 2, 3, generator=generator, dtype=torch.float64)
    locations = torch.rand(2, queries, 2, 2, 5, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2  # some outside
    weights = torch.rand(2, queries, 2, 2, 5, generator=generator, dtype=torch.float64)
    return values, locations, weights


def test_sampling_equals_loops_over_every_point():
    values, locations, weights = random_inputs()

    found = sample_levels(values, SHAPES, locations, weights)

    expected = slow_sampling(values.numpy(), SHAPES, locations.numpy(), weights.numpy())
    assert np.abs(found.numpy() - expected).max() < 1e-12


def test_gradients_of_sampling():
    inputs = [tensor.requires_grad_() for tensor in random_inputs(queries=1)]

    assert torch.autograd.gradcheck(lambda v, x, w: sample_levels(v, SHAPES, x, w), inputs)


def test_whole_attention_equals_loops():
    torch.manual_seed(1)
    attention = DeformableAttention(width=8, heads=2, levels=2, points=4).double()
    torch.nn.init.normal_(attention.offsets.weight)
    torch.nn.init.normal_(attention.weights.weight)
    generator = torch.Generator().manual_seed(2)
    queries, memory = (torch.randn(2, n, 8, generator=generator, dtype=torch.float64) for n in (3, 30))
    boxes = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        found = attention(queries, boxes, memory, SHAPES)
        offsets = attention.offsets(queries).view(2, 3, 2, 2, 4, 2)
        shares = attention.weights(queries).view(2, 3, 2, 8).softmax(-1).view(2, 3, 2, 2, 4)
        values = attention.value(memory).view(2, 30, 2, 4)
        # spec/architectures 2.2: ref_xy + offset / 4 * ref_wh * 0.5
        places = boxes[:, :, None, None, None, :2] + offsets / 4 * boxes[:, :, None, None, None, 2:] * 0.5
        read = slow_sampling(values.numpy(), SHAPES, places.numpy(), shares.numpy())
        expected = attention.output(torch.from_numpy(read))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_first_offsets_point_in_eight_directions_with_one_to_four_steps():
    attention = DeformableAttention(width=16, heads=8, levels=3, points=4)

    bias = attention.offsets.bias.view(8, 3, 4, 2)

    assert attention.offsets.weight.abs().sum() == 0
    torch.testing.assert_close(bias[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    torch.testing.assert_close(bias[1, 2], torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]]))  # 45 degrees, max-norm 1
    torch.testing.assert_close(bias[:, 0].abs().amax(-1), torch.arange(1.0, 5).expand(8, 4))
    assert len({tuple(round(x, 4) for x in row) for row in bias[:, 0, 0].tolist()}) == 8


def test_where_to_read_stays_exact_under_autocast():
    """A query whose offsets are all zero reads the one cell that its centre lies on; bfloat16 would miss it by 1e-3."""
    attention = DeformableAttention(width=8, heads=2, levels=1, points=1)
    torch.nn.init.zeros_(attention.offsets.bias)
    with torch.no_grad():
        attention.value.weight.copy_(torch.eye(8))
        attention.output.weight.copy_(torch.eye(8))
    ramp = torch.arange(256.0)[None, :, None].expand(1, 256, 8)  # one row of 256 cells; bfloat16 holds 0 to 255
    x = torch.tensor([[[(100 + 0.5) / 256, 0.5, 0.1, 0.1]]])

    with torch.autocast("cpu", torch.bfloat16):
        found = attention(torch.zeros(1, 1, 8), x, ramp, [(1, 256)])

    assert found.flatten().tolist() == [100.0] * 8
