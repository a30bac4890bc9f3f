# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Keypoints, masks or a callable in place of the box overlap, against loops in float64."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tests.losses.assign.forms import assert_refused, pairs_of
from tests.losses.assign.test_task_aligned import assert_equal, by_reference
from tests.losses.scenes import generator, make_targets, random_predictions, random_targets

from boxwright.config import from_yaml, to_yaml
from boxwright.errors import ConfigError
from boxwright.losses.assign import KeypointFit, MaskFit, TaskAligned
from boxwright.losses.assign import mask_fit as module
from boxwright.losses.criterion import Rule
from boxwright.structures import Predictions, Targets

KEYPOINTS, COEFS, MASKS = 5, 4, (16, 16)


def keypoint_scene(seed: int, counts: tuple[int, ...], form: str = "doubled") -> tuple[Predictions, Targets]:
    source = generator(seed)
    preds = random_predictions(source, len(counts), (64, 64))
    targets = random_targets(source, counts, (64, 64))
    raw = torch.randn(*preds.logits.shape[:2], KEYPOINTS, 3, generator=source).double()
    places = torch.rand(*targets.labels.shape, KEYPOINTS, 2, generator=source).double() * 64
    seen = torch.randint(3, (*targets.labels.shape, KEYPOINTS, 1), generator=source).double()
    seen[:, 0] = 0  # an object without a visible keypoint
    preds = dataclasses.replace(preds, keypoints_raw=raw, keypoint_form=form)
    return preds, dataclasses.replace(targets, keypoints=torch.cat((places, seen), dim=-1))


def similarity(preds: Predictions, targets: Targets, image: int, slot: int, anchor: int, sigmas: list[float]) -> float:
    """Mean over visible keypoints of exp(-d^2 / (2 (2 sigma)^2 (0.53 w h))), px."""
    x1, y1, x2, y2 = targets.boxes[image, slot].tolist()
    area, stride = 0.53 * (x2 - x1) * (y2 - y1), preds.grid.strides[anchor].item()
    px, py = preds.grid.points[anchor].tolist()
    found = []
    for (x, y, seen), raw, sigma in zip(
        targets.keypoints[image, slot].tolist(), preds.keypoints_raw[image, anchor].tolist(), sigmas, strict=True
    ):
        if seen == 0:
            continue
        if preds.keypoint_form == "offset":
            got = px + raw[0] * stride, py + raw[1] * stride
        else:
            got = px + (2 * raw[0] - 0.5) * stride, py + (2 * raw[1] - 0.5) * stride
        square = (got[0] - x) ** 2 + (got[1] - y) ** 2
        found.append(math.exp(-square / ((2 * sigma) ** 2 * (area + 1e-9) * 2)))
    return sum(found) / len(found) if found else math.nan


