# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Trained networks as ONNX and TorchScript files that say everything about themselves.

A file's outputs are plain tensors, for B images of A candidates (dense cells or queries) and C classes:

- `boxes` (B, A, 4) px x1, y1, x2, y2 of the network input, or (B, A, 5) px cx, cy, w, h and radians;
- `scores` (B, A, C) probabilities; of a classifier (B, C);
- `coefs` (B, A, Q) and `prototypes` (B, Q, h, w): a mask's logits are their product, at a quarter of the input's size;
- `keypoints` (B, A, K, 2 or 3): px x, px y, and with 3 the visibility in 0..1;
- `attribute_NAME` (B, A, values): probabilities.

With suppression inside, `boxes` and `scores` become `detections` (n, 7): image, x1, y1, x2, y2, score, label; the other
outputs by candidate then have one row for each of them. `images` (B, 3, H, W), RGB in 0..1, is the only input.
"""

import contextlib
import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import config
from torch import Tensor, nn
from torch.onnx import utils

from boxwright.config import to_dict, to_yaml
from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError, ExportError
from boxwright.models.network import Network
from boxwright.models.weights import replace_atomically
from boxwright.ops.keypoints import decode_keypoints
from boxwright.ops.scores import class_probabilities
from boxwright.structures import ImageOutputs, Predictions, at_least_float32
from boxwright.version import __version__
from boxwright.vocabulary import TASKS, AttributeSpec, Vocabulary

ExportFormat = Literal["onnx", "torchscript"]
SUFFIXES: Mapping[ExportFormat, str] = {"onnx": ".onnx", "torchscript": ".torchscript"}
EXPORT_FORMAT = "boxwright-export/1"
OPSETS = range(16, 21)  # 16 knows the sampling that query heads need; above 20 this exporter writes nothing
METADATA_FILE = "boxwright.json"  # inside a TorchScript archive


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """How a file is made.

    `dynamic` leaves number and size of the images open; without it the file takes `batch` images of `imgsz` px.
    `nms` puts suppression inside the file, with the thresholds that follow.
    """

    format: ExportFormat = "onnx"
    imgsz: int | None = None  # px; None: the recipe's
    batch: int = 1
    opset: int = 17
    dynamic: bool = False
    nms: bool = False
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise ConfigError(f"format: expected one of {', '.join(SUFFIXES)}, got {self.format}")
        if self.opset not in OPSETS:
            raise ConfigError(f"opset: expected {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}")
        if self.batch < 1:
            raise ConfigError(f"batch: expected at least 1, got {self.batch}")
        if self.nms and self.format != "onnx":
            raise ConfigError(f"nms: suppression inside the file is written for onnx only, got {self.format}")


class RawOutputs(nn.Module):
    """A network whose outputs are a tuple of decoded tensors, in the order of `names`."""

    def __init__(self, network: Network, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.network, self.vocabulary = network, vocabulary
        self.names: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs for images in 0..1; their names are in `names` afterwards."""
        outputs = self.network(images)
        if isinstance(outputs, ImageOutputs):
            logits = at_least_float32(outputs.logits)
            found = {"scores": logits.softmax(-1) if self.vocabulary.exclusive else logits.sigmoid()}
        else:
            found = decoded(outputs.detection, self.vocabulary.attributes)
        self.names = tuple(found)
        return tuple(found.values())


def decoded(preds: Predictions, attributes: Sequence[AttributeSpec] = ()) -> dict[str, Tensor]:
    """Everything about every candidate, in pixels and probabilities, by output name."""
    found = {
        "boxes": preds.boxes,
        "scores": class_probabilities(preds.logits, preds.exclusive, preds.objectness),
    }
    if preds.mask_coefs is not None and preds.prototypes is not None:
        found |= {"coefs": preds.mask_coefs, "prototypes": preds.prototypes}
    if preds.keypoints_raw is not None:
        raw, grid = preds.keypoints_raw, preds.cells
        points, strides = grid.points.expand(*raw.shape[:2], 2), grid.strides.expand(raw.shape[:2])
        places = decode_keypoints(raw[..., :2], points, strides, preds.keypoint_form)
        found["keypoints"] = torch.cat((places, raw[..., 2:].sigmoid()), -1)
    for spec in attributes:
        logits = (preds.attribute_logits or {})[spec.name]
        found[f"attribute_{spec.name}"] = logits.sigmoid() if spec.multi_label else logits.softmax(-1)
    return found


