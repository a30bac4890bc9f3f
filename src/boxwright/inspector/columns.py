# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The tables of an inspection, column by column. Losses are gain-weighted and scaled, lengths are network pixels."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from boxwright.inspector.part import ProbedPrediction
from boxwright.ops.decode import Distance, Oriented
from boxwright.ops.distances import encode_distances, encode_rotated, expected_distance
from boxwright.ops.overlap import paired_overlap
from boxwright.ops.probiou import paired_probiou
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Assignment, ImageTargets, LossBreakdown, Predictions, Targets, at_least_float32
from boxwright.table import Table, join_tables

SMALL, MEDIUM = 32.0, 96.0  # px, COCO's limits of the side sqrt(w h)
CLIP_SLACK = 0.01  # bins; a distance this near to the last bin cannot be told from one beyond it
SIDES = ("left", "top", "right", "bottom")


def term_table(parts: Sequence[ProbedPrediction], breakdown: LossBreakdown, lengths: Mapping[str, float]) -> Table:
    """One row per item: gain, value in normalised units, and the loss by who pays it."""
    scale, rows = float(breakdown.scale), []
    for part in parts:
        for name, share in part.shares.items():
            factor = scale * share.item.gain
            value = float(share.item.contributions.detach().double().sum())
            objects, background, images = (
                float(of.sum()) for of in (share.of_objects, share.of_background, share.of_images)
            )
            rows.append(
                {
                    "term": name,
                    "scope": share.scope,
                    "gain": share.item.gain,
                    "normalizer": float(share.pairs.normalizer),
                    "raw": value * share.divisor,
                    "value": value,
                    "loss": value * factor,
                    "objects": objects * factor,
                    "background": background * factor,
                    "images": images * factor,
                    "gradient": lengths.get(name, float("nan")),
                    "pairs": int(share.pairs.valid.sum()),
                    "not_finite": int((~torch.isfinite(share.item.contributions)).sum()),
                }
            )
    names = list(rows[0]) if rows else []
    return Table({name: [row[name] for row in rows] for name in names})


def object_table(
    parts: Sequence[ProbedPrediction], targets: Targets, scale: float, names: Sequence[str], paths: Sequence[str]
) -> Table:
    """One row per valid slot."""
    image, slot = targets.valid.nonzero(as_tuple=True)
    columns: dict[str, np.ndarray | list[str]] = {
        "image": host(image),
        "path": path_column(image, paths),
        "object": host(slot),
        **class_columns(targets.labels[image, slot], names),
        **_box_columns(targets.boxes[image, slot]),
    }
    total = torch.zeros(len(image), dtype=torch.float64, device=image.device)
    items: dict[str, np.ndarray | list[str]] = {}
    for part in parts:
        columns |= _level_columns(part, targets, image, slot, only=len(parts) == 1)
        for name, share in part.shares.items():
            value = share.of_objects[image, slot] * share.item.gain * scale
            total = total + value
            items[name] = host(value)
    columns["positives"] = _positives(parts, targets, image, slot)
    columns["loss"] = host(total)
    columns["gradient"] = _object_gradients(parts, targets, image, slot)
    return Table({**columns, **items})


def share_table(parts: Sequence[ProbedPrediction], targets: Targets, scale: float, names: Sequence[str]) -> Table:
    """One row per object and item that it pays for.

    `raw` is before the division by the assignment's normalizer (terms that divide by a count of their own keep that),
    `value` is what the term returns, `loss` has gain and scale.
    """
    image, slot = targets.valid.nonzero(as_tuple=True)
    where = {"image": host(image), "object": host(slot), **class_columns(targets.labels[image, slot], names)}
    tables = []
    for part in parts:
        for name, share in part.shares.items():
            value = host(share.of_objects[image, slot])
            paid = {"raw": value * share.divisor, "value": value, "loss": value * (share.item.gain * scale)}
            tables.append(Table({**where, "term": np.full(len(value), name), **paid}))
    return join_tables(tables) if tables else Table({})


def pair_table(
    parts: Sequence[ProbedPrediction], targets: Targets, scale: float, names: Sequence[str], paths: Sequence[str]
) -> Table:
    """One row per matched pair of every prediction."""
    tables = [_pairs_of(part, targets, scale, names, paths) for part in parts if part.shares]
    return join_tables(tables) if tables else Table({})


