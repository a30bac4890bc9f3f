# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Exported files, run so that predictor and validator take them for a network."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import from_dict, from_yaml
from boxwright.engine.recipe import Recipe
from boxwright.errors import CheckpointError, ShapeError
from boxwright.export.export import EXPORT_FORMAT, METADATA_FILE, SUFFIXES, need, quiet_tracer
from boxwright.ops.decode import Identity
from boxwright.structures import Grid, ImageOutputs, Outputs, Predictions
from boxwright.vocabulary import TASKS, Vocabulary

Run = Callable[[Tensor], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An exported file with the call of a `Network`: images in 0..1 to outputs, whose boxes are pixels already."""

    path: Path
    vocabulary: Vocabulary
    recipe: Recipe
    strides: tuple[int, ...]
    num_classes: int
    imgsz: int  # px it was made for
    batch: int | None  # images it takes at once; None: any number, of any size
    end_to_end: bool  # nothing has to be suppressed any more
    suppression: Mapping[str, float] | None  # thresholds of the suppression inside the file: conf, iou, max_det
    run: Run  # images to the file's own outputs by name

    @property
    def suppressed(self) -> bool:
        """Whether suppression is inside the file."""
        return self.suppression is not None

    @property
    def dynamic(self) -> bool:
        """Whether images of any number and size are taken."""
        return self.batch is None

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Outputs | ImageOutputs:
        """Outputs for images in 0..1, on the device of the images.

        Raises:
            ShapeError: the file was made for another size.
        """
        found = self.raw(images)
        if TASKS[self.vocabulary.task].whole_image:
            scores = found["scores"]
            return ImageOutputs(scores.log() if self.vocabulary.exclusive else scores.logit())
        size = (int(images.shape[2]), int(images.shape[3]))
        return Outputs(
            self._predictions(_padded(found, len(images), self.num_classes) if self.suppressed else found, size)
        )

    def raw(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """The file's own outputs by name, for any number of images."""
        height, width = images.shape[2:]
        if not self.dynamic and (height, width) != (self.imgsz, self.imgsz):
            raise ShapeError(
                f"{self.path}: takes images of {self.imgsz}x{self.imgsz} px, got {height}x{width}; use that size, or "
                "export with --dynamic"
            )
        with torch.autocast(images.device.type, enabled=False):
            whole = images.float().contiguous()
            step = self.batch or len(whole)
            parts = [self._part(whole[start : start + step], start, step) for start in range(0, len(whole), step)]
        return {name: torch.cat([part[name] for part in parts]).to(images.device) for name in parts[0]}

    def _part(self, images: Tensor, start: int, step: int) -> dict[str, Tensor]:
        """Outputs of at most `step` images, the file's number filled up with empty ones."""
        held = len(images)
        if held < step:
            images = torch.cat((images, images.new_zeros(step - held, *images.shape[1:])))
        found = self.run(images)
        if self.suppressed:
            rows = found["detections"][:, 0] < held
            found = {name: value if name == "prototypes" else value[rows] for name, value in found.items()}
            found["detections"][:, 0] += start
            if "prototypes" in found:
                found["prototypes"] = found["prototypes"][:held]
            return found
        return {name: value[:held] for name, value in found.items()}

    def _predictions(self, found: Mapping[str, Tensor], size: tuple[int, int]) -> Predictions:
        boxes, scores = found["boxes"], found["scores"]
        raw = found.get("keypoints")
        if raw is not None:  # "offset" from a point at 0 in strides of 1: pixels
            raw = torch.cat((raw[..., :2], raw[..., 2:].logit()), -1)
        attributes = {
            spec.name: (value.logit() if spec.multi_label else value.log())
            for spec in self.vocabulary.attributes
            if (value := found.get(f"attribute_{spec.name}")) is not None
        }
        return Predictions(
            logits=scores.logit(),
            box_raw=boxes,
            decoder=Identity(),
            grid=_origin(boxes),
            role="one2one" if self.end_to_end or self.suppressed else "main",
            input_size=size,
            mask_coefs=found.get("coefs"),
            prototypes=found.get("prototypes"),
            keypoints_raw=raw,
            keypoint_form="offset",
            angle=boxes[..., 4] if boxes.shape[-1] == 5 else None,
            attribute_logits=attributes or None,
        )


def is_exported(path: Path) -> bool:
    """Whether a path names an exported file, by its suffix."""
    return path.suffix.lower() in SUFFIXES.values()


def load_exported(path: Path, device: torch.device | str = "cpu") -> ExportedModel:
    """Opens an exported file.

    Raises:
        CheckpointError: it is missing, damaged, or was not exported by boxwright.
        ExportError: the package that runs it is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected {' or '.join(SUFFIXES.values())}")
    run, metadata = (_onnx if path.suffix.lower() == ".onnx" else _torchscript)(path, torch.device(device))
    if metadata.get("format") != EXPORT_FORMAT:
        raise CheckpointError(
            f"{path}: expected a file of format {EXPORT_FORMAT}, got {metadata.get('format', 'none')}; export the "
            "weights with this version of boxwright"
        )
    facts = json.loads(metadata["export"])
    return ExportedModel(
        path=path,
        vocabulary=from_dict(Vocabulary, json.loads(metadata["vocabulary"])),
        recipe=from_yaml(Recipe, metadata["recipe"], source=str(path)),
        strides=tuple(facts["strides"]),
        num_classes=facts["num_classes"],
        imgsz=facts["imgsz"],
        batch=facts["batch"],
        end_to_end=facts["end_to_end"],
        suppression=facts["nms"],
        run=run,
    )


def _onnx(path: Path, device: torch.device) -> tuple[Run, Mapping[str, str]]:
    need("onnxruntime")
    import onnxruntime

    wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises many kinds for a damaged file
        raise CheckpointError(f"{path}: damaged or no ONNX file: {str(error).splitlines()[0]}") from error
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {"images": images.cpu().numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run, session.get_modelmeta().custom_metadata_map


def _torchscript(path: Path, device: torch.device) -> tuple[Run, Mapping[str, str]]:
    extra = {METADATA_FILE: ""}
    try:
        with quiet_tracer():
            load: Any = torch.jit.load
            model = load(str(path), map_location=device, _extra_files=extra)
        metadata = json.loads(extra[METADATA_FILE] or "{}")
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or no TorchScript file: {str(error).splitlines()[0]}") from error
    names = list(json.loads(metadata.get("export", '{"outputs": {}}'))["outputs"])

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(zip(names, model(images.to(device)), strict=True))

    return run, metadata


def _padded(found: Mapping[str, Tensor], images: int, classes: int) -> dict[str, Tensor]:
    """Rows by image, filled up with rows that have no score, as if they came from a head that suppresses itself."""
    rows = found["detections"]
    image, labels = rows[:, 0].long(), rows[:, 6].long()
    counts = torch.bincount(image, minlength=images)
    first = torch.cumsum(counts, 0) - counts
    slot = torch.arange(len(rows), device=rows.device) - first[image]
    most = max(int(counts.max()), 1)

    def spread(value: Tensor, fill: float = 0.0) -> Tensor:
        whole = value.new_full((images, most, *value.shape[1:]), fill)
        whole[image, slot] = value
        return whole

    scores = torch.zeros(len(rows), classes, device=rows.device)
    scores[torch.arange(len(rows)), labels] = rows[:, 5]
    others = {name: value for name, value in found.items() if name not in ("detections", "prototypes")}
    whole = {name: spread(value, 0.5 if name == "keypoints" else 0.0) for name, value in others.items()}
    if "prototypes" in found:
        whole["prototypes"] = found["prototypes"]
    return {"boxes": spread(rows[:, 1:5]), "scores": spread(scores), **whole}


def _origin(boxes: Tensor) -> Grid:
    """A grid whose points are 0 and whose strides are 1, so that pixels read as pixels."""
    count = boxes.shape[1]
    return Grid(
        points=boxes.new_zeros(count, 2),
        strides=boxes.new_ones(count),
        level=torch.zeros(count, dtype=torch.int64, device=boxes.device),
        shapes=((1, count),),
        level_strides=(1,),
    )
