# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Is an exported file the network it was made of? Both look at the same images; every output is compared."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.drawn.synthetic import draw_scene
from boxwright.errors import ExportError
from boxwright.export.export import RawOutputs, quiet_tracer
from boxwright.export.onnx_graph import write_with_threshold
from boxwright.export.runtime import ExportedModel, load_exported
from boxwright.models.network import Network
from boxwright.ops.boxes import pairwise_iou

PIXELS = 0.01  # px at PIXELS_SIDE; boxes and keypoints in float32 are a hundred times closer
PIXELS_SIDE = 640
LIMITS: Mapping[str, float] = {"scores": 1e-4, "coefs": 1e-3, "prototypes": 1e-3, "kept": 0.0}
OVERLAP = 1e-3  # overlaps closer to a limit may fall on either side of it
LOWERED_TO = 100  # candidates of an image, about, that a lowered threshold leaves
ATTRIBUTE = 1e-4
DRAWN = 4  # images, where no data are given


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one output of a file is from the network's, at worst."""

    output: str
    largest: float  # px for boxes and keypoints, else the unit of the output
    limit: float
    image: int  # where
    candidate: int
    conf: float | None = None  # threshold of the copy that was compared; None: the file itself

    @property
    def ok(self) -> bool:
        """Whether the file may be trusted."""
        return self.largest <= self.limit


def drawn_images(side: int, count: int = DRAWN, seed: int = 0) -> Float[Tensor, "B 3 H W"]:
    """Drawn scenes in 0..1, for networks without data at hand."""
    scenes = [torch.from_numpy(draw_scene(side, seed, "val", index).image.copy()) for index in range(count)]
    return torch.stack(scenes).permute(0, 3, 1, 2).float() / 255


def compare(exported: ExportedModel, network: Network, images: Float[Tensor, "B 3 H W"]) -> list[Difference]:
    """The largest difference of every output over some images in 0..1.

    Queries and suppressed rows have no fixed place, since equal scores may change it: there each row of the network is
    compared with the closest one of the file. Where suppression inside the file leaves nothing of these images, because
    no score is above its threshold, a copy with a lower one is compared, and `Difference.conf` names that.

    Raises:
        ExportError: the file gives other outputs than the network.
    """
    model = RawOutputs(network.fold(auxiliary=False).cpu().float(), exported.vocabulary).eval()
    with torch.no_grad(), quiet_tracer():
        values = model(images.cpu().float())
    wanted = dict(zip(model.names, values, strict=True))
    found = exported.raw(images.cpu())
    if exported.suppression is not None:
        if len(found["detections"]) or (wanted["scores"] > exported.suppression["conf"]).any():
            return _suppressed(exported, wanted, found)
        with _lowered(exported, wanted["scores"]) as (copy, conf):
            rows = _suppressed(copy, wanted, copy.raw(images.cpu()))
        return [dataclasses.replace(row, conf=conf) for row in rows]
    if wanted.keys() != found.keys():
        raise ExportError(f"{exported.path}: expected the outputs {', '.join(wanted)}, got {', '.join(found)}")
    if network.strides != (1,) and network.grid((exported.imgsz, exported.imgsz)) is None:
        return _by_row(exported, wanted, found)
    return [_difference(exported, name, value, found[name]) for name, value in wanted.items()]


def expect_equal(exported: ExportedModel, differences: Sequence[Difference]) -> None:
    """Raises for the first output that is too far off.

    Raises:
        ExportError: naming output, image and candidate.
    """
    for found in differences:
        if not found.ok:
            unit = " px" if _is_pixels(found.output) else ""
            raise ExportError(
                f"{exported.path.suffix[1:]} output '{found.output}' differs from torch by {found.largest:.3g}{unit} "
                f"(limit {found.limit:g}) at image {found.image}, candidate {found.candidate}"
            )


