# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch

from boxwright.errors import ConfigError
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.heads.branches import MaskConfig, join_levels
from boxwright.ops.decode import Distance, Oriented

# golden/numeric.json, bias_prior_v8: classes -> logit at strides 8, 16, 32
PRIORS = {
    1: (-7.154615356913663, -5.768320995793772, -4.382026634673881),
    20: (-10.150347630467653, -8.764053269347762, -7.3777589082278725),
    80: (-11.536641991587544, -10.150347630467653, -8.764053269347762),
}


def build(num_classes: int = 3, num_bins: int = 16, channels: tuple[int, ...] = (64, 128, 256)):
    return AnchorFreeConfig(num_classes=num_classes, num_bins=num_bins).build(channels, (8, 16, 32))


def maps_of(channels: tuple[int, ...], batch: int = 2, side: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(batch, width, side >> i, side >> i, generator=generator) for i, width in enumerate(channels)
    )


@pytest.mark.parametrize("num_classes", PRIORS)
def test_class_bias_is_the_prior_of_a_few_objects_per_image(num_classes):
    head = build(num_classes)
    for branch, prior in zip(head.class_branches, PRIORS[num_classes], strict=True):
        assert branch[2].bias.tolist() == pytest.approx([prior] * num_classes, rel=1e-6)
    for branch in head.box_branches:
        assert branch[2].bias.tolist() == [1.0] * 64


@pytest.mark.parametrize(
    ("num_classes", "num_bins", "first", "box_width", "class_width"),
    [(80, 16, 64, 64, 80), (3, 16, 64, 64, 64), (200, 16, 64, 64, 100), (3, 4, 64, 16, 64), (3, 32, 320, 128, 320)],
)
def test_branch_widths(num_classes, num_bins, first, box_width, class_width):
    head = build(num_classes, num_bins, (first, 2 * first, 2 * first))

    assert {branch[0].conv.out_channels for branch in head.box_branches} == {box_width}
    assert {branch[0].conv.out_channels for branch in head.class_branches} == {class_width}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_candidates_run_level_by_level_and_row_by_row(memory_format):
    fine = torch.arange(12.0).view(1, 2, 2, 3).to(memory_format=memory_format)
    coarse = torch.tensor([[[[100.0]], [[200.0]]]])

    joined = join_levels([fine, coarse])

    assert joined.tolist() == [[[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11], [100, 200]]]


def test_outputs_are_the_branches_of_each_level():
    head = build(num_classes=3).eval()
    maps = maps_of((64, 128, 256))

    with torch.no_grad():
        final = head(maps, (64, 64)).final
        logits = torch.cat([branch(x).flatten(2) for branch, x in zip(head.class_branches, maps, strict=True)], 2)
        boxes = torch.cat([branch(x).flatten(2) for branch, x in zip(head.box_branches, maps, strict=True)], 2)

    torch.testing.assert_close(final.logits, logits.transpose(1, 2))
    torch.testing.assert_close(final.box_raw, boxes.transpose(1, 2))
    assert final.decoder == Distance(num_bins=16)
    assert final.image_size == (64, 64)
    assert final.grid.level_strides == (8, 16, 32)
    assert final.role == "main"


def test_first_boxes_reach_the_middle_of_the_bins():
    """Bias 1 on every bin is a uniform distribution: 7.5 strides on each side of the cell centre."""
    head = build().eval()
    with torch.no_grad():
        for branch in head.box_branches:
            branch[2].weight.zero_()
        boxes = head(maps_of((64, 128, 256)), (64, 64)).final.boxes

    torch.testing.assert_close(boxes[0, 0], torch.tensor([4 - 60.0, 4 - 60.0, 4 + 60.0, 4 + 60.0]), rtol=0, atol=1e-4)


def test_frozen_bins_count_up_and_take_no_gradient():
    head = build(num_bins=5)

    assert head.bins.flatten().tolist() == [0, 1, 2, 3, 4]
    assert not head.bins.requires_grad


def test_one_bin_means_distances_without_frozen_vector():
    head = build(num_bins=1).eval()

    assert head(maps_of((64, 128, 256)), (64, 64)).final.box_raw.shape[-1] == 4
    assert "bins" not in head.state_dict()


