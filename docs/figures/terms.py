# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Curves and numbers of the terms, by calling them."""

from typing import Any, get_args

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from boxwright.losses import (
    AnchorOverlap,
    Angle,
    Attribute,
    BoxL1,
    BoxOverlap,
    DistanceBins,
    DistanceL1,
    ExclusiveScores,
    FocalScores,
    HardScores,
    KeypointLikelihood,
    KeypointLocation,
    KeypointVisibility,
    Objectness,
    PrototypeMasks,
    QualityFocalScores,
    QueryOverlap,
    QueryScores,
    QueryVarifocalScores,
    SemanticMap,
    SoftScores,
    VarifocalScores,
)
from boxwright.losses.terms.box import Unit
from boxwright.losses.terms.objectness import published_balance
from boxwright.ops.box_losses import BoxSimilarityName
from boxwright.ops.keypoints import COCO_SIGMAS
from boxwright.ops.overlap import OverlapName
from figures.canvas import drawing, panels
from figures.cell import SIDE, TRUTH, bench, curve, line, scaled, shifted

CLASSIC: tuple[str, ...] = get_args(OverlapName)
LATER: tuple[str, ...] = get_args(BoxSimilarityName)
SQUARE = (16.0, 16.0, 48.0, 48.0)  # px


def value(term: Any, **options: Any) -> str:
    """A term's contribution for one pair, three digits behind the point."""
    options = {name: torch.tensor([of]) if isinstance(of, tuple | list) else of for name, of in options.items()}
    if "truth" in options and isinstance(options["truth"], torch.Tensor):
        options["truth"] = tuple(options["truth"][0].tolist())
    return f"{curve(term, 1, **options)[0]:.3f}"


def overlap_table() -> str:
    """A table: 1 - similarity by name, for a box moved by half its width, of half the size, and far away."""
    cases = {
        "equal": shifted(torch.zeros(1)),
        "moved by half its width": shifted(torch.tensor([20.0])),
        "half as wide and high": scaled(torch.tensor([0.5])),
        "half as wide": scaled(torch.tensor([0.5]), (1.0, 0.0)),
        "apart by a width": shifted(torch.tensor([80.0])),
    }
    rows = [f"| overlap | {' | '.join(cases)} |", "|---|" + "---|" * len(cases)]
    for name in (*CLASSIC, *LATER):
        numbers = [
            f"{abs(curve(BoxOverlap(overlap=name, unit='pixel'), 1, boxes=boxes)[0]):.3f}" for boxes in cases.values()
        ]
        rows.append(f"| `{name}` | {' | '.join(numbers)} |")
    return "\n".join(rows)


def unit_gap() -> str:
    """How much the unit of the epsilons changes the value of a thin box."""
    truth, boxes = (30.0, 32.0, 34.0, 32.5), torch.tensor([[31.0, 32.0, 35.0, 32.5]])
    found = [curve(BoxOverlap(unit=unit), 1, boxes=boxes, truth=truth)[0] for unit in get_args(Unit)]
    return (
        f"A box of 4 x 0.5 px that is moved by 1 px costs {', '.join(f'{of:.5f}' for of in found)} in the units "
        f"{', '.join(get_args(Unit))}"
    )


def quality(term: Any, logit: float, weight: float) -> str:
    """A score term's cost of a matched entry with this logit and this quality."""
    return value(term, logits=(logit,), weight=weight)


def gain_table() -> str:
    """A table: published balance of objectness by number of levels."""
    rows = ["| levels | balance, finest first |", "|---|---|"]
    rows += [f"| {count} | {', '.join(f'{of:g}' for of in published_balance(count))} |" for count in range(1, 6)]
    return "\n".join(rows)


