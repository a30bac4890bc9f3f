# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How fast is every criterion, forward and backward, and what memory does it take beside the peer's?

Both sides see the same raw head outputs (batch 16, 640 px) and the same labels, in one process, on our side through the
adapters that a stranger would use, with prepared targets. Questions: each criterion at 7, 50 and 200 objects per image
(segmentation up to 50), detection also with 1 and 365 classes, and one very dense case: an image with 5 000 objects.
The peers are run as black boxes: `ultralytics` (AGPL), and the package `yolov5` (7.0.14, GPL) for YOLOv5; without
them only our side is measured. `temporaries` are what torch holds at the peak beyond the gradients.
"""

import importlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from boxwright.losses import (
    Criterion,
    end_to_end_progressive,
    from_detr_stacks,
    from_yolov5_maps,
    from_yolov8_joined,
    rtdetr_modern,
    targets_from_rows,
    yolov5_detect,
    yolov5_grid,
    yolov8_detect,
    yolov8_oriented,
    yolov8_pose,
    yolov8_segment,
)
from boxwright.structures import Outputs, Targets
from harness import Bench, absent, allocation_peak, arguments, start

SIDE, BATCH = 640, 16  # px, images
SMOKE_SIDE, SMOKE_BATCH = 64, 2
STRIDES, BINS, COEFS, KEYPOINTS = (8, 16, 32), 16, 32, 17
ANCHORS = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)
Step = Callable[[], Tensor]


@dataclass
class Scene:
    """Raw outputs that need a gradient, and the labels of their batch."""

    batch: int
    classes: int
    side: int  # px
    leaves: dict[str, Tensor] = field(default_factory=dict)
    image: Tensor = field(default_factory=lambda: torch.zeros(0))
    labels: Tensor = field(default_factory=lambda: torch.zeros(0))
    boxes: Tensor = field(default_factory=lambda: torch.zeros(0))  # normalised centre boxes

    @property
    def logits_bytes(self) -> int:
        """Bytes of all leaves, which is also what their gradients take."""
        return sum(leaf.numel() * 4 for leaf in self.leaves.values())

    def clear(self) -> None:
        """Forget the gradients."""
        for leaf in self.leaves.values():
            leaf.grad = None


def random_boxes(counts: Sequence[int], sides: tuple[float, float], g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Image index (N,) and normalised centre boxes (N, 4), sides log-uniform in the given range."""
    low, high = (math.log(side) for side in sides)
    size = torch.exp(torch.rand(sum(counts), 2, generator=g) * (high - low) + low)
    centre = size / 2 + torch.rand(sum(counts), 2, generator=g) * (1 - size)
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), torch.cat((centre, size), dim=1)


@dataclass(frozen=True)
class Question:
    """One workload."""

    name: str
    counts: tuple[int, ...]  # objects of each image
    classes: int = 80
    sides: tuple[float, float] = (0.04, 0.6)  # of the boxes, as shares of the image's
    side: int = SIDE  # of the image, px


