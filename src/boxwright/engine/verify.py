# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Is an exported file the network it was made of? Both look at the same images; every output is compared."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.data.synthetic import draw_scene
from boxwright.engine.export import RawOutputs, quiet_tracer
from boxwright.engine.runtime import ExportedModel
from boxwright.errors import ExportError
from boxwright.models.network import Network
from boxwright.ops.nms import class_aware_nms

PIXELS = 0.01  # px at PIXELS_SIDE; boxes and keypoints in float32 are a hundred times closer
PIXELS_SIDE = 640
LIMITS: Mapping[str, float] = {"scores": 1e-4, "coefs": 1e-3, "prototypes": 1e-3, "kept": 0.05}
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
    compared with the closest one of the file.

    Raises:
        ExportError: the file gives other outputs than the network.
    """
    model = RawOutputs(network.fold(auxiliary=False).cpu().float(), exported.vocabulary).eval()
    with torch.no_grad(), quiet_tracer():
        values = model(images.cpu().float())
    wanted = dict(zip(model.names, values, strict=True))
    found = exported.raw(images.cpu())
    if exported.suppressed:
        return _suppressed(exported, wanted, found)
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
    """Each row of the file against the closest candidate of the network, and which candidates were kept.

    `kept` is the share of rows that our suppression keeps and the file does not, or the reverse: overlaps and scores
    within rounding of a threshold may go either way.
    """
    limits = exported.suppression or {}
    scores, labels = wanted["scores"].max(-1)
    best = torch.cat((wanted["boxes"], scores[..., None], labels[..., None].to(scores.dtype)), -1)
    worst: dict[str, Difference] = {}
    for image in range(len(best)):
        rows = found["detections"][:, 0] == image
        detections = found["detections"][rows, 1:]
        closest = torch.cdist(_comparable(detections), _comparable(best[image])).argmin(-1)
        pairs = {
            "boxes": (best[image, closest, :4], detections[:, :4]),
            "scores": (best[image, closest, 4:], detections[:, 4:]),
        }
        for name, value in found.items():
            if name not in ("detections", "prototypes"):
                pairs[name] = (wanted[name][image, closest], value[rows])
        above = (scores[image] > limits["conf"]).nonzero()[:, 0]
        keep = class_aware_nms(
            best[image, above, :4], scores[image, above], labels[image, above], limits["iou"], int(limits["max_det"])
        )
        mine, theirs = set(above[keep].tolist()), set(closest.tolist())
        share = len(mine ^ theirs) / max(len(mine | theirs), 1)
        pairs["kept"] = (torch.tensor([[share]]), torch.tensor([[0.0]]))
        for name, (one, other) in pairs.items():
            here = dataclasses.replace(_difference(exported, name, one[None], other[None]), image=image)
            if name not in worst or here.largest > worst[name].largest:
                worst[name] = here
    if "prototypes" in wanted:
        worst["prototypes"] = _difference(exported, "prototypes", wanted["prototypes"], found["prototypes"])
    return list(worst.values())


def _comparable(rows: Tensor) -> Tensor:
    """Box, score and label in units of alike weight."""
    return torch.cat((rows[:, :4] / PIXELS_SIDE, rows[:, 4:]), -1).double()


def _limit(exported: ExportedModel, name: str) -> float:
    if _is_pixels(name):
        return PIXELS * max(exported.imgsz / PIXELS_SIDE, 1.0)
    return LIMITS.get(name, ATTRIBUTE)


def _is_pixels(name: str) -> bool:
    return name in ("boxes", "keypoints")