@drawing
def box_overlap() -> Figure:
    """One minus the similarity of a moved and of a scaled box."""
    figure, axes = panels(4, height=3.0, width=2.9)
    move, scale = line(-75, 75), line(0.05, 2.5)
    for row, names in enumerate((CLASSIC, LATER)):
        for name in names:
            term = BoxOverlap(overlap=name, unit="pixel")  # type: ignore[arg-type]
            axes[2 * row].plot(move, curve(term, len(move), boxes=shifted(move)), label=name)
            axes[2 * row + 1].plot(scale, curve(term, len(scale), boxes=scaled(scale, (1.0, 0.0))), label=name)
        axes[2 * row].set_xlabel("moved to the right by, px")
        axes[2 * row + 1].set_xlabel("width times")
        axes[2 * row].legend(loc="lower right", fontsize=7)
    axes[0].set_ylabel("1 - overlap")
    return figure


@drawing
def probiou() -> Figure:
    """Overlap of turned boxes of several shapes."""
    figure, (axis, other) = panels(2)
    turn = line(-90, 90)
    for shape in ((32, 32), (40, 24), (56, 14), (60, 6)):
        truth = (32.0, 32.0, float(shape[0]), float(shape[1]), 0.0)
        boxes = torch.tensor(truth, dtype=torch.float64).repeat(len(turn), 1)
        boxes[:, 4] = torch.deg2rad(turn)
        axis.plot(
            turn,
            curve(BoxOverlap(overlap="probiou"), len(turn), boxes=boxes, truth=truth),
            label=f"{shape[0]} x {shape[1]}",
        )
    axis.set(xlabel="turned by, degrees", ylabel="1 - probIoU")
    axis.legend(fontsize=7, title="w x h, px")
    move = line(-60, 60)
    truth = (32.0, 32.0, 40.0, 24.0, 0.0)
    boxes = torch.tensor(truth, dtype=torch.float64).repeat(len(move), 1)
    boxes[:, 0] += move
    for floor in (0.0, 0.01):
        term = BoxOverlap(overlap="probiou", cov_floor=floor)
        other.plot(move, curve(term, len(move), boxes=boxes, truth=truth), label=f"cov_floor {floor}")
    other.set(xlabel="moved by, px")
    other.legend(fontsize=7)
    return figure


@drawing
def anchor_overlap() -> Figure:
    """The same curves in centre form."""
    figure, axes = panels(2)
    move, scale = line(-75, 75), line(0.05, 2.5)
    for name in CLASSIC:
        term = AnchorOverlap(overlap=name)  # type: ignore[arg-type]
        axes[0].plot(move, curve(term, len(move), boxes=shifted(move)), label=name)
        axes[1].plot(scale, curve(term, len(scale), boxes=scaled(scale, (1.0, 0.0))), label=name)
    axes[0].set(xlabel="moved to the right by, px", ylabel="1 - overlap")
    axes[1].set(xlabel="width times")
    axes[0].legend(fontsize=7)
    return figure


@drawing
def distance_bins() -> Figure:
    """Loss over the true distance for distributions, and where the gradient of the bins points."""
    figure, (axis, bars) = panels(2)
    bins, cell = 8, SIDE
    truth = line(0, 7.5)
    for peak, sharp in ((3.0, 1.0), (3.0, 4.0), (3.4, 4.0)):
        raw = _peaked(peak, sharp, bins)
        numbers = [
            curve(DistanceBins(), 1, box_raw=raw, num_bins=bins, truth=(32 - d * cell,) * 2 + (32 + d * cell,) * 2)[0]
            for d in truth.tolist()
        ]
        axis.plot(truth, numbers, label=f"peak at {peak:g}, sharpness {sharp:g}")
    axis.set(xlabel="true distance, cells", ylabel="loss", ylim=(0, 12))
    axis.axvline(bins - 1 - 0.01, color="black", linewidth=0.8, linestyle=":")
    axis.legend(fontsize=7)
    raw = _peaked(3.0, 1.0, bins).requires_grad_()
    side = 4.6 * cell
    DistanceBins()(*bench(1, box_raw=raw, num_bins=bins, truth=(32 - side,) * 2 + (32 + side,) * 2)).sum().backward()
    assert raw.grad is not None
    bars.bar(range(bins), -raw.grad[0, :bins].numpy())
    bars.axvline(4.6, color="black", linewidth=0.8, linestyle=":")
    bars.set(xlabel="bin; true distance 4.6", ylabel="push on the bin's logit")
    return figure