def _difference(exported: ExportedModel, name: str, one: Tensor, other: Tensor) -> Difference:
    if one.shape != other.shape:
        raise ExportError(
            f"{exported.path}: output '{name}': expected shape {tuple(one.shape)}, got {tuple(other.shape)}"
        )
    if not one.numel():
        return Difference(name, 0.0, _limit(exported, name), 0, 0)
    off = (one - other).abs().nan_to_num(nan=torch.inf).flatten(1)
    image, inside = divmod(int(off.argmax()), off.shape[1])
    values = one[0, 0].numel() if one.ndim > 2 and name != "prototypes" else one[0].numel()
    return Difference(name, float(off.max()), _limit(exported, name), image, inside // values)


def _by_row(exported: ExportedModel, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[Difference]:
    """Differences after each row of the network was given its closest row of the file, by boxes and scores."""
    for name in wanted:
        if wanted[name].shape != found[name].shape:
            raise ExportError(
                f"{exported.path}: output '{name}': expected shape {tuple(wanted[name].shape)}, "
                f"got {tuple(found[name].shape)}"
            )
    mine = torch.cat((wanted["boxes"] / PIXELS_SIDE, wanted["scores"]), -1)
    theirs = torch.cat((found["boxes"] / PIXELS_SIDE, found["scores"]), -1)
    closest = torch.cdist(mine.double(), theirs.double()).argmin(-1)
    moved = {
        name: value
        if name == "prototypes"
        else torch.stack([of[rows] for of, rows in zip(value, closest, strict=True)])
        for name, value in found.items()
    }
    return [_difference(exported, name, value, moved[name]) for name, value in wanted.items()]


def _suppressed(exported: ExportedModel, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[Difference]:
    """Each row of the file against the closest candidate of the network, and whether the right ones were kept.

    `kept` is 1 where a row should not be there or a candidate should: see `_wrong`.
    """
    worst: dict[str, Difference] = {}
    for image in range(len(wanted["boxes"])):
        rows = found["detections"][:, 0] == image
        detections = found["detections"][rows, 1:]
        boxes, scores = wanted["boxes"][image], wanted["scores"][image]
        best = torch.cat((boxes, scores.amax(-1, keepdim=True)), -1)
        closest = torch.cdist(_comparable(detections[:, :5]), _comparable(best)).argmin(-1)
        # Of classes with equal scores either one may be the best.
        told = scores[closest, detections[:, 5].long()]
        pairs = {
            "boxes": (boxes[closest], detections[:, :4]),
            "scores": (torch.stack((told, best[closest, 4]), -1), torch.stack((detections[:, 4], told), -1)),
            "kept": (_wrong(boxes, scores, detections, closest, exported.suppression or {}), torch.zeros(1, 1)),
        }
        for name, value in found.items():
            if name not in ("detections", "prototypes"):
                pairs[name] = (wanted[name][image, closest], value[rows])
        for name, (one, other) in pairs.items():
            here = dataclasses.replace(_difference(exported, name, one[None], other[None]), image=image)
            if name not in worst or here.largest > worst[name].largest:
                worst[name] = here
    if "prototypes" in wanted:
        worst["prototypes"] = _difference(exported, "prototypes", wanted["prototypes"], found["prototypes"])
    return list(worst.values())


def _wrong(boxes: Tensor, scores: Tensor, rows: Tensor, closest: Tensor, limits: Mapping[str, float]) -> Tensor:
    """The share of rows of the file and other candidates of the network that suppression should have treated otherwise.

    Not a comparison with our own result: where scores are equal, or an overlap is at the limit, more than one result is
    right, and one choice changes the next. Right is: every row scores above `conf`; no two rows of a class overlap by
    more than `iou`; every candidate that is not a row scores no more than `conf`, overlaps a better row of its class by
    more than `iou`, or scores less than all of `max_det` rows.
    """
    conf, iou, most = limits["conf"], limits["iou"], int(limits["max_det"])
    close, near = LIMITS["scores"], OVERLAP
    among = pairwise_iou(rows[:, :4], rows[:, :4]).fill_diagonal_(0) * (rows[:, None, 5] == rows[None, :, 5])
    wrong = (among > iou + near).any(1) | (rows[:, 4] < conf - close)
    best = scores.amax(-1)
    left = best > conf + close
    left[closest] = False
    other = left.nonzero()[:, 0]
    beaten = pairwise_iou(boxes[other], rows[:, :4]) > iou - near
    # Equal scores of two classes: the file may have compared it as one of the other class.
    same = scores[other][:, rows[:, 5].long()] >= best[other, None] - close
    better = rows[None, :, 4] >= best[other, None] - close
    missing = ~(beaten & same & better).any(1)
    if len(rows) >= most:
        missing &= best[other] > rows[:, 4].min() + close
    count = int(wrong.sum()) + int(missing.sum()) + max(len(rows) - most, 0)
    return torch.tensor([[count / max(len(rows) + len(other), 1)]])


@contextlib.contextmanager
def _lowered(exported: ExportedModel, scores: Tensor) -> Iterator[tuple[ExportedModel, float]]:
    """A copy of a file whose threshold lies below some of the scores."""
    highest = scores.amax(-1).flatten().sort(descending=True).values
    conf = float(highest[: len(scores) * LOWERED_TO][-1]) * 0.999
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / exported.path.name
        write_with_threshold(exported.path, copy, conf)
        yield load_exported(copy), conf


def _comparable(rows: Tensor) -> Tensor:
    """Box and score in units of alike weight."""
    return torch.cat((rows[:, :4] / PIXELS_SIDE, rows[:, 4:]), -1).double()


def _limit(exported: ExportedModel, name: str) -> float:
    if _is_pixels(name):
        return PIXELS * max(exported.imgsz / PIXELS_SIDE, 1.0)
    return LIMITS.get(name, ATTRIBUTE)


def _is_pixels(name: str) -> bool:
    return name in ("boxes", "keypoints")
