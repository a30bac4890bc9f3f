# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import math

import pytest
import torch

from boxwright.errors import ConfigError
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.heads.branches import DenseBranches, MaskConfig
from boxwright.vocabulary import AttributeSpec, KeypointSpec

CHANNELS, STRIDES = (32, 64), (8, 16)


def built(**values) -> DenseBranches:
    torch.manual_seed(0)
    return DenseBranches(AnchorFreeConfig(num_classes=3, **values), CHANNELS, STRIDES).eval()


def maps_of() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, width, side, side, generator=generator) for width, side in zip(CHANNELS, (4, 2), strict=True)
    )


def by_level(branches, maps) -> torch.Tensor:
    """(B, A, n) of what each level's branch gives, level by level and row by row."""
    return torch.cat([branch(x).flatten(2) for branch, x in zip(branches, maps, strict=True)], 2).transpose(1, 2)


def test_a_light_class_branch_is_two_pairs_of_depthwise_and_1x1():
    branch = built(class_branch="light").class_branches[1]

    kinds = [
        [(part.conv.kernel_size[0], part.conv.groups, part.conv.out_channels) for part in pair] for pair in branch[:2]
    ]
    assert kinds == [[(3, 64, 64), (1, 1, 32)], [(3, 32, 32), (1, 1, 32)]]
    assert branch[2].out_channels == 3


@pytest.mark.parametrize(
    ("values", "name", "hidden", "outputs"),
    [
        ({"masks": MaskConfig(count=40)}, "mask_branches", 40, 40),  # max(32 / 4, 40)
        ({"masks": MaskConfig(count=4)}, "mask_branches", 8, 4),
        ({"keypoints": KeypointSpec(count=5, dims=2)}, "keypoint_branches", 10, 10),
        ({"keypoints": KeypointSpec(count=2)}, "keypoint_branches", 8, 6),
        ({"oriented": True}, "angle_branches", 8, 1),
    ],
)
def test_widths_of_the_task_branches(values, name, hidden, outputs):
    for branch in getattr(built(**values), name):
        assert (branch[0].conv.out_channels, branch[1].conv.out_channels) == (hidden, hidden)
        assert branch[2].out_channels == outputs


def test_keypoints_are_rows_of_x_y_and_visibility():
    branches, maps = built(keypoints=KeypointSpec(count=2)), maps_of()

    with torch.no_grad():
        found = branches.fields(maps)["keypoints_raw"]
        expected = by_level(branches.keypoint_branches, maps)
    assert found.shape == (2, 20, 2, 3)
    torch.testing.assert_close(found[..., 1, 2], expected[..., 5])


def test_angles_reach_from_minus_one_to_three_quarters():
    branches, maps = built(oriented=True), maps_of()
    for level, value in enumerate((0.0, 50.0)):
        branches.angle_branches[level][2].weight.data.zero_()
        branches.angle_branches[level][2].bias.data.fill_(value)

    angle = branches.fields(maps)["angle"]

    assert angle.shape == (2, 20)
    assert angle[0, 0].item() == pytest.approx(math.pi / 4)  # (0.5 - 0.25) pi
    assert angle[0, -1].item() == pytest.approx(3 * math.pi / 4)


def test_mask_coefficients_are_raw():
    branches, maps = built(masks=MaskConfig(count=5)), maps_of()
    with torch.no_grad():
        torch.testing.assert_close(branches.fields(maps)["mask_coefs"], by_level(branches.mask_branches, maps))


def test_attributes_read_what_the_class_branch_saw():
    specs = (AttributeSpec(name="type", values=("a", "b")), AttributeSpec(name="l.o.c", values=("x", "y", "z")))
    branches, maps = built(attributes=specs), maps_of()

    with torch.no_grad():
        found = branches.fields(maps)["attribute_logits"]
        hidden = [branch[:2](x) for branch, x in zip(branches.class_branches, maps, strict=True)]
        expected = by_level(branches.attribute_branches[1], hidden)
    assert {name: x.shape[2] for name, x in found.items()} == {"type": 2, "l.o.c": 3}
    torch.testing.assert_close(found["l.o.c"], expected)


def test_box_bias_is_data():
    assert [branch[2].bias.tolist() for branch in built(num_bins=1, box_bias=2.0).box_branches] == [[2.0] * 4] * 2


def test_wrong_counts_and_equal_names_are_refused():
    with pytest.raises(ConfigError, match=r"model\.head\.masks: expected positive counts, got 0 and 64"):
        MaskConfig(count=0)
    twice = (AttributeSpec(name="a", values=("x", "y")),) * 2
    with pytest.raises(ConfigError, match=r"model\.head\.attributes: expected different names, got a, a"):
        AnchorFreeConfig(attributes=twice)