def _peaked(peak: float, sharp: float, bins: int) -> torch.Tensor:
    side = -sharp * (torch.arange(bins, dtype=torch.float64) - peak).abs()
    return side.repeat(4)[None]


@drawing
def distance_l1() -> Figure:
    """Loss over the error of one side."""
    figure, (axis,) = panels(1, width=4)
    error = line(-40, 40)
    boxes = torch.tensor(TRUTH, dtype=torch.float64) + error[:, None] * torch.tensor([0.0, 0.0, 1.0, 0.0])
    axis.plot(error, curve(DistanceL1(), len(error), boxes=boxes))
    axis.set(xlabel="right side off by, px (image 64 px wide)", ylabel="loss")
    return figure


@drawing
def soft_scores() -> Figure:
    """Cost of one class over its logit; exclusive classes over the logit of the right class."""
    figure, (axis, other) = panels(2)
    logits = line(-8, 8)
    for target in (0.0, 0.3, 0.7, 1.0):
        axis.plot(
            logits, curve(SoftScores(), len(logits), logits=logits[:, None], weight=target), label=f"target {target:g}"
        )
    axis.set(xlabel="logit z", ylabel="cost")
    axis.legend(fontsize=7)
    for rivals in (0, 1, 9):
        table = torch.cat((logits[:, None], torch.zeros(len(logits), rivals)), dim=1)
        for exclusive, style in ((False, "-"), (True, "--")):
            numbers = curve(SoftScores(), len(logits), logits=table, weight=0.7, exclusive=exclusive)
            label = f"{rivals + 1} classes, {'softmax' if exclusive else 'sigmoid'}"
            other.plot(logits, numbers, style, color=f"C{(0, 1, 9).index(rivals)}", label=label)
    other.set(xlabel="logit of the right class; others 0; target 0.7")
    other.legend(fontsize=6)
    return figure


def _modulated(terms: dict[str, Any]) -> Figure:
    figure, (axis, other) = panels(2)
    p = line(0.01, 0.99)
    logits = torch.logit(p)[:, None]
    for name, term in terms.items():
        axis.plot(p, curve(term, len(p), logits=logits, weight=0.7), label=name)
        preds, targets, pairs = bench(len(p), logits=logits, weight=0.7)
        nobody = type(pairs)(pairs.image, pairs.anchor, pairs.target, ~pairs.valid, 0 * pairs.weight, pairs.normalizer)
        other.plot(p, term(preds, targets, nobody).reshape(-1), label=name)
    axis.set(xlabel="score p of a matched entry, quality 0.7", ylabel="cost", ylim=(0, 3))
    other.set(xlabel="score p of a background entry", ylim=(0, 3))
    other.legend(fontsize=7)
    return figure


@drawing
def focal_scores() -> Figure:
    """Cost over the score, against plain cross-entropy."""
    return _modulated(
        {
            "cross-entropy": SoftScores(),
            "focal, gamma 2": FocalScores(),
            "focal, hard target": FocalScores(target="hard"),
            "focal, gamma 4": FocalScores(gamma=4.0),
        }
    )


@drawing
def quality_focal_scores() -> Figure:
    """Cost over the score, against plain cross-entropy."""
    return _modulated(
        {
            "cross-entropy": SoftScores(),
            "quality focal, gamma 2": QualityFocalScores(),
            "gamma 1": QualityFocalScores(gamma=1.0),
        }
    )


@drawing
def varifocal_scores() -> Figure:
    """Cost over the score, against plain cross-entropy."""
    return _modulated(
        {
            "cross-entropy": SoftScores(),
            "varifocal": VarifocalScores(),
            "alpha 0.25, gamma 1.5": VarifocalScores(alpha=0.25, gamma=1.5),
        }
    )


