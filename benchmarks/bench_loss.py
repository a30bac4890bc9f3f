# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How fast is the detection loss, forward and backward, and how much memory does it take beside the peer's?

Both criteria see the same raw head outputs (batch 16, 640 px, 80 classes) and the same labels, in one process. The peer
is `ultralytics` (the extra `parity`), run as a black box through its public API; without it only our side is measured.
`prepare` is the host-side layout of candidates, done before the step; it is timed alone and added in `with prepare`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from boxwright.losses.assign import TaskAligned
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms import BoxOverlap, DistanceBins, SoftScores
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.decode import Distance
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Grid, Outputs, Predictions, Targets
from harness import Bench, absent, allocation_peak, arguments, start

STRIDES, CLASSES, BINS = (8, 16, 32), 80, 16
COUNTS = (7, 50, 200)  # objects per image
CROWD = 5000
CRITERION = Criterion(
    rules={
        "main": Rule(
            assigner=TaskAligned(),
            terms={
                "box": Weighted(term=BoxOverlap(), gain=7.5),
                "cls": Weighted(term=SoftScores(), gain=0.5),
                "dfl": Weighted(term=DistanceBins(), gain=1.5),
            },
        )
    }
)


@dataclass(frozen=True)
class Size:
    """How much work the table is made of."""

    side: int = 640  # px
    batch: int = 16
    crowded: int = 4  # images of the crowd


SMOKE = Size(side=64, batch=2, crowded=1)


def scene(batch: int, objects: int, sides: tuple[float, float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Labels (B, M) and normalised centre boxes (B, M, 4), sides log-uniform in the given range."""
    low, high = (math.log(side) for side in sides)
    size = torch.exp(torch.rand(batch, objects, 2, generator=generator) * (high - low) + low)
    centre = size / 2 + torch.rand(batch, objects, 2, generator=generator) * (1 - size)
    return torch.randint(CLASSES, (batch, objects), generator=generator), torch.cat((centre, size), dim=-1)


def head_outputs(batch: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Raw boxes (B, 4 R, A) and scores (B, C, A) as convolutions leave them, and no gradient yet."""
    anchors = sum((side // stride) ** 2 for stride in STRIDES)
    boxes = torch.randn(batch, 4 * BINS, anchors, generator=generator)
    scores = torch.randn(batch, CLASSES, anchors, generator=generator) - 4
    return boxes.requires_grad_(), scores.requires_grad_()


def our_step(boxes: Tensor, scores: Tensor, targets: Targets, grid: Grid) -> Callable[[], Tensor]:
    """Our criterion, forward and backward, with prepared targets."""

    def step() -> Tensor:
        boxes.grad = scores.grad = None
        preds = Predictions(scores.transpose(1, 2), boxes.transpose(1, 2), Distance(num_bins=BINS), grid)
        total = CRITERION(Outputs(preds), targets).total
        torch.autograd.backward(total)
        return total.detach()

    return step


def peer_step(
    boxes: Tensor, scores: Tensor, labels: Tensor, boxes_norm: Tensor, side: int
) -> Callable[[], Tensor] | None:
    """The peer's criterion, forward and backward, or None where it is not installed."""
    try:
        from ultralytics import YOLO
    except ImportError:
        return None
    model = YOLO("yolov8n.yaml").model
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    criterion = model.init_criterion()
    batch, objects = labels.shape
    feats = [torch.zeros(batch, 1, side // stride, side // stride) for stride in STRIDES]  # only their shapes are read
    rows = {
        "batch_idx": torch.arange(batch).repeat_interleave(objects).float(),
        "cls": labels.reshape(-1, 1).float(),
        "bboxes": boxes_norm.reshape(-1, 4),
    }

    def step() -> Tensor:
        boxes.grad = scores.grad = None
        total = criterion({"boxes": boxes, "scores": scores, "feats": feats}, rows)[0].sum()
        total.backward()
        return total.detach()

    return step


def make_targets(labels: Tensor, boxes_norm: Tensor, side: int) -> Targets:
    """The labels in our form."""
    return Targets(labels, cxcywh_to_xyxy(boxes_norm * side), torch.ones_like(labels, dtype=torch.bool))


def rows() -> list[str]:
    """Names of the table's rows."""
    return [*(f"{objects} objects" for objects in COUNTS), f"{CROWD} objects"]


def compare(objects: int, bench: Bench, size: Size) -> dict[str, Any]:
    """Times, ratio and memory at so many objects per image."""
    generator = torch.Generator().manual_seed(objects)
    labels, boxes_norm = scene(size.batch, objects, (0.04, 0.6), generator)
    boxes, scores = head_outputs(size.batch, size.side, generator)
    grid = grid_for_image((size.side, size.side), STRIDES)
    raw_targets = make_targets(labels, boxes_norm, size.side)
    targets = CRITERION.prepare(raw_targets, grid)
    variants: dict[str, Callable[[], Any]] = {
        "ours": our_step(boxes, scores, targets, grid),
        "prepare": lambda: CRITERION.prepare(raw_targets, grid),
    }
    if peer := peer_step(boxes, scores, labels, boxes_norm, size.side):
        variants["peer"] = peer
    assert targets.candidates is not None
    row: dict[str, Any] = {"objects": objects, "pairs": targets.candidates.count}
    seconds = bench.medians(variants, warmup=4, burst=5)
    row |= {f"{name}_ms": round(1e3 * value, 1) for name, value in seconds.items()}
    gradients = (boxes.numel() + scores.numel()) * 4
    for name in variants.keys() - {"prepare"}:
        row[f"{name}_total"] = float(variants[name]())
        boxes.grad = scores.grad = None
        peak = allocation_peak(variants[name])
        row |= {f"{name}_peak_mb": round(peak / 1e6, 1), f"{name}_temporaries_mb": round((peak - gradients) / 1e6, 1)}
    if peer:
        row["speedup"] = round(row["peer_ms"] / row["ours_ms"], 2)
        row["speedup_with_prepare"] = round(row["peer_ms"] / (row["ours_ms"] + row["prepare_ms"]), 2)
    return row


def crowd(bench: Bench, size: Size) -> dict[str, Any]:
    """Images of 5000 tiny objects each: memory follows real candidate pairs."""
    generator = torch.Generator().manual_seed(CROWD)
    labels, boxes_norm = scene(size.crowded, CROWD, (0.006, 0.03), generator)
    boxes, scores = head_outputs(size.crowded, size.side, generator)
    grid = grid_for_image((size.side, size.side), STRIDES)
    targets = CRITERION.prepare(make_targets(labels, boxes_norm, size.side), grid)
    assert targets.candidates is not None
    step = our_step(boxes, scores, targets, grid)
    row: dict[str, Any] = {"objects": CROWD, "images": size.crowded, "pairs": targets.candidates.count}
    row["ours_ms"] = round(1e3 * bench.medians({"ours": step}, repeats=5)["ours"], 1)
    boxes.grad = scores.grad = None
    gradients = (boxes.numel() + scores.numel()) * 4
    row["ours_peak_mb"] = round(allocation_peak(step) / 1e6, 1)
    return row | {"ours_temporaries_mb": round(row["ours_peak_mb"] - gradients / 1e6, 1)}


def main() -> None:
    """Measure, print and keep."""
    bench = start("loss", arguments(__doc__), rows())
    size = SMOKE if bench.smoke else Size()
    if why := absent("ultralytics"):
        bench.leave_out("peer", why)
    for row in (*(compare(objects, bench, size) for objects in COUNTS), crowd(bench, size)):
        bench.show(f"{row['objects']} objects", row)
        bench.keep(row)


if __name__ == "__main__":
    main()