@pytest.mark.parametrize("form", ["doubled", "offset"])
@pytest.mark.parametrize("sigmas", [None, (0.3, 0.5, 0.2, 0.8, 1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_keypoints_equal_brute_force(seed, sigmas, form):
    preds, targets = keypoint_scene(seed, (6, 0, 11), form)
    spreads = list(sigmas or (1 / KEYPOINTS,) * KEYPOINTS)

    def fit(image, slot, held, overlaps, metrics):
        mine = [similarity(preds, targets, image, slot, int(a), spreads) for a in held]
        return [u if math.isnan(of) else of for of, u in zip(mine, overlaps, strict=True)]

    pairs = pairs_of(TaskAligned(fit=KeypointFit(sigmas=sigmas)), preds, targets)

    assert pairs.valid.any()
    assert_equal(pairs, by_reference(preds, targets, fit=fit), 1e-8)


def test_levels_of_the_keypoint_assigner_equal_brute_force():
    preds, targets = keypoint_scene(7, (9, 4))
    low, high = 1.5, 3.0

    def allowed(image, slot, anchor):
        x1, y1, x2, y2 = targets.boxes[image, slot].tolist()
        size, level = math.sqrt((x2 - x1) * (y2 - y1)), int(preds.grid.level[anchor])
        stride = (8, 16, 32)[level]
        return (level == 0 or size >= low * stride) and (level == 2 or size <= high * stride)

    pairs = pairs_of(TaskAligned(level_range=(low, high)), preds, targets)

    assert_equal(pairs, by_reference(preds, targets, allowed=allowed), 1e-9)
    assert not torch.equal(pairs.anchor[pairs.valid], (p := pairs_of(TaskAligned(), preds, targets)).anchor[p.valid])


def mask_scene(seed: int, counts: tuple[int, ...], per_instance: bool, size: tuple[int, int] = MASKS):
    source = generator(seed)
    preds = random_predictions(source, len(counts), (64, 64))
    targets = random_targets(source, counts, (64, 64))
    preds = dataclasses.replace(
        preds,
        mask_coefs=torch.randn(*preds.logits.shape[:2], COEFS, generator=source).double(),
        prototypes=torch.randn(len(counts), COEFS, *MASKS, generator=source).double(),
    )
    if per_instance:
        masks = torch.rand(*targets.labels.shape, *size, generator=source) < 0.4
        return preds, dataclasses.replace(targets, masks=masks)
    held = torch.randint(targets.labels.shape[1] + 1, (len(counts), *size), generator=source).int()
    return preds, dataclasses.replace(targets, instance_map=held)


def mask_iou(preds: Predictions, targets: Targets, image: int, slot: int, anchor: int) -> float:
    logits = np.einsum("q,qhw->hw", preds.mask_coefs[image, anchor].numpy(), preds.prototypes[image].numpy())
    rows, columns = logits.shape
    x1, y1, x2, y2 = (preds.boxes[image, anchor] / 64 * torch.tensor([columns, rows, columns, rows])).tolist()
    both = either = 0
    for row in range(rows):
        for column in range(columns):
            ours = logits[row, column] > 0 and x1 <= column < x2 and y1 <= row < y2
            if targets.masks is not None:
                of = targets.masks[image, slot]
                theirs = bool(of[row * of.shape[0] // rows, column * of.shape[1] // columns])
            else:
                of = targets.instance_map[image]
                theirs = int(of[row * of.shape[0] // rows, column * of.shape[1] // columns]) == slot + 1
            both, either = both + (ours and theirs), either + (ours or theirs)
    return both / max(either, 1)


@pytest.mark.parametrize("pixels_at_once", [1, 1 << 20])
@pytest.mark.parametrize("per_instance", [False, True])
@pytest.mark.parametrize("size", [MASKS, (32, 24)])
def test_masks_equal_brute_force(monkeypatch, per_instance, size, pixels_at_once):
    monkeypatch.setattr(module, "CPU_PIXELS", pixels_at_once)
    preds, targets = mask_scene(1, (4, 0, 3), per_instance, size)

    def fit(image, slot, held, overlaps, metrics):
        best = sorted(range(len(held)), key=lambda i: (-metrics[i], held[i]))[: 3 * 2]
        return [
            (u + (mask_iou(preds, targets, image, slot, int(held[i])) if i in best else 0.0)) / 2
            for i, u in enumerate(overlaps)
        ]

    pairs = pairs_of(TaskAligned(topk=2, fit=MaskFit()), preds, targets)

    assert pairs.valid.any()
    assert_equal(pairs, by_reference(preds, targets, topk=2, fit=fit), 1e-8)


def test_a_callable_of_ones_own_sees_every_pair_and_its_overlap():
    preds, targets = random_predictions(generator(2), 2), random_targets(generator(2), (5, 3))

    def square(preds, targets, image, anchor, target, overlap):
        assert image.shape == anchor.shape == target.shape == overlap.shape
        return overlap**2

    own = pairs_of(TaskAligned(fit=square), preds, targets)
    expected = by_reference(preds, targets, fit=lambda image, slot, held, u, m: np.asarray(u) ** 2)

    assert_equal(own, expected, 1e-9)


def test_no_objects_ask_for_no_fit():
    preds, targets = mask_scene(3, (0, 0), False)

    assert len(pairs_of(TaskAligned(fit=MaskFit()), preds, targets).image) == 0


@pytest.mark.parametrize("fit", [KeypointFit(), MaskFit()])
def test_a_fit_without_its_inputs_names_what_is_missing(fit):
    preds, targets = random_predictions(generator(4), 1), make_targets([(0, 0, 40, 40)])

    assert_refused(TaskAligned(fit=fit), preds, targets, r"Predictions.*expected .* for .*Fit, got None")


def test_keypoints_of_another_number_are_refused():
    preds, targets = keypoint_scene(5, (3,))
    fewer = dataclasses.replace(targets, keypoints=targets.keypoints[:, :, 1:])

    assert_refused(
        TaskAligned(fit=KeypointFit()),
        preds,
        fewer,
        r"Targets.keypoints: expected \(B, M, 5, 3\) .* got \(1, 4, 4, 3\)",
    )


@pytest.mark.parametrize("fit", [None, KeypointFit(sigmas=(0.5, 1.0)), MaskFit()])
def test_built_in_fits_survive_yaml(fit):
    rule = Rule(assigner=TaskAligned(fit=fit, level_range=(2.0, 12.0), min_side="second_stride"), terms={})

    assert from_yaml(Rule, to_yaml(rule)) == rule


def test_an_unknown_fit_is_named():
    with pytest.raises(ConfigError, match=r"assigner.fit: expected kind 'keypoint_fit' or 'mask_fit'"):
        from_yaml(Rule, "assigner: {kind: task_aligned, fit: {kind: masks}}\nterms: {}")