@drawing
def hard_scores() -> Figure:
    """Mean cost of three classes over the logit of the right one."""
    figure, (axis, other) = panels(2)
    logits = line(-8, 8)
    table = torch.cat((logits[:, None], torch.full((len(logits), 2), -3.0)), dim=1)
    for smoothing in (0.0, 0.1, 0.3):
        axis.plot(
            logits, curve(HardScores(smoothing=smoothing), len(logits), logits=table), label=f"smoothing {smoothing:g}"
        )
    axis.set(xlabel="logit of the right class; others -3", ylabel="loss of the pair")
    axis.legend(fontsize=7)
    for name in ("none", "focal", "quality_focal"):
        term = HardScores(modulation=name, smoothing=0.1)  # type: ignore[arg-type]
        other.plot(logits, curve(term, len(logits), logits=table), label=name)
    other.set(xlabel="the same with smoothing 0.1", yscale="log", ylim=(1e-6, 10))
    other.legend(fontsize=7, title="modulation")
    return figure


@drawing
def exclusive_scores() -> Figure:
    """Loss over the lead of the right class, against the binary form."""
    figure, (axis, other) = panels(2)
    logits = line(-8, 8)
    for classes in (2, 10, 80):
        table = torch.cat((logits[:, None], torch.zeros(len(logits), classes - 1)), dim=1)
        axis.plot(
            logits, curve(ExclusiveScores(), len(logits), logits=table, exclusive=True), label=f"{classes} classes"
        )
        other.plot(logits, curve(HardScores(), len(logits), logits=table), label=f"{classes} classes")
    axis.set(xlabel="logit of the right class; others 0", ylabel="loss of the pair", title="softmax (this term)")
    other.set(xlabel="logit of the right class; others 0", title="sigmoid (HardScores)")
    axis.legend(fontsize=7)
    return figure


@drawing
def objectness() -> Figure:
    """Cost over the logit for boxes that fit well, less, and not at all."""
    figure, (axis, other) = panels(2)
    logits = line(-8, 8)
    for share in (0.0, 10.0, 25.0, 60.0):
        boxes = shifted(torch.full((len(logits),), share, dtype=torch.float64))
        fit = 1 - curve(AnchorOverlap(), 1, boxes=boxes[:1])[0]
        preds = bench(len(logits), boxes=boxes, objectness=logits[:, None])
        axis.plot(logits, Objectness()(*preds).detach().reshape(-1) * len(logits) / 4, label=f"{max(fit, 0):.2f}")
    axis.set(xlabel="objectness logit", ylabel="cost of the cell")
    axis.legend(fontsize=7, title="CIoU = target")
    fits = line(0, 1, 21)
    for gr in (1.0, 0.5, 0.0):
        other.plot(fits, (1 - gr) + gr * fits, label=f"gr {gr:g}")
    other.set(xlabel="CIoU of the predicted box", ylabel="target")
    other.legend(fontsize=7)
    return figure


def mask_example() -> str:
    """Mask pixels that each rule keeps of a box, and the value of the term."""
    rows = ["| crop | kept pixels | area of the box, pixels | value |", "|---|---|---|---|"]
    for crop in ("index", "centre"):
        kept, area = _kept(crop), (_MASK_BOX[2] - _MASK_BOX[0]) * (_MASK_BOX[3] - _MASK_BOX[1]) / 16
        number = PrototypeMasks(crop=crop)(*_mask_bench()).sum().item()  # type: ignore[arg-type]
        rows.append(f"| `{crop}` | {int(kept.sum())} | {area:.2f} | {number:.3f} |")
    return "\n".join(rows)


_MASK_BOX = (13.0, 10.0, 50.5, 39.0)  # px of a 64 px image; masks are a quarter of that


def _mask_bench() -> tuple[Any, ...]:
    rows, columns = np.mgrid[0:16, 0:16] + 0.5
    inside = ((columns - 8) / 4.7) ** 2 + ((rows - 6.1) / 3.6) ** 2 < 1
    logit = 3 - 0.8 * np.hypot((columns - 9) / 1.2, rows - 6.5)
    return bench(
        1,
        truth=_MASK_BOX,
        mask_coefs=torch.ones(1, 1, 1, dtype=torch.float64),
        prototypes=torch.from_numpy(logit)[None, None],
        target_fields={"instance_map": torch.from_numpy(inside.astype(np.int32))[None]},
    )