def background_table(
    parts: Sequence[ProbedPrediction],
    targets: Targets,
    scale: float,
    names: Sequence[str],
    paths: Sequence[str],
    worst: int,
) -> Table:
    """The unmatched candidates that cost most, dearest first, each with the label that overlaps or lies nearest."""
    costs = [(part, cost) for part in parts if (cost := _background_cost(part, scale)) is not None and worst > 0]
    if not costs:
        return Table({})
    best = [cost.flatten().topk(min(worst, cost.numel())) for _, cost in costs]
    least = torch.cat([found.values for found in best]).topk(min(worst, sum(len(f.values) for f in best))).values[-1:]
    tables = []
    for (part, cost), found in zip(costs, best, strict=True):
        kept = ~(found.values < least)  # of all predictions together; what is not a number stays
        tables.append(_worst_of(part, cost, found.indices[kept], targets, names, paths))
    return join_tables(tables).by("loss").head(worst)


def image_table(parts: Sequence[ProbedPrediction], targets: Targets, scale: float, paths: Sequence[str]) -> Table:
    """One row per image: objects, and what they, the background and the image as a whole pay."""
    held = {
        kind: sum(
            (
                getattr(share, f"of_{kind}").reshape(len(targets.labels), -1).sum(dim=1) * share.item.gain * scale
                for part in parts
                for share in part.shares.values()
            ),
            torch.zeros(len(targets.labels), dtype=torch.float64, device=targets.labels.device),
        )
        for kind in ("objects", "background", "images")
    }
    loss = held["objects"] + held["background"] + held["images"]
    return Table(
        {
            "image": np.arange(len(targets.labels)),
            "path": list(paths),
            "objects": host(targets.valid.sum(dim=1)),
            "loss": host(loss),
            **{f"loss_{kind}": host(value) for kind, value in held.items()},
        }
    )


def whole_image_tables(
    breakdown: LossBreakdown,
    logits: Tensor,
    targets: ImageTargets,
    gradient: Tensor,
    names: Sequence[str],
    paths: Sequence[str],
) -> tuple[Table, Table]:
    """Terms and images of a classifier."""
    scale = float(breakdown.scale)
    rows = [(item, item.contributions.detach().double()) for item in breakdown.items]
    lengths = float(gradient.double().norm())
    terms = Table(
        {
            "term": [item.name for item, _ in rows],
            "scope": ["image" for _ in rows],
            "gain": [item.gain for item, _ in rows],
            "normalizer": [1.0 for _ in rows],
            "value": [float(values.sum()) for _, values in rows],
            "loss": [float(values.sum()) * item.gain * scale for item, values in rows],
            "objects": [0.0 for _ in rows],
            "background": [0.0 for _ in rows],
            "images": [float(values.sum()) * item.gain * scale for item, values in rows],
            "gradient": [lengths for _ in rows],
            "pairs": [0 for _ in rows],
            "not_finite": [int((~torch.isfinite(values)).sum()) for _, values in rows],
        }
    )
    probabilities = at_least_float32(logits.detach()).softmax(dim=-1)
    score, best = probabilities.max(dim=-1)
    loss = sum((values.reshape(len(logits), -1).sum(dim=1) * item.gain * scale for item, values in rows), 0.0)
    labels = targets.labels if targets.labels.ndim == 1 else targets.labels.argmax(dim=1)
    found = {f"found_{name}": column for name, column in class_columns(best, names).items()}
    images = Table(
        {
            "image": np.arange(len(logits)),
            "path": list(paths),
            **class_columns(labels, names),
            **found,
            "score": host(score),
            "loss": host(torch.as_tensor(loss)),
            "gradient": host(gradient.double().norm(dim=1)),
        }
    )
    return terms, images


# -- pairs ---------------------------------------------------------------------------------------------------------