def dense_scene(question: Question, classes: int | None = None, seed: int = 0) -> Scene:
    """What a YOLOv8 head leaves: raw distances and class logits, candidates last."""
    g = torch.Generator().manual_seed(seed)
    batch, classes = len(question.counts), classes or question.classes
    anchors = sum((question.side // stride) ** 2 for stride in STRIDES)
    found = Scene(batch, classes, question.side)
    found.leaves["boxes"] = torch.randn(batch, 4 * BINS, anchors, generator=g).requires_grad_()
    found.leaves["scores"] = (torch.randn(batch, classes, anchors, generator=g) - 4).requires_grad_()
    found.image, found.boxes = random_boxes(question.counts, question.sides, g)
    found.labels = torch.randint(classes, (len(found.image),), generator=g)
    return found


def instance_map(scene: Scene, side: int) -> Tensor:
    """(B, side, side) int32: 1 + place of the object in its image; later objects lie on top."""
    found = torch.zeros(scene.batch, side, side, dtype=torch.int32)
    centre, size = scene.boxes[:, :2] * side, scene.boxes[:, 2:] * side
    first, last = (centre - size / 2).long().clamp(min=0), (centre + size / 2).long().clamp(max=side)
    place = [0] * scene.batch
    for image, (x1, y1), (x2, y2) in zip(scene.image.tolist(), first.tolist(), last.tolist(), strict=True):
        place[image] += 1
        found[image, y1:y2, x1:x2] = place[image]
    return found


@dataclass(frozen=True)
class Workload:
    """Our side of a question, laid out before the step, and how the peer's step is built."""

    scene: Scene
    criterion: Criterion
    outputs: Callable[[], Outputs]
    targets: Targets
    peer: Callable[[], Step | None]

    def step(self, *, compiled: bool = False) -> Step:
        """Our criterion on prepared targets, forward and backward."""

        def total_of() -> Tensor:
            return self.criterion(self.outputs(), self.targets).total

        run = torch.compile(total_of, fullgraph=True) if compiled else total_of
        return stepping(self.scene, run)


def stepping(scene: Scene, total_of: Callable[[], Tensor]) -> Step:
    """Forward and backward, from no gradients."""

    def step() -> Tensor:
        scene.clear()
        total = total_of()
        torch.autograd.backward(total)
        return total.detach()

    return step


def workload(
    scene: Scene,
    criterion: Criterion,
    outputs: Callable[[], Outputs],
    peer: Callable[[], Step | None],
    **labels: Any,
) -> Workload:
    """The scene with its labels prepared on the host."""
    targets = targets_from_rows(
        scene.image, scene.labels, scene.boxes, batch=scene.batch, image_size=(scene.side, scene.side), **labels
    )
    grid = outputs().final.grid
    if grid is not None and grid.prior_wh is not None:
        grid = yolov5_grid((scene.side, scene.side), ANCHORS, STRIDES, anchor_unit="pixel")
    return Workload(scene, criterion, outputs, criterion.prepare(targets, grid), peer)


def peer_model(name: str) -> Any | None:
    """The peer's model of this name with its published gains, or None where it is not installed."""
    try:
        yolo = importlib.import_module("ultralytics").YOLO
    except ImportError:
        return None
    model = yolo(name).model
    gains = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "pose": 12.0, "kobj": 1.0, "angle": 1.0}
    model.args = SimpleNamespace(**gains, overlap_mask=True, epochs=100)
    return model


def peer(scene: Scene, name: str, outputs: Callable[[], Any], **labels: Tensor) -> Step | None:
    """The peer's criterion, forward and backward, or None where it is not installed."""
    model = peer_model(name)
    if model is None:
        return None
    if scene.classes != 80 and "pose" not in name:
        head = model.model[-1]
        head.nc, head.no = scene.classes, scene.classes + 4 * BINS
    criterion = model.init_criterion()
    rows = {
        "batch_idx": scene.image.float(),
        "cls": scene.labels.reshape(-1, 1).float(),
        "bboxes": scene.boxes,
    } | labels
    return stepping(scene, lambda: criterion(outputs(), rows)[0].sum())


def feature_maps(scene: Scene) -> list[Tensor]:
    """The peer reads nothing of them but their shapes."""
    return [torch.zeros(scene.batch, 1, scene.side // stride, scene.side // stride) for stride in STRIDES]


def joined(scene: Scene, **extras: Any) -> Callable[[], Outputs]:
    """Our outputs of the leaves."""
    size = (scene.side, scene.side)
    return lambda: from_yolov8_joined(
        scene.leaves["boxes"], scene.leaves["scores"], STRIDES, image_size=size, num_bins=BINS, **extras
    )


def detect(question: Question) -> Workload:
    """Boxes and classes."""
    scene = dense_scene(question)
    feats = feature_maps(scene)
    theirs = partial(peer, scene, "yolov8n.yaml", lambda: {**scene.leaves, "feats": feats})
    return workload(scene, yolov8_detect(), joined(scene), theirs)


def segment(question: Question) -> Workload:
    """With mask coefficients and prototypes of a quarter of the side."""
    scene, side = dense_scene(question), question.side // 4
    g = torch.Generator().manual_seed(1)
    anchors = scene.leaves["boxes"].shape[2]
    coefs = torch.randn(scene.batch, COEFS, anchors, generator=g).requires_grad_()
    prototypes = torch.randn(scene.batch, COEFS, side, side, generator=g).requires_grad_()
    scene.leaves |= {"mask_coefficient": coefs, "proto": prototypes}
    masks, feats = instance_map(scene, side), feature_maps(scene)
    outputs = joined(scene, mask_coefs=coefs, prototypes=prototypes)
    theirs = partial(peer, scene, "yolov8n-seg.yaml", lambda: {**scene.leaves, "feats": feats}, masks=masks.float())
    return workload(scene, yolov8_segment(), outputs, theirs, instance_map=masks)


def pose(question: Question) -> Workload:
    """One class with 17 keypoints."""
    scene = dense_scene(question, classes=1)
    g = torch.Generator().manual_seed(1)
    raw = torch.randn(scene.batch, KEYPOINTS * 3, scene.leaves["boxes"].shape[2], generator=g).requires_grad_()
    scene.leaves["kpts"] = raw
    centre, size = scene.boxes[:, None, :2], scene.boxes[:, None, 2:]
    places = centre + (torch.rand(len(scene.boxes), KEYPOINTS, 2, generator=g) - 0.5) * size
    seen = torch.randint(3, (len(scene.boxes), KEYPOINTS, 1), generator=g).float()
    points, feats = torch.cat((places, seen), dim=2), feature_maps(scene)
    theirs = partial(peer, scene, "yolov8n-pose.yaml", lambda: {**scene.leaves, "feats": feats}, keypoints=points)
    return workload(scene, yolov8_pose(), joined(scene, keypoints=raw), theirs, keypoints=points)


def oriented(question: Question) -> Workload:
    """With an angle for each candidate."""
    scene = dense_scene(question)
    g = torch.Generator().manual_seed(1)
    angle = torch.rand(scene.batch, 1, scene.leaves["boxes"].shape[2], generator=g).requires_grad_()
    scene.leaves["angle"] = angle
    scene.boxes = torch.cat((scene.boxes, torch.rand(len(scene.boxes), 1, generator=g)), dim=1)
    feats = feature_maps(scene)
    theirs = partial(peer, scene, "yolov8n-obb.yaml", lambda: {**scene.leaves, "feats": feats})
    return workload(scene, yolov8_oriented(modern=True), joined(scene, angle=angle), theirs)


def dual(question: Question) -> Workload:
    """Two branches on the same labels."""
    scene = dense_scene(question)
    second = dense_scene(question, seed=1)
    scene.leaves |= {f"{name} of one": leaf for name, leaf in second.leaves.items()}
    feats, names, size = feature_maps(scene), ("boxes", "scores"), (scene.side, scene.side)

    def outputs() -> Outputs:
        many, one = (
            from_yolov8_joined(
                *(scene.leaves[name + suffix] for name in names), STRIDES, image_size=size, num_bins=BINS, role=role
            ).final
            for suffix, role in (("", "one2many"), (" of one", "one2one"))
        )
        return Outputs(one, (many,))

    def peer_outputs() -> dict[str, Any]:
        many = {name: scene.leaves[name] for name in names} | {"feats": feats}
        one = {name: scene.leaves[f"{name} of one"] for name in names} | {"feats": feats}
        return {"one2many": many, "one2one": one}

    return workload(scene, end_to_end_progressive(), outputs, partial(peer, scene, "yolov10n.yaml", peer_outputs))


def anchors(question: Question) -> Workload:
    """YOLOv5: three levels of (B, anchors, rows, columns, 5 + C)."""
    g = torch.Generator().manual_seed(0)
    batch, columns = len(question.counts), 5 + question.classes
    scene = Scene(batch, question.classes, question.side)
    for stride in STRIDES:
        side = question.side // stride
        scene.leaves[f"map{stride}"] = torch.randn(batch, 3, side, side, columns, generator=g).requires_grad_()
    scene.image, scene.boxes = random_boxes(question.counts, question.sides, g)
    scene.labels = torch.randint(question.classes, (len(scene.image),), generator=g)
    maps = list(scene.leaves.values())

    def outputs() -> Outputs:
        return from_yolov5_maps(maps, ANCHORS, STRIDES, anchor_unit="pixel", num_classes=question.classes)

    return workload(scene, yolov5_detect(), outputs, partial(peer_yolov5, scene, maps))


def peer_yolov5(scene: Scene, maps: list[Tensor]) -> Step | None:
    """The criterion of the package `yolov5`, or None where it is not installed."""
    try:
        make_criterion = importlib.import_module("yolov5.utils.loss").ComputeLoss
    except ImportError:
        return None
    head, model = nn.Module(), nn.Module()
    head.na, head.nc, head.nl, head.stride = 3, scene.classes, 3, torch.tensor(STRIDES).float()  # type: ignore[assignment]
    head.anchors = torch.tensor(ANCHORS) / head.stride.view(3, 1, 1)  # type: ignore[operator]
    model.model, model.weight = nn.ModuleList([head]), nn.Parameter(torch.zeros(1))
    gains = {"box": 0.05, "cls": 0.5, "obj": 1.0, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0}
    model.hyp = {**gains, "label_smoothing": 0.0}  # type: ignore[assignment]
    criterion = make_criterion(model)
    table = torch.cat((scene.image[:, None].float(), scene.labels[:, None].float(), scene.boxes), dim=1)
    return stepping(scene, lambda: criterion(maps, table)[0].sum())


def queries(question: Question) -> Workload:
    """RT-DETR: encoder proposals and six decoder layers of 300 queries."""
    g = torch.Generator().manual_seed(0)
    scene = Scene(len(question.counts), question.classes, question.side)
    shape = (7, scene.batch, 300)
    scene.leaves["boxes"] = (torch.rand(*shape, 4, generator=g) * 0.6 + 0.2).requires_grad_()
    scene.leaves["logits"] = (torch.randn(*shape, question.classes, generator=g) - 4).requires_grad_()
    scene.image, scene.boxes = random_boxes(question.counts, question.sides, g)
    scene.labels = torch.randint(question.classes, (len(scene.image),), generator=g)

    def outputs() -> Outputs:
        return from_detr_stacks(scene.leaves["boxes"], scene.leaves["logits"], image_size=(scene.side, scene.side))

    return workload(scene, rtdetr_modern(), outputs, partial(peer_queries, scene, question))


def peer_queries(scene: Scene, question: Question) -> Step | None:
    """The peer's criterion for its RT-DETR, or None where it is not installed."""
    try:
        model = importlib.import_module("ultralytics").RTDETR("rtdetr-l.yaml").model
    except ImportError:
        return None
    model.nc = scene.classes
    criterion = model.init_criterion()
    rows = {"cls": scene.labels, "bboxes": scene.boxes, "batch_idx": scene.image, "gt_groups": list(question.counts)}
    return stepping(scene, lambda: sum(criterion((scene.leaves["boxes"], scene.leaves["logits"]), rows).values()))


FAMILIES = {
    "detect": detect,
    "segment": segment,
    "pose": pose,
    "oriented": oriented,
    "dual": dual,
    "yolov5": anchors,
    "rtdetr": queries,
}


def questions(family: str, *, smoke: bool = False) -> list[Question]:
    """What is asked of a family; in a smoke run the same of smaller images and fewer of them."""
    batch, side = (SMOKE_BATCH, SMOKE_SIDE) if smoke else (BATCH, SIDE)
    counts = (7, 50) if family == "segment" else (7, 50, 200)
    found = [Question(f"{family}, {count} objects", (count,) * batch, side=side) for count in counts]
    if family == "detect":
        found += [Question(f"detect, 50 objects, {n} classes", (50,) * batch, n, side=side) for n in (1, 365)]
        crowd = (5000, *[7] * (batch // 2 - 1))
        found.append(Question("detect, an image of 5 000 objects", crowd, sides=(0.006, 0.03), side=side))
    return found


def rows() -> list[str]:
    """Names of the table's rows."""
    return [question.name for family in FAMILIES for question in questions(family)]


def measure(family: str, question: Question, bench: Bench) -> dict[str, Any]:
    """Times, ratio and memory of one question."""
    work = FAMILIES[family](question)
    steps = {"ours": work.step(compiled=bench.options.compile)}
    if not bench.options.no_peer and (theirs := work.peer()):
        steps["peer"] = theirs
    row: dict[str, Any] = {"family": family, "objects": sum(question.counts)}
    clock = time.process_time if bench.options.cpu_time else time.perf_counter
    seconds = bench.medians(steps, warmup=4, burst=5, clock=clock)
    for name, step in steps.items():
        row[f"{name}_ms"] = round(1e3 * seconds[name], 1)
        row[f"{name}_total"] = float(step())
        work.scene.clear()
        row[f"{name}_temporaries_mb"] = round((allocation_peak(step) - work.scene.logits_bytes) / 1e6, 1)
    row["outputs_mb"] = round(work.scene.logits_bytes / 1e6, 1)
    if "peer" in steps:
        row["ratio"] = round(row["peer_ms"] / row["ours_ms"], 2)
    return row


def main() -> None:
    """Measure, print and keep."""
    parser = arguments(__doc__)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--objects", type=int, nargs="+", help="only questions with so many objects in every image")
    parser.add_argument("--no-peer", action="store_true", help="our side only")
    parser.add_argument("--compile", action="store_true", help="our side through torch.compile, inductor, one graph")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time instead of wall time: for a busy machine")
    bench = start("criteria", parser, rows())
    options = bench.options
    for package in ("ultralytics", "yolov5"):
        if why := absent(package):
            bench.leave_out(f"peer {package}", why)
    for family in options.families:
        for question in questions(family, smoke=bench.smoke):
            if options.objects and question.counts[0] not in options.objects:
                continue
            row = measure(family, question, bench)
            bench.show(question.name, row)
            clock = "cpu" if options.cpu_time else "wall"
            bench.keep({"question": question.name, **row, "compiled": options.compile, "clock": clock})


if __name__ == "__main__":
    main()