def _kept(crop: str) -> np.ndarray:
    """Pixels with a gradient."""
    preds, targets, pairs = _mask_bench()
    leaf = preds.prototypes.clone().requires_grad_()
    preds = type(preds)(
        preds.logits, preds.box_raw, preds.decoder, preds.grid, mask_coefs=preds.mask_coefs, prototypes=leaf
    )
    PrototypeMasks(crop=crop)(preds, targets, pairs).sum().backward()  # type: ignore[arg-type]
    assert leaf.grad is not None
    return np.asarray(leaf.grad[0, 0] != 0)


@drawing
def prototype_masks() -> Figure:
    """Label, prediction and the pixels that count."""
    figure, axes = panels(4, width=2.3, height=2.6)
    preds, targets, _ = _mask_bench()
    shown = {
        "label": targets.instance_map[0] > 0,
        "predicted, sigmoid": preds.prototypes[0, 0].sigmoid(),
        "pixels that count: index": _kept("index"),
        "centre": _kept("centre"),
    }
    for axis, (name, picture) in zip(axes, shown.items(), strict=True):
        _mask(axis, picture, name)
    return figure


def _mask(axis: Axes, picture: Any, name: str) -> None:
    x1, y1, x2, y2 = (side / 4 for side in _MASK_BOX)
    axis.imshow(np.asarray(picture, dtype=float), extent=(0, 16, 16, 0), cmap="Blues", vmin=0, vmax=1.3)
    axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="#d55e00", linewidth=1.4))
    axis.set_xticks(range(0, 17, 2), [""] * 9)
    axis.set_yticks(range(0, 17, 2), [""] * 9)
    axis.set_title(name, fontsize=8)


def _keypoint_bench(offset: torch.Tensor, seen: int = 2, **options: Any) -> dict[str, Any]:
    """One keypoint at the cell's centre, predicted to the right of it by each number of px."""
    raw = torch.stack((0.25 + offset / SIDE / 2, torch.full_like(offset, 0.25), torch.zeros_like(offset)), dim=1)
    labels = torch.tensor([32.0, 32.0, float(seen)], dtype=torch.float64).expand(len(offset), 1, 1, 3)
    return {"keypoints_raw": raw[:, None, None], "target_fields": {"keypoints": labels}, **options}


@drawing
def keypoint_location() -> Figure:
    """Cost of a keypoint over its distance, for several tolerances and sizes."""
    figure, (axis, other) = panels(2)
    offset = line(-30, 30)
    for sigma, name in (
        (COCO_SIGMAS[0], "nose"),
        (COCO_SIGMAS[5], "shoulder"),
        (COCO_SIGMAS[11], "hip"),
        (0.25, "1/4"),
    ):
        term = KeypointLocation(sigmas=(sigma,))
        axis.plot(
            offset, curve(term, len(offset), **_keypoint_bench(offset)) * len(offset), label=f"{sigma:g} ({name})"
        )
    axis.set(xlabel="off by, px; object 40 x 24 px", ylabel="cost of the keypoint")
    axis.legend(fontsize=7, title="sigma")
    for side in (8.0, 16.0, 48.0):
        truth = (32 - side / 2, 32 - side / 2, 32 + side / 2, 32 + side / 2)
        numbers = curve(KeypointLocation(sigmas=(0.079,)), len(offset), **_keypoint_bench(offset, truth=truth))
        other.plot(offset, numbers * len(offset), label=f"{side:g} px")
    other.set(xlabel="off by, px; sigma 0.079")
    other.legend(fontsize=7, title="side of the object")
    return figure


