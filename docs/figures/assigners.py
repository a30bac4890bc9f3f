# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which candidates learn in the one drawn scene, by assigner."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from boxwright.losses import ATSS, AnchorRatio, Hungarian, SimOTA, TaskAligned
from boxwright.ops.boxes import cxcywh_to_xyxy, pairwise_iou
from boxwright.ops.denoising import Denoising, DenoisingQueries
from figures.canvas import COLOURS, drawing, panels
from figures.objects import CLASSES, STRIDES, dense, queries, scene, targets, with_anchors


@dataclass(frozen=True)
class Found:
    """A pair as a picture shows it."""

    target: int
    level: int
    x: float  # px
    y: float
    weight: float  # the largest is 1


def task_aligned_pairs(**options: object) -> list[Found]:
    """Pairs of `TaskAligned`."""
    return _of_dense(TaskAligned(**options))  # type: ignore[arg-type]


def anchor_ratio_pairs() -> list[Found]:
    """Pairs of `AnchorRatio`."""
    outputs, assign = with_anchors(), AnchorRatio()
    found = []
    for preds in (*outputs.auxiliary, outputs.final):
        pairs = assign(preds, targets())
        for anchor, target in zip(pairs.anchor.tolist(), pairs.target.tolist(), strict=True):
            x, y = preds.cells.points[anchor].tolist()
            found.append(Found(target, preds.layer, x, y, 1.0))
    return found


def _of_dense(assign: Callable[..., object]) -> list[Found]:
    preds = dense()
    pairs = assign(preds, targets())
    largest = float(pairs.weight.max())  # type: ignore[attr-defined]
    found = []
    for pair in pairs.valid.nonzero()[:, 0].tolist():  # type: ignore[attr-defined]
        anchor = int(pairs.anchor[pair])  # type: ignore[attr-defined]
        x, y = preds.cells.points[anchor].tolist()
        weight = float(pairs.weight[pair]) / largest  # type: ignore[attr-defined]
        found.append(Found(int(pairs.target[pair]), int(preds.cells.level[anchor]), x, y, weight))  # type: ignore[attr-defined]
    return found


def hungarian_pairs() -> list[Found]:
    """Pairs of `Hungarian`; a query has no level and lies at the centre of its box."""
    preds = queries()
    pairs = Hungarian()(preds, targets())
    found = []
    for query, target in zip(pairs.anchor.tolist(), pairs.target.tolist(), strict=True):
        x1, y1, x2, y2 = preds.boxes[0, query].tolist()
        found.append(Found(target, 0, (x1 + x2) / 2, (y1 + y2) / 2, 1.0))
    return found


def known_pairs() -> list[Found]:
    """Pairs of `Known` for denoising queries of two groups."""
    known = _denoising().known
    return [Found(target, 0, 0.0, 0.0, 1.0) for target in known.target.tolist()]


FOUND: dict[str, Callable[[], list[Found]]] = {
    "task_aligned": task_aligned_pairs,
    "anchor_ratio": anchor_ratio_pairs,
    "simota": lambda: _of_dense(SimOTA()),
    "atss": lambda: _of_dense(ATSS()),
    "hungarian": hungarian_pairs,
    "known": known_pairs,
}


def positives(kind: str) -> str:
    """A table: pairs of every object of the scene on every level."""
    found = FOUND[kind]()
    rows = [
        "| object | size, px | " + " | ".join(f"stride {s}" for s in STRIDES) + " | all |",
        "|---|---|---|---|---|---|",
    ]
    for index, (x1, y1, x2, y2) in enumerate(targets().boxes[0].tolist()):
        counts = [sum(of.target == index and of.level == level for of in found) for level in range(len(STRIDES))]
        cells = " | ".join(map(str, counts))
        rows.append(f"| {index} | {x2 - x1:.0f} x {y2 - y1:.0f} | {cells} | {sum(counts)} |")
    totals = [sum(of.level == level for of in found) for level in range(len(STRIDES))]
    rows.append(f"| all | | {' | '.join(map(str, totals))} | {len(found)} |")
    return "\n".join(rows)


def denoising_text() -> str:
    """How many queries and pairs the denoising picture stands for."""
    made = _denoising()
    return (
        f"{len(targets().labels[0])} objects, {made.groups} groups: {made.labels.shape[1]} denoising queries, "
        f"{len(made.known.anchor)} of them positive."
    )


def everywhere() -> str:
    """A table: pairs in the scene by assigner."""
    rows = ["| assigner | pairs | objects without one |", "|---|---|---|"]
    for kind in sorted(FOUND):
        found = FOUND[kind]()
        left = len(targets().labels[0]) - len({of.target for of in found})
        rows.append(f"| [`{kind}`](assigners/{kind}.md) | {len(found)} | {left} |")
    return "\n".join(rows)