def export(
    network: Network, recipe: Recipe, vocabulary: Vocabulary, out: Path, settings: ExportSettings | None = None
) -> Path:
    """Writes a network as a file of another runtime and returns its path; the network stays as it is.

    Raises:
        ExportError: a package that writing needs is missing, or the network cannot be written like this.
        ConfigError: a setting is out of range.
    """
    settings = settings or ExportSettings()
    if settings.format == "onnx":
        need("onnx")
    folded = network.fold(auxiliary=False).cpu().float()
    side = settings.imgsz or recipe.data.imgsz
    stride = max(folded.strides)
    if side % stride or side < stride:
        raise ConfigError(f"imgsz: expected a multiple of {stride}, got {side}")
    model = RawOutputs(folded, vocabulary).eval()
    example = torch.rand(settings.batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = dict(zip(_names_after(model, example), model(example), strict=True))
        end_to_end = _end_to_end(folded, example)
    _check_possible(settings, vocabulary, end_to_end, queries=_queries(folded, side))
    metadata = _metadata(recipe, vocabulary, settings, folded, side, outputs, end_to_end)
    with replace_atomically(out) as temporary, quiet_tracer(), torch.no_grad():
        write = _write_onnx if settings.format == "onnx" else _write_torchscript
        write(model, example, temporary, metadata, settings)
    return out


def need(package: str) -> None:
    """Checks that a package of the extra `export` is installed.

    Raises:
        ExportError: it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise ExportError(f"{package} is not installed; install it with: pip install 'boxwright[export]'")


@contextlib.contextmanager
def quiet_tracer() -> Iterator[None]:
    """For tracing: sizes are tensors then, so neither warnings about them nor checks of annotations mean anything."""
    checked = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.update("jaxtyping_disable", checked)


def _names_after(model: RawOutputs, example: Tensor) -> tuple[str, ...]:
    model(example)
    return model.names


def _end_to_end(network: Network, example: Tensor) -> bool:
    outputs = network(example)
    return not isinstance(outputs, ImageOutputs) and outputs.detection.end_to_end


def _queries(network: Network, side: int) -> bool:
    return network.strides != (1,) and network.grid((side, side)) is None


def _check_possible(settings: ExportSettings, vocabulary: Vocabulary, end_to_end: bool, *, queries: bool) -> None:
    if settings.nms and TASKS[vocabulary.task].oriented:
        raise ExportError("nms: suppression of oriented boxes is no operation of onnx; leave it out and suppress after")
    if settings.nms and TASKS[vocabulary.task].whole_image:
        raise ExportError("nms: a classifier has nothing to suppress; leave it out")
    if settings.nms and end_to_end:
        raise ExportError("nms: this network gives every object once and needs no suppression; leave it out")
    if settings.dynamic and queries:
        raise ExportError(
            "dynamic: a query network's positions are made for one size of images; leave it out and give --imgsz and "
            "--batch"
        )


def _metadata(
    recipe: Recipe,
    vocabulary: Vocabulary,
    settings: ExportSettings,
    network: Network,
    side: int,
    outputs: Mapping[str, Tensor],
    end_to_end: bool,
) -> dict[str, str]:
    """Text that travels in the file; `boxwright.export.runtime` reads all of it."""
    facts = {
        "boxwright": __version__,
        "format": settings.format,
        "imgsz": side,
        "batch": None if settings.dynamic else settings.batch,
        "dynamic": settings.dynamic,
        "strides": list(network.strides),
        "num_classes": network.num_classes,
        "fit": recipe.data.fit,
        "end_to_end": end_to_end,
        "nms": {"conf": settings.conf, "iou": settings.iou, "max_det": settings.max_det} if settings.nms else None,
        "outputs": {name: list(value.shape[1:]) for name, value in outputs.items()},
    }
    ids = vocabulary.class_ids or tuple(range(len(vocabulary.names)))
    return {
        "format": EXPORT_FORMAT,
        "task": vocabulary.task,
        "names": json.dumps(list(vocabulary.names)),
        "class_ids": json.dumps(list(ids)),
        "exclusive": json.dumps(vocabulary.exclusive),
        "vocabulary": json.dumps(to_dict(vocabulary)),
        "export": json.dumps(facts),
        "recipe": to_yaml(recipe),
    }


def _axes(names: Sequence[str], outputs: Sequence[Tensor], settings: ExportSettings) -> dict[str, dict[int, str]]:
    if not settings.dynamic:
        return {}
    axes: dict[str, dict[int, str]] = {"images": {0: "batch", 2: "height", 3: "width"}}
    for name, value in zip(names, outputs, strict=True):
        axes[name] = {0: "batch"}
        if name == "prototypes":
            axes[name] |= {2: "mask_height", 3: "mask_width"}
        elif value.ndim > 2:
            axes[name][1] = "candidates"
    return axes


@contextlib.contextmanager
def _more_operations(opset: int) -> Iterator[None]:
    """Says how operations are written that the exporter does not know."""
    utils.register_custom_op_symbolic("aten::exp2", _exp2, opset)
    try:
        yield
    finally:
        utils.unregister_custom_op_symbolic("aten::exp2", opset)


def _exp2(graph: Any, x: Any) -> Any:
    return graph.op("Pow", graph.op("Constant", value_t=torch.tensor(2.0)), x)


def _write_onnx(
    model: RawOutputs, example: Tensor, path: Path, metadata: Mapping[str, str], settings: ExportSettings
) -> None:
    import onnx

    from boxwright.export.onnx_graph import add_suppression

    names = list(model.names)
    try:
        with _more_operations(settings.opset):
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=False,
                opset_version=settings.opset,
                input_names=["images"],
                output_names=names,
                dynamic_axes=_axes(names, model(example), settings),
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(f"onnx: this network cannot be written with opset {settings.opset}: {error}") from error
    written = onnx.load(str(path))
    if settings.nms:
        add_suppression(written, settings.conf, settings.iou, settings.max_det)
    for key, value in metadata.items():
        entry = written.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(written)
    onnx.save(written, str(path))


def _write_torchscript(
    model: RawOutputs, example: Tensor, path: Path, metadata: Mapping[str, str], settings: ExportSettings
) -> None:
    traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
    torch.jit.save(traced, str(path), _extra_files={METADATA_FILE: json.dumps(dict(metadata))})