@drawing
def keypoint_visibility() -> Figure:
    """Cost over the visibility logit."""
    figure, (axis,) = panels(1, width=4)
    logits = line(-6, 6)
    for seen in (0, 1, 2):
        fields = _keypoint_bench(torch.zeros_like(logits), seen)
        fields["keypoints_raw"] = fields["keypoints_raw"].clone()
        fields["keypoints_raw"][..., 2] = logits[:, None, None]
        axis.plot(logits, curve(KeypointVisibility(), len(logits), **fields) * len(logits), label=str(seen))
    axis.set(xlabel="visibility logit", ylabel="cost of the keypoint")
    axis.legend(fontsize=7, title="label")
    return figure


@drawing
def keypoint_likelihood() -> Figure:
    """Cost over the residual for spreads the head may claim; the density is a standard normal one."""
    figure, (axis,) = panels(1, width=4.4)
    offset = line(0, 60, 61)
    for spread in (0.1, 0.3, 0.6):
        raw = torch.logit(torch.tensor(spread, dtype=torch.float64)).expand(1, 1, 1, 2)
        numbers = [
            curve(
                KeypointLikelihood(), 1, keypoint_scale=raw, keypoint_density=_normal,
                **_keypoint_bench(offset[index : index + 1]),
            )[0]
            for index in range(len(offset))
        ]  # fmt: skip
        axis.plot(offset, numbers, label=f"{spread:g}")
    axis.set(xlabel="off by, px; cell 64 px", ylabel="cost of the keypoint", ylim=(0, 12))
    axis.legend(fontsize=7, title="claimed spread, cells")
    return figure


def _normal(residual: torch.Tensor) -> torch.Tensor:
    return -(residual**2).sum(dim=-1) / 2 - float(np.log(2 * np.pi))


@drawing
def angle() -> Figure:
    """Cost over the error of the angle, by shape of the true box."""
    figure, (axis,) = panels(1, width=4.4)
    turn = line(-90, 90)
    for shape in ((32, 32), (40, 24), (60, 12), (60, 3)):
        truth = (32.0, 32.0, float(shape[0]), float(shape[1]), 0.0)
        boxes = torch.tensor(truth, dtype=torch.float64).repeat(len(turn), 1)
        boxes[:, 4] = torch.deg2rad(turn)
        axis.plot(turn, curve(Angle(), len(turn), boxes=boxes, truth=truth), label=f"{shape[0]} x {shape[1]}")
    axis.set(xlabel="turned by, degrees", ylabel="cost of the pair")
    axis.legend(fontsize=7, title="w x h, px")
    return figure


@drawing
def semantic_map() -> Figure:
    """Value of the term as a map of the right shape becomes surer, for small and large objects."""
    figure, (axis,) = panels(1, width=4.4)
    sure = line(-4, 8, 41)
    for share in (2, 6, 14):
        label = torch.zeros(1, 16, 16, dtype=torch.int64)
        label[:, :share, :share] = 1
        numbers = []
        for strength in sure.tolist():
            logits = torch.full((1, 2, 16, 16), -strength, dtype=torch.float64)
            logits[:, 1][label == 1] = strength
            fields = {"instance_map": label.int(), "class_map": label}
            numbers.append(curve(SemanticMap(), 1, semantic_logits=logits, target_fields=fields)[0])
        axis.plot(sure, numbers, label=f"{share * share}")
    axis.set(xlabel="logit s: s where the object is, -s elsewhere", ylabel="term")
    axis.legend(fontsize=7, title="pixels of 256")
    return figure


@drawing
def box_l1() -> Figure:
    """Sum of absolute differences over a shift and over a change of width."""
    figure, (axis, other) = panels(2)
    move, scale = line(-75, 75), line(0.05, 2.5)
    axis.plot(move, curve(BoxL1(), len(move), boxes=shifted(move), queries=True))
    axis.set(xlabel="moved to the right by, px (image 64 px)", ylabel="loss of the pair")
    for name, axes in (("width", (1.0, 0.0)), ("both sides", (1.0, 1.0))):
        other.plot(scale, curve(BoxL1(), len(scale), boxes=scaled(scale, axes), queries=True), label=name)
    other.set(xlabel="times")
    other.legend(fontsize=7)
    return figure