def _show(found: list[Found]) -> Figure:
    figure, axes = panels(len(STRIDES), height=3.5, width=3.2)
    for level, (axis, stride) in enumerate(zip(axes, STRIDES, strict=True)):
        _scene(axis)
        lines = range(0, scene().image.shape[0] + 1, stride)
        axis.set_xticks(lines, [""] * len(lines))
        axis.set_yticks(lines, [""] * len(lines))
        axis.tick_params(length=0)
        axis.grid(alpha=0.4, linewidth=0.5, color="white", linestyle="-")
        here = [of for of in found if of.level == level]
        # Several priors of one cell lie side by side.
        seen: dict[tuple[float, float], int] = {}
        for of in here:
            number = seen[of.x, of.y] = seen.get((of.x, of.y), -1) + 1
            shift = (number % 3) * stride / 4 - (stride / 4 if number else 0)
            axis.scatter(
                of.x + shift, of.y + (number // 3) * stride / 4, s=8 + 40 * of.weight * min(stride, 16) / 16,
                color=COLOURS[of.target % len(COLOURS)], edgecolors="white", linewidths=0.6, zorder=3,
            )  # fmt: skip
        axis.set_title(f"stride {stride}: {len(here)} pairs", fontsize=9)
    return figure


def _scene(axis: Axes) -> None:
    image = scene().image
    axis.imshow(image // 2 + 110, extent=(0, image.shape[1], image.shape[0], 0))
    for index, (x1, y1, x2, y2) in enumerate(targets().boxes[0].tolist()):
        colour = COLOURS[index % len(COLOURS)]
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.4))
        axis.text(x1 + 1, y1 + 9, str(index), color=colour, fontsize=8, fontweight="bold")
    for side in axis.spines.values():
        side.set_visible(False)


@drawing
def task_aligned() -> Figure:
    """Cells that learn; a larger dot has a larger weight."""
    return _show(FOUND["task_aligned"]())


@drawing
def anchor_ratio() -> Figure:
    """Cells that learn; several dots in a cell are several priors."""
    return _show(FOUND["anchor_ratio"]())


@drawing
def simota() -> Figure:
    """Cells that learn; a larger dot has a larger weight."""
    return _show(FOUND["simota"]())


@drawing
def atss() -> Figure:
    """Cells that learn."""
    return _show(FOUND["atss"]())


def query_table() -> str:
    """A table: the query of every object, its overlap with it, and that of the best query."""
    preds = queries()
    pairs = Hungarian()(preds, targets())
    iou = pairwise_iou(preds.boxes[0], targets().boxes[0])
    rows = ["| object | matched query | its IoU | best IoU of any query |", "|---|---|---|---|"]
    for target in range(iou.shape[1]):
        query = int(pairs.anchor[pairs.target == target])
        rows.append(f"| {target} | {query} | {iou[query, target]:.2f} | {iou[:, target].max():.2f} |")
    return "\n".join(rows)


@drawing
def hungarian() -> Figure:
    """Boxes of the queries, and lines to the objects they were matched to."""
    figure, axes = panels(2, height=3.5, width=3.5)
    preds = queries()
    pairs = Hungarian()(preds, targets())
    target_of = dict(zip(pairs.anchor.tolist(), pairs.target.tolist(), strict=True))
    for axis, name in zip(axes, ("all queries", "matched queries"), strict=True):
        _scene(axis)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(name, fontsize=9)
        for query, (x1, y1, x2, y2) in enumerate(preds.boxes[0].tolist()):
            target = target_of.get(query)
            if target is None and axis is axes[1]:
                continue
            colour = "black" if target is None else COLOURS[target % len(COLOURS)]
            style = {"linewidth": 0.5 if target is None else 1.4, "linestyle": "-" if target is None else "--"}
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, **style))
    return figure


@drawing
def known() -> Figure:
    """Denoising queries of one group: positive ones, and negative ones that are background."""
    figure, axes = panels(2, height=3.5, width=3.5)
    made = _denoising()
    boxes = cxcywh_to_xyxy(made.box_logits.sigmoid() * scene().image.shape[0])[0]
    positive = set(made.known.anchor.tolist())
    objects = len(targets().labels[0])
    for axis, block in zip(axes, range(2), strict=True):
        _scene(axis)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title("negative: background" if block else "positive: matched to its object", fontsize=9)
        for slot in range(block * objects, (block + 1) * objects):
            x1, y1, x2, y2 = boxes[slot].tolist()
            colour = COLOURS[slot % objects]
            assert (slot in positive) == (block == 0)
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linestyle="--"))
    return figure


def _denoising() -> DenoisingQueries:
    side = scene().image.shape[0]
    most = 2 * len(targets().labels[0])  # two groups
    return Denoising(budget=most)(targets(), (side, side), CLASSES, 0, torch.Generator().manual_seed(3))