def _pairs_of(
    part: ProbedPrediction, targets: Targets, scale: float, names: Sequence[str], paths: Sequence[str]
) -> Table:
    preds, pairs = part.preds, part.pairs
    rows = pairs.valid.nonzero()[:, 0]
    image, anchor, slot = pairs.image[rows], pairs.anchor[rows], pairs.target[rows]
    label = targets.labels[image, slot]
    objectness = None if preds.objectness is None else preds.objectness.detach()[image, anchor]
    scores = class_probabilities(preds.logits.detach()[image, anchor], preds.exclusive, objectness)
    with torch.no_grad():
        boxes = preds.boxes_at(_of_rows(pairs, rows))
        wanted = targets.boxes[image, slot].to(boxes.dtype)
        overlap = paired_probiou(boxes, wanted) if targets.oriented else paired_overlap(boxes, wanted, "iou")
    columns: dict[str, np.ndarray | list[str]] = {
        "part": np.full(len(rows), part.label),
        "image": host(image),
        "path": path_column(image, paths),
        "object": host(slot),
        **class_columns(label, names),
        "candidate": host(anchor),
        **place_columns(preds, anchor),
        "score": host(scores.gather(1, label[:, None])[:, 0]),
        "overlap": host(overlap),
        "weight": host(pairs.weight[rows]),
        "share": host(pairs.share[rows]),
        **{f"found_{name}": column for name, column in _box_columns(boxes).items() if name in ("x1", "y1", "x2", "y2")},
        **_distance_columns(preds, image, anchor, wanted),
    }
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    items: dict[str, np.ndarray | list[str]] = {}
    for name, share in part.shares.items():
        value = share.of_pairs[rows] * share.item.gain * scale
        total = total + value
        items[name] = host(value)
    columns["loss"] = host(total)
    if part.gradients is not None:
        columns["gradient"] = host(part.gradients[rows])
    return Table({**columns, **items})


def _of_rows(pairs: Assignment, rows: Tensor) -> Assignment:
    return Assignment(
        pairs.image[rows],
        pairs.anchor[rows],
        pairs.target[rows],
        pairs.valid[rows],
        pairs.weight[rows],
        pairs.normalizer,
    )


def _distance_columns(preds: Predictions, image: Tensor, anchor: Tensor, wanted: Tensor) -> dict[str, np.ndarray]:
    """Predicted and wanted distance to each side, in bins, and whether the wanted one is beyond the last bin."""
    decoder = preds.decoder
    if preds.grid is None or not isinstance(decoder, Distance | Oriented) or decoder.num_bins < 2:
        return {}
    raw = at_least_float32(preds.box_raw.detach()[image, anchor])
    points, stride = preds.grid.points[anchor].to(raw.dtype), preds.grid.strides[anchor].to(raw.dtype)
    encode = encode_rotated if wanted.shape[-1] == 5 else encode_distances
    want = encode(points, wanted.to(raw.dtype)) / stride[:, None]
    found = expected_distance(raw, decoder.num_bins)
    columns = {f"found_{side}": host(found[:, i]) for i, side in enumerate(SIDES)}
    columns |= {f"wanted_{side}": host(want[:, i]) for i, side in enumerate(SIDES)}
    columns["clipped"] = host((want > decoder.num_bins - 1 - CLIP_SLACK).any(dim=1))
    return columns


def place_columns(preds: Predictions, anchor: Tensor) -> dict[str, np.ndarray]:
    """Level, stride and centre of candidates, and the size of their priors; nothing for queries."""
    if preds.grid is None:
        return {}
    points = preds.grid.points[anchor]
    columns = {
        "level": host(preds.grid.level[anchor] + preds.grid.first_level),
        "stride": host(preds.grid.strides[anchor].long()),
        "x": host(points[:, 0]),
        "y": host(points[:, 1]),
    }
    if preds.grid.prior_wh is not None:
        prior = preds.grid.prior_wh[anchor]
        columns |= {"prior_w": host(prior[:, 0]), "prior_h": host(prior[:, 1])}
    return columns


# -- background ----------------------------------------------------------------------------------------------------


def _background_cost(part: ProbedPrediction, scale: float) -> Tensor | None:
    """(B, A) what every unmatched candidate pays over all items."""
    cost: Tensor | None = None
    for share in part.shares.values():
        if share.of_candidates is not None:
            value = share.of_candidates * share.item.gain * scale
            cost = value if cost is None else cost + value
    return cost