@drawing
def query_overlap() -> Figure:
    """One minus the overlap of a query's box that is moved, and of one whose width changes."""
    figure, axes = panels(2)
    move, scale = line(-75, 75), line(0.05, 2.5)
    for name in CLASSIC:
        term = QueryOverlap(overlap=name)  # type: ignore[arg-type]
        axes[0].plot(move, curve(term, len(move), boxes=shifted(move), queries=True), label=name)
        boxes = scaled(scale, (1.0, 0.0))
        axes[1].plot(scale, curve(term, len(scale), boxes=boxes, queries=True), label=name)
    axes[0].set(xlabel="moved to the right by, px", ylabel="1 - overlap")
    axes[1].set(xlabel="width times")
    axes[0].legend(fontsize=7)
    return figure


def _of_queries(term: Any) -> Figure:
    figure, (axis, other) = panels(2)
    p = line(0.01, 0.99)
    for by in (0.0, 5.0, 12.0):
        boxes = shifted(torch.full((len(p),), by, dtype=torch.float64))
        iou = 1 - curve(QueryOverlap(overlap="iou"), 1, boxes=boxes[:1], queries=True)[0]
        numbers = curve(term, len(p), logits=torch.logit(p)[:, None], boxes=boxes, queries=True)
        axis.plot(p, numbers, label=f"{iou:.2f}")
    axis.set(xlabel="score of a matched query", ylabel="cost", ylim=(0, 3))
    axis.legend(fontsize=7, title="IoU with its object")
    preds, targets, pairs = bench(len(p), logits=torch.logit(p)[:, None], queries=True)
    # One query stays matched: a batch without a match may cost something else.
    free = torch.arange(len(p)) > 0
    nobody = type(pairs)(pairs.image, pairs.anchor, pairs.target, ~free, pairs.weight * ~free, pairs.normalizer)
    other.plot(p[1:], term(preds, targets, nobody).reshape(-1)[1:], label="this term")
    other.plot(
        p[1:], curve(SoftScores(), len(p), logits=torch.logit(p)[:, None], weight=0.0)[1:], label="cross-entropy"
    )
    other.set(xlabel="score of a free query", ylim=(0, 3))
    other.legend(fontsize=7)
    return figure


@drawing
def query_varifocal_scores() -> Figure:
    """Cost of a matched query by its overlap, and of a free one."""
    return _of_queries(QueryVarifocalScores())


@drawing
def query_scores() -> Figure:
    """Cost of a matched query by its overlap, and of a free one."""
    return _of_queries(QueryScores())


@drawing
def attribute() -> Figure:
    """Cost over the logit of the true class: one of several, and several at once."""
    figure, (axis, other) = panels(2)
    logits = line(-8, 8)
    table = torch.cat((logits[:, None], torch.zeros(len(logits), 2)), dim=1)
    term = Attribute(name="loc")
    for label in (0, 1, -1):
        labels = torch.full((len(logits), 1), label)
        numbers = curve(
            term, len(logits), attribute_logits={"loc": table[:, None]}, target_fields={"attributes": {"loc": labels}}
        )
        known = max(int((labels >= 0).sum()), 1)
        axis.plot(logits, numbers * known, label="not labelled" if label < 0 else f"class {label}")
    axis.set(xlabel="logit of class 0; others 0", ylabel="cost of the pair", title="one of three classes")
    axis.legend(fontsize=7)
    for label in ((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, -1.0, -1.0)):
        labels = torch.tensor(label, dtype=torch.float64).expand(len(logits), 1, 3)
        fields = {"attributes": {"loc": labels}}
        numbers = curve(term, len(logits), attribute_logits={"loc": table[:, None]}, target_fields=fields)
        other.plot(logits, numbers * len(logits), label=", ".join(f"{of:g}" for of in label))
    other.set(xlabel="logit of class 0; others 0", title="several at once")
    other.legend(fontsize=7, title="labels")
    return figure
