# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What was found in an image, and what is really there: always in pixels of the ORIGINAL image.

The letters are those of `structures`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.vocabulary import AttributeSpec, KeypointSpec

Outline = tuple[np.ndarray, ...]  # polygons (p, 2), px x and y, that together cover an object; () where unknown


@dataclass(frozen=True, slots=True)
class InstanceMask:
    """The pixels of one object, cropped to where they are: a few kilobytes where a whole image would be megabytes."""

    left: int  # px of the original image
    top: int
    pixels: Bool[np.ndarray, "h w"]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype != np.bool_:
            raise ShapeError(f"InstanceMask.pixels: expected bool (h, w), got {self.pixels.dtype} {self.pixels.shape}")

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())

    def full(self, image_size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """The mask in an image of (height, width) px."""
        whole = np.zeros(image_size, np.bool_)
        height, width = self.pixels.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return whole

    def runs(self, image_size: tuple[int, int]) -> list[int]:
        """COCO run lengths in an image of (height, width) px: column by column, background first, object next.

        >>> InstanceMask(1, 0, np.array([[True], [True]])).runs((3, 3))  # the two upper pixels of the middle column
        [3, 2, 4]
        """
        height, width = image_size
        padded = np.pad(self.pixels, ((1, 1), (0, 0)))
        change = (padded[1:] != padded[:-1]).T  # (columns, rows + 1): where a run begins or ends
        column, row = np.nonzero(change)
        edges = (column + self.left) * height + row + self.top
        # An object that leaves a column at its last pixel and enters the next at its first has not ended.
        again = np.flatnonzero(edges[1:-1:2] == edges[2::2])
        edges = np.delete(edges, np.concatenate((2 * again + 1, 2 * again + 2)))
        runs: list[int] = np.diff(edges, prepend=0, append=height * width).tolist()
        return runs

    def rle(self, image_size: tuple[int, int]) -> dict[str, Any]:
        """COCO run lengths in their compressed form, as result files have them."""
        from faster_coco_eval.core import mask as coder

        packed = coder.frPyObjects({"counts": self.runs(image_size), "size": list(image_size)}, *image_size)
        return {"size": list(image_size), "counts": packed["counts"].decode("ascii")}


@dataclass(frozen=True, slots=True)
class ImageTruth:
    """The label of a whole image, as evaluation reads it."""

    label: int


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier says of one image."""

    scores: Float[Tensor, " C"]  # probabilities
    names: tuple[str, ...]
    image_size: tuple[int, int]  # (height, width) of the original image, px
    class_ids: tuple[int, ...] | None = None
    path: str | None = None

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The best classes and their probabilities, best first."""
        best = self.scores.topk(min(count, len(self.names)))
        return [(self.names[i], score) for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict per class, best first: name, label, class_id and score."""
        ids = self.class_ids or tuple(range(len(self.names)))
        order = self.scores.argsort(descending=True, stable=True).tolist()
        return [{"name": self.names[i], "label": i, "class_id": ids[i], "score": float(self.scores[i])} for i in order]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The labels of one image as evaluation reads them: px of the ORIGINAL image."""

    boxes: Float[Tensor, "N box"]  # px xyxy, or px cx cy w h and radians
    labels: Int64[Tensor, " N"]
    image_size: tuple[int, int]  # (height, width) of the original image, px
    # Regions where detections are neither right nor wrong (crowds, unlabelled parts), each of one class or (-1) of all.
    ignore: Float[Tensor, "I 4"] | None = None
    ignore_labels: Int64[Tensor, " I"] | None = None  # None: all classes everywhere
    ignore_outlines: tuple[Outline, ...] | None = None  # shape of each region where masks are compared; () is its box
    outlines: tuple[Outline, ...] | None = None  # one per object; None where the dataset has no outlines
    keypoints: Float[Tensor, "N K 3"] | None = None  # px x, px y, visibility 0, 1 or 2
    areas: Float[Tensor, " N"] | None = None  # px^2 as the file states them; None: of the outline, else of the box
    attributes: Mapping[str, Tensor] | None = None  # (N,) int64, or (N, C_name) float; -1 is not labelled


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image: px of the ORIGINAL image, best first."""

    boxes: Float[Tensor, "N box"]  # px xyxy, or px cx cy w h and radians
    scores: Float[Tensor, " N"]
    labels: Int64[Tensor, " N"]  # index into names
    names: tuple[str, ...]
    image_size: tuple[int, int]  # (height, width) of the original image, px
    class_ids: tuple[int, ...] | None = None  # the dataset's own id of each class, where it differs from the index
    path: str | None = None  # where the image came from
    masks: tuple[InstanceMask, ...] | None = None  # one per detection
    keypoints: Float[Tensor, "N K 3"] | None = None  # px x, px y, visibility in [0, 1] (1 where the model gives none)
    keypoint_spec: KeypointSpec | None = None
    attributes: Mapping[str, Float[Tensor, "N values"]] | None = None  # probabilities by attribute
    attribute_specs: tuple[AttributeSpec, ...] = ()

    def __len__(self) -> int:
        return self.boxes.shape[0]

    @property
    def corners(self) -> Float[Tensor, "N 4 2"]:
        """The corners of every box, in order around it."""
        if self.boxes.shape[1] == 4:
            x1, y1, x2, y2 = self.boxes.unbind(dim=1)
            return torch.stack((torch.stack((x2, x2, x1, x1), 1), torch.stack((y2, y1, y1, y2), 1)), dim=-1)
        centre, theta = self.boxes[:, None, :2], self.boxes[:, 4]
        along = torch.stack((theta.cos(), theta.sin()), dim=1) * self.boxes[:, 2:3] / 2
        across = torch.stack((-theta.sin(), theta.cos()), dim=1) * self.boxes[:, 3:4] / 2
        return centre + torch.stack((along + across, along - across, -along - across, across - along), dim=1)

    @property
    def enclosing(self) -> Float[Tensor, "N 4"]:
        """The boxes themselves, or of oriented ones the smallest upright boxes around them: px xyxy."""
        if self.boxes.shape[1] == 4:
            return self.boxes
        return torch.cat((self.corners.amin(dim=1), self.corners.amax(dim=1)), dim=1)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict per detection, for JSON.

        name, label, class_id, score and box (px x1, y1, x2, y2); where the model says so also oriented_box (px cx, cy,
        w, h, radians) with its corners, mask (compressed COCO run lengths), keypoints ([x, y, visibility] each) and
        attributes (the value, or the values above 0.5, and all probabilities).
        """
        ids = self.class_ids or tuple(range(len(self.names)))
        columns = (self.enclosing.tolist(), self.scores.tolist(), self.labels.tolist())
        rows: list[dict[str, Any]] = [
            {"name": self.names[label], "label": label, "class_id": ids[label], "score": score, "box": box}
            for box, score, label in zip(*columns, strict=True)
        ]
        parts: dict[str, Sequence[Any]] = {}
        if self.boxes.shape[1] == 5:
            parts |= {"oriented_box": self.boxes.tolist(), "corners": self.corners.tolist()}
        if self.masks is not None:
            parts["mask"] = [mask.rle(self.image_size) for mask in self.masks]
        if self.keypoints is not None:
            parts["keypoints"] = self.keypoints.tolist()
        if self.attributes is not None:
            parts["attributes"] = [self._attributes_of(row) for row in range(len(self))]
        for name, values in parts.items():
            for row, value in zip(rows, values, strict=True):
                row[name] = value
        return rows

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO result rows: bbox as x, y, width, height in px; category_id is the dataset's own class id.

        With segmentation (compressed run lengths) and keypoints (x, y, visibility, one after the other) where there are
        any; of oriented boxes bbox is the upright box around, and segmentation the polygon of the corners.
        """
        rows = []
        for row in self.to_dicts():
            made: dict[str, Any] = {
                "image_id": image_id,
                "category_id": row["class_id"],
                "bbox": [round(v, 3) for v in _xywh(row["box"])],
                "score": round(row["score"], 5),
            }
            if "corners" in row:
                made["segmentation"] = [[round(v, 3) for corner in row["corners"] for v in corner]]
            if "mask" in row:
                made["segmentation"] = row["mask"]
            if "keypoints" in row:
                made["keypoints"] = [round(v, 3) for point in row["keypoints"] for v in point]
            if "attributes" in row:
                made["attributes"] = {name: told["value"] for name, told in row["attributes"].items()}
            rows.append(made)
        return rows

    def _attributes_of(self, row: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for spec in self.attribute_specs:
            chances = (self.attributes or {})[spec.name][row].tolist()
            scores = dict(zip(spec.values, chances, strict=True))
            best = max(scores, key=lambda name, scores=scores: scores[name])  # type: ignore[misc]
            value = [name for name, chance in scores.items() if chance > 0.5] if spec.multi_label else best
            told[spec.name] = {"value": value, "scores": scores}
        return told

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`; corners of oriented boxes, keypoints and attributes are in its data.

        Every mask becomes one of the whole image, as that type wants them: on large images take few detections.

        Raises:
            ImportError: the `supervision` package is not installed.
        """
        import supervision

        data: dict[str, Any] = {"class_name": np.array([self.names[i] for i in self.labels.tolist()], dtype=str)}
        if self.boxes.shape[1] == 5:
            data["xyxyxyxy"] = self.corners.cpu().numpy().astype(np.float32)
        if self.keypoints is not None:
            data["keypoints"] = self.keypoints.cpu().numpy().astype(np.float32)
        for name, chances in (self.attributes or {}).items():
            data[name] = chances.cpu().numpy().astype(np.float32)
        masks = None
        if self.masks is not None:
            whole = [mask.full(self.image_size) for mask in self.masks]
            masks = np.stack(whole) if whole else np.zeros((0, *self.image_size), np.bool_)
        return supervision.Detections(
            xyxy=self.enclosing.cpu().numpy().astype(np.float32).reshape(-1, 4),
            mask=masks,
            confidence=self.scores.cpu().numpy().astype(np.float32),
            class_id=self.labels.cpu().numpy().astype(int),
            data=data,
        )


def _xywh(box: list[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