def _worst_of(
    part: ProbedPrediction, cost: Tensor, place: Tensor, targets: Targets, names: Sequence[str], paths: Sequence[str]
) -> Table:
    preds, value = part.preds, cost.flatten()[place]
    image, anchor = torch.div(place, cost.shape[1], rounding_mode="floor"), place % cost.shape[1]
    objectness = None if preds.objectness is None else preds.objectness.detach()[image, anchor]
    score, best = class_probabilities(preds.logits.detach()[image, anchor], preds.exclusive, objectness).max(dim=1)
    with torch.no_grad():
        ones = torch.ones_like(value, dtype=torch.bool)
        pairs = Assignment(image, anchor, torch.zeros_like(anchor), ones, value, value.new_ones(()))
        boxes = preds.boxes_at(pairs)
    columns: dict[str, np.ndarray | list[str]] = {
        "part": np.full(len(value), part.label),
        "image": host(image),
        "path": path_column(image, paths),
        "candidate": host(anchor),
        **place_columns(preds, anchor),
        **class_columns(best, names),
        "score": host(score),
        **{name: column for name, column in _box_columns(boxes).items() if name in ("x1", "y1", "x2", "y2")},
        "loss": host(value),
        **_nearest(boxes, image, targets, names),
    }
    return Table(columns)


def _nearest(boxes: Tensor, image: Tensor, targets: Targets, names: Sequence[str]) -> dict[str, np.ndarray | list[str]]:
    """The label of the same image that overlaps each box most, or else lies nearest: slot, class, IoU, distance."""
    found, true = _upright(boxes), _upright(targets.boxes[image].flatten(0, 1)).to(boxes.dtype)
    slots, count = targets.labels.shape[1], len(image)
    valid = targets.valid[image]
    if not slots:
        none = torch.full_like(image, -1)
        nothing, far = found.new_zeros(count), found.new_full((count,), torch.inf)
        return _nearest_columns(none, none, nothing, far, names)
    every = found.repeat_interleave(slots, dim=0)
    iou = paired_overlap(every, true, "iou").view(count, slots)
    gap = ((every[:, :2] + every[:, 2:] - true[:, :2] - true[:, 2:]) / 2).norm(dim=1).view(count, slots)
    # Overlap first, distance where nothing overlaps.
    worth = iou - gap / (1 + gap.amax(dim=1, keepdim=True)) * 1e-6
    best = torch.where(valid, worth, torch.full_like(worth, -torch.inf)).argmax(dim=1)
    known, at = valid.any(dim=1), best[:, None]
    return _nearest_columns(
        torch.where(known, best, torch.full_like(best, -1)),
        torch.where(known, targets.labels[image, best], torch.full_like(best, -1)),
        torch.where(known, iou.gather(1, at)[:, 0], torch.zeros_like(iou[:, 0])),
        torch.where(known, gap.gather(1, at)[:, 0], torch.full_like(gap[:, 0], torch.inf)),
        names,
    )


def _nearest_columns(
    slot: Tensor, label: Tensor, overlap: Tensor, gap: Tensor, names: Sequence[str]
) -> dict[str, np.ndarray | list[str]]:
    return {
        "nearest_object": host(slot),
        "nearest_class": _named(label, names, ""),
        "nearest_overlap": host(overlap),
        "nearest_distance": host(gap),
    }


# -- objects -------------------------------------------------------------------------------------------------------


def _level_columns(
    part: ProbedPrediction, targets: Targets, image: Tensor, slot: Tensor, *, only: bool
) -> dict[str, np.ndarray | list[str]]:
    """Cells whose centre lies inside each object and its positives, by stride; queries have positives only."""
    preds = part.preds
    if preds.grid is None:
        return {}
    pairs, grid = part.pairs, preds.grid
    prefix = "" if only or grid.total_levels not in (None, len(grid.shapes)) else f"{part.label}/"
    found: dict[str, np.ndarray | list[str]] = {}
    boxes = _upright(targets.boxes[image, slot])
    for index, stride in enumerate(grid.level_strides):
        on_level = pairs.valid & (grid.level[pairs.anchor] == index)
        found[f"{prefix}cells_s{stride}"] = host(_cells_inside(boxes, grid.shapes[index], stride))
        found[f"{prefix}positives_s{stride}"] = host(_count(pairs, on_level, targets)[image, slot])
    return found


def _cells_inside(boxes: Tensor, shape: tuple[int, int], stride: int) -> Tensor:
    """Cells of a level whose centre lies strictly inside each upright box."""
    counts = []
    for low, high, cells in ((boxes[:, 0], boxes[:, 2], shape[1]), (boxes[:, 1], boxes[:, 3], shape[0])):
        first = torch.floor(low / stride - 0.5) + 1  # smallest k with (k + 0.5) * stride > low
        last = torch.ceil(high / stride - 0.5) - 1
        counts.append((last.clamp(max=cells - 1) - first.clamp(min=0) + 1).clamp(min=0))
    return (counts[0] * counts[1]).long()