def test_grid_is_kept_per_image_size_and_usable_after_inference_mode():
    head = build().eval()
    maps = maps_of((64, 128, 256), side=16)
    with torch.inference_mode():
        first = head(maps, (128, 128)).final.grid
    second = head(maps, (128, 128)).final.grid

    assert first is second
    assert not second.points.is_inference()


@pytest.mark.parametrize(("values", "name"), [({"num_classes": 0}, "num_classes"), ({"num_bins": 0}, "num_bins")])
def test_counts_below_one_are_refused(values, name):
    with pytest.raises(ConfigError, match=f"model.head.{name}: expected at least 1, got 0"):
        AnchorFreeConfig(**values)


def two_sets(**values):
    torch.manual_seed(0)
    config = AnchorFreeConfig(num_classes=3, end_to_end=True, class_branch="light", **values)
    return config.build((64, 128, 256), (8, 16, 32))


def test_an_end_to_end_head_starts_with_equal_sets():
    head = two_sets().eval()
    with torch.no_grad():
        outputs = head(maps_of((64, 128, 256)), (64, 64))

    (many,) = outputs.auxiliary
    assert (outputs.final.role, many.role) == ("one2one", "one2many")
    assert outputs.final.end_to_end
    assert torch.equal(outputs.final.logits, many.logits)
    assert torch.equal(outputs.final.box_raw, many.box_raw)
    assert head.box_branches[0][0].conv.weight is not head.one2many.box_branches[0][0].conv.weight


def test_one_candidate_per_object_teaches_its_branches_only():
    head = two_sets(masks=MaskConfig(count=4, hidden=8))
    maps = tuple(x.requires_grad_() for x in maps_of((64, 128, 256)))

    outputs = head(maps, (64, 64))
    final, (many,) = outputs.final, outputs.auxiliary
    (final.logits.sum() + final.box_raw.sum() + final.mask_coefs.sum()).backward()

    assert all(x.grad is None for x in maps)
    assert not final.prototypes.requires_grad
    assert head.class_branches[0][2].weight.grad is not None
    (many.logits.sum() + many.prototypes.sum()).backward()
    assert all(x.grad.abs().sum() > 0 for x in maps)
    assert head.proto.conv1.conv.weight.grad is not None


def test_without_auxiliary_keeps_what_inference_reads():
    head = two_sets().eval()
    maps = maps_of((64, 128, 256))
    with torch.no_grad():
        before = head(maps, (64, 64)).final
        rows = head.class_rows
        after = head.without_auxiliary()(maps, (64, 64))

    assert torch.equal(after.final.logits, before.logits)
    assert (after.final.role, after.auxiliary) == ("one2one", ())
    assert not any(name.startswith("one2many") for name in head.state_dict())
    assert len(rows) == 12
    assert set(head.class_rows) == {name for name in rows if not name.startswith("one2many")}
    assert set(head.class_rows) <= set(head.state_dict())


def test_oriented_heads_decode_with_their_angle():
    head = AnchorFreeConfig(num_classes=3, oriented=True).build((64, 128, 256), (8, 16, 32)).eval()
    with torch.no_grad():
        final = head(maps_of((64, 128, 256)), (64, 64)).final

    assert final.decoder == Oriented(num_bins=16)
    assert final.boxes.shape == (2, 84, 5)
    torch.testing.assert_close(final.boxes[..., 4], final.angle)


def test_one_bin_is_the_distance_in_strides():
    head = AnchorFreeConfig(num_classes=3, num_bins=1, box_bias=2.0).build((64, 128, 256), (8, 16, 32)).eval()
    for branch in head.box_branches:
        branch[2].weight.data.zero_()
    boxes = head(maps_of((64, 128, 256)), (64, 64)).final.boxes

    assert boxes[0, 0].tolist() == [4 - 16.0, 4 - 16.0, 4 + 16.0, 4 + 16.0]
    assert boxes[0, -1].tolist() == [48 - 64.0, 48 - 64.0, 48 + 64.0, 48 + 64.0]