def _count(pairs: Assignment, rows: Tensor, targets: Targets) -> Tensor:
    batch, slots = targets.labels.shape
    counts = torch.zeros(batch * max(slots, 1), dtype=torch.int64, device=rows.device)
    if len(rows):
        counts.index_add_(0, pairs.image * slots + pairs.target, rows.long())
    return counts[: batch * slots].view(batch, slots)


def _positives(parts: Sequence[ProbedPrediction], targets: Targets, image: Tensor, slot: Tensor) -> np.ndarray:
    """Pairs of each object over all predictions."""
    counts = torch.zeros_like(targets.labels)
    for part in parts:
        counts = counts + _count(part.pairs, part.pairs.valid, targets)
    return host(counts[image, slot])


def _object_gradients(parts: Sequence[ProbedPrediction], targets: Targets, image: Tensor, slot: Tensor) -> np.ndarray:
    """Length of the gradient that reaches all candidates of each object together."""
    batch, slots = targets.labels.shape
    squares = torch.zeros(batch * max(slots, 1), dtype=torch.float64, device=image.device)
    for part in parts:
        if part.gradients is None:
            continue
        pairs = part.pairs
        # A candidate that an object claims twice counts once.
        anchors = part.preds.logits.shape[1]
        rows = ((pairs.image * slots + pairs.target) * anchors + pairs.anchor)[pairs.valid]
        keys, which = rows.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        lengths = squares.new_zeros(len(keys)).scatter_(0, which, part.gradients[pairs.valid])
        squares.index_add_(0, torch.div(keys, anchors, rounding_mode="floor"), lengths.square())
    return host(squares[: batch * slots].view(batch, slots)[image, slot].sqrt())


# -- shared --------------------------------------------------------------------------------------------------------


def class_columns(labels: Tensor, names: Sequence[str]) -> dict[str, np.ndarray | list[str]]:
    """Class index and name."""
    return {"label": host(labels), "class": _named(labels, names, "-1")}


def path_column(image: Tensor, paths: Sequence[str]) -> np.ndarray:
    """The path of each row's image; rows share the text."""
    found: np.ndarray = np.array(paths, dtype=object)[host(image)]
    return found


def _named(labels: Tensor, names: Sequence[str], unknown: str) -> np.ndarray:
    """The name of each class, its number where it has none, `unknown` for -1."""
    found = host(labels)
    most = max(int(found.max(initial=-1)) + 1, len(names))
    texts: np.ndarray = np.array([*(names[i] if i < len(names) else str(i) for i in range(most)), unknown])[found]
    return texts


def _box_columns(boxes: Tensor) -> dict[str, np.ndarray | list[str]]:
    """Corners (of the upright box around an oriented one), sides, and the size class."""
    upright = _upright(boxes)
    wide, high = (boxes[:, 2:4] if boxes.shape[-1] == 5 else upright[:, 2:] - upright[:, :2]).unbind(dim=1)
    side = (wide.clamp(min=0) * high.clamp(min=0)).sqrt()
    columns: dict[str, np.ndarray | list[str]] = {
        name: host(upright[:, i]) for i, name in enumerate(("x1", "y1", "x2", "y2"))
    }
    columns |= {"w": host(wide), "h": host(high), "side": host(side)}
    if boxes.shape[-1] == 5:
        columns["theta"] = host(boxes[:, 4])
    columns["size"] = ["small" if s < SMALL else "medium" if s < MEDIUM else "large" for s in side.tolist()]
    return columns


def _upright(boxes: Tensor) -> Tensor:
    """Corners xyxy; of oriented boxes, of the upright box around each."""
    if boxes.shape[-1] == 4:
        return boxes
    cx, cy, w, h, theta = boxes.unbind(dim=-1)
    cosine, sine = theta.cos().abs(), theta.sin().abs()
    half_x, half_y = (w * cosine + h * sine) / 2, (w * sine + h * cosine) / 2
    return torch.stack((cx - half_x, cy - half_y, cx + half_x, cy + half_y), dim=-1)


def host(tensor: Tensor) -> np.ndarray:
    """The tensor as an array."""
    return tensor.detach().cpu().numpy()
