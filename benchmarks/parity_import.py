# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Do imported weights give the outputs of the network they come from?

For every family and task: the peer builds its network with random weights and batch statistics, saves it as a
checkpoint, `boxwright import` reads that, and both look at the same random image. The peers (AGPL, GPL) are only run.
A smoke run asks the same of a network of ours whose tensors are saved under the peer's names, where there is no peer.

    PATH=.venv-peer/bin:$PATH python benchmarks/parity_import.py [--only NAME] [--half]
"""

import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boxwright.foreign import Checkpoint, Origin, recognise, yolo
from boxwright.foreign.importing import Imported, import_checkpoint
from boxwright.models.network import Network
from boxwright.models.weights import load_weights
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.keypoints import decode_keypoints
from boxwright.presets import PRESETS, preset
from boxwright.structures import ImageOutputs, Outputs, Predictions
from harness import absent, arguments, start

LIMIT = 1e-4  # largest difference of raw outputs, relative to the largest value where that is above 1
CLASSES = 3
ORIGIN = Origin(family="", task="detect", num_classes=CLASSES)  # of our stand-in; its names depend on nothing of it
SMOKE_SIDE = 64  # px
# Cases that a smoke run leaves out: another one walks the same code with a smaller network.
SAME_CODE = {
    **dict.fromkeys(("yolov8m", "yolo11n", "yolo11m", "yolov5nu"), "yolov8n"),
    **{f"yolo11n-{task}": f"yolov8n-{task}" for task in ("seg", "pose", "obb", "cls")},
    **dict.fromkeys(("yolov10s", "yolov10m", "yolo26n"), "yolov10n"),
    **dict.fromkeys(("yolov5s", "yolov5n6"), "yolov5n"),
    "rtdetr-resnet50": "rtdetr-l",
}
os.environ.setdefault("YOLO_OFFLINE", "1")


class Case(NamedTuple):
    """A preset of ours and how the peer builds the same network."""

    preset: str
    package: str
    build: str  # module:class
    config: str
    side: int = 128


_TASKS = "ultralytics.nn.tasks:"
_V5 = "yolov5.models.yolo:"
_OF_TASK = {
    "": "DetectionModel",
    "-seg": "SegmentationModel",
    "-pose": "PoseModel",
    "-obb": "OBBModel",
    "-cls": "ClassificationModel",
}


def _dense(name: str, suffixes: tuple[str, ...] = ("",)) -> list[Case]:
    return [
        Case(f"{name}{suffix}", "ultralytics", _TASKS + _OF_TASK[suffix], f"{name}{suffix}.yaml") for suffix in suffixes
    ]


CASES = [
    *_dense("yolov8n", tuple(_OF_TASK)),
    *_dense("yolov8m"),
    *_dense("yolo11n", tuple(_OF_TASK)),
    *_dense("yolo11m"),
    *_dense("yolov10n"),
    *_dense("yolov10s"),
    *_dense("yolov10m"),
    *_dense("yolo26n"),
    *_dense("yolov5nu"),
    Case("yolov5n", "yolov5", _V5 + "DetectionModel", "models/yolov5n.yaml"),
    Case("yolov5s", "yolov5", _V5 + "DetectionModel", "models/yolov5s.yaml"),
    Case("yolov5n6", "yolov5", _V5 + "DetectionModel", "models/hub/yolov5n6.yaml"),
    Case("yolov5n-seg", "yolov5", _V5 + "SegmentationModel", "models/segment/yolov5n-seg.yaml"),
    Case("rtdetr-l", "ultralytics", _TASKS + "RTDETRDetectionModel", "rtdetr-l.yaml", side=320),
    Case("rtdetr-resnet50", "ultralytics", _TASKS + "RTDETRDetectionModel", "rtdetr-resnet50.yaml", side=320),
]


def built(case: Case) -> nn.Module:
    """The peer's network with random weights and batch statistics, in evaluation."""
    module, _, name = case.build.partition(":")
    kind = getattr(importlib.import_module(module), name)
    config = case.config
    if case.package == "yolov5":
        config = str(Path(str(importlib.import_module("yolov5").__file__)).parent / config)
        model = kind(config, ch=3, nc=CLASSES)
    else:
        model = kind(config, nc=CLASSES, verbose=False)
    return shaken(model.eval(), case.side)


def stand_in(case: Case) -> nn.Module:
    """Our own network in the peer's place, in evaluation, with the batch norms' epsilon that files are read with."""
    model = preset(case.preset, num_classes=CLASSES).model.build()
    origin, _ = recognise(Checkpoint(Path("none"), renamed(model)))
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eps = origin.eps
    return shaken(model.eval(), case.side)


def renamed(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network of ours under the names of the peer."""
    names = yolo.keys(network, Checkpoint(Path("none"), {}), ORIGIN)
    return {names[key]: value for key, value in network.state_dict().items() if key in names}


@torch.no_grad()
def shaken(model: nn.Module, side: int, seed: int = 0) -> nn.Module:
    """The network with batch norms and biases that are no longer 0 and 1: a swapped tensor then shows.

    Batch norms take the statistics of random images first, so that values stay of size 1 in a deep network.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    kept = [part.momentum for part in norms]
    for part in norms:
        part.train()
        part.momentum = 1.0
    model(torch.rand(4, 3, side, side, generator=random))
    for part, momentum in zip(norms, kept, strict=True):
        part.eval()
        part.momentum = momentum
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm) and part.weight is not None:
            part.weight.uniform_(0.7, 1.3, generator=random)
            part.bias.normal_(0, 0.1, generator=random)
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.add_(torch.randn(part.running_mean.shape, generator=random) * 0.1)
            part.running_var.mul_(torch.rand(part.running_var.shape, generator=random) + 0.5)
        elif isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None and part.bias.std() == 0:
            part.bias.add_(torch.randn(part.bias.shape, generator=random) * 0.1)
    return model


def imported(source: Path, folder: Path) -> tuple[Imported, Network]:
    """The file as our network in evaluation, and the report."""
    report = import_checkpoint(source, folder / "ours.safetensors")
    network = report.recipe.model.build()
    load_weights(network, report.path, strict=True)
    return report, network.eval()


def differences(
    case: Case, folder: Path, *, half: bool = False, own: bool = False
) -> tuple[Imported, dict[str, float]]:
    """The import's report, and by output the largest difference; with `own`, our network stands in for the peer's."""
    torch.manual_seed(0)
    model = stand_in(case) if own else built(case)
    model = model.half().float() if half else model
    file = folder / "theirs.pt"
    stored = model.half() if half else model
    torch.save({"epoch": 3, "ema": None, "model": renamed(stored) if own else stored}, file)
    report, network = imported(file, folder)
    image = torch.rand(2, 3, case.side, case.side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():  # in float64, where a difference is one of networks and not of rounding
        outputs = model.double()(image)
        theirs = _ours(case, outputs) if own else _theirs(case, outputs)
        ours = _ours(case, network.double()(image))
    if theirs.keys() != ours.keys():
        raise SystemExit(f"{case.preset}: outputs {sorted(theirs)} of the peer, {sorted(ours)} of ours")
    return report, {name: difference(theirs[name], ours[name]) for name in theirs}


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, as a share of the largest value where that is above 1."""
    if one.shape != other.shape:
        raise SystemExit(f"shapes {tuple(one.shape)} and {tuple(other.shape)}")
    scale = max(float(one.abs().max()), 1.0)
    return float((one - other).abs().max()) / scale


def _ours(case: Case, found: Outputs | ImageOutputs) -> dict[str, Tensor]:
    if isinstance(found, ImageOutputs):
        return {"logits": found.logits}
    preds = found.detection
    if case.package == "yolov5":
        assert preds.objectness is not None
        parts = {
            "raw": torch.cat(
                [x for x in (preds.box_raw, preds.objectness[..., None], preds.logits) if x is not None], -1
            )
        }
        if preds.mask_coefs is not None and preds.prototypes is not None:
            parts |= {"coefs": preds.mask_coefs, "prototypes": preds.prototypes}
        return {**parts, "boxes px": preds.boxes}
    if preds.grid is None:
        return {"logits": preds.logits, "boxes px": preds.boxes}
    main = _fields(preds)
    if not preds.end_to_end:
        return {**main, "boxes px": preds.boxes, **_keypoints(preds)}
    second = {f"{found.auxiliary[0].role} {name}": value for name, value in _fields(found.auxiliary[0]).items()}
    return {**{f"{preds.role} {name}": value for name, value in main.items()}, **second}


def _fields(preds: Predictions) -> dict[str, Tensor]:
    parts = {
        "box_raw": preds.box_raw,
        "logits": preds.logits,
        "coefs": preds.mask_coefs,
        "prototypes": preds.prototypes,
        "keypoints": None if preds.keypoints_raw is None else preds.keypoints_raw.flatten(2),
        "angle": preds.angle,
    }
    return {name: value for name, value in parts.items() if value is not None}


def _keypoints(preds: Predictions) -> dict[str, Tensor]:
    if preds.keypoints_raw is None or preds.grid is None:
        return {}
    grid, shape = preds.grid, preds.keypoints_raw.shape[:2]
    points = decode_keypoints(
        preds.keypoints_raw[..., :2], grid.points.expand(*shape, 2), grid.strides.expand(shape), preds.keypoint_form
    )
    return {"keypoints px": points}


def _theirs(case: Case, found: Any) -> dict[str, Tensor]:
    if case.preset.endswith("-cls"):
        return {"logits": found[1]}
    if case.package == "yolov5":
        return _theirs_v5(found)
    if "RTDETR" in case.build:
        boxes, logits = found[1][0][-1], found[1][1][-1]
        return {"logits": logits, "boxes px": cxcywh_to_xyxy(boxes * case.side)}
    decoded, raw = found
    if "one2one" in raw:
        return {f"{of} {name}": value for of in ("one2one", "one2many") for name, value in _raw(raw[of]).items()}
    decoded = decoded[0] if isinstance(decoded, tuple) else decoded
    decoded = decoded.transpose(1, 2)
    boxes = decoded[..., :4]
    parts = _raw(raw)
    boxes = torch.cat((boxes, decoded[..., -1:]), -1) if "angle" in raw else cxcywh_to_xyxy(boxes)
    if "kpts" in raw:
        parts["keypoints px"] = decoded[..., 4 + CLASSES :].unflatten(-1, (-1, 3))[..., :2]
    return {**parts, "boxes px": boxes}


def _raw(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parts = {"box_raw": raw["boxes"].transpose(1, 2), "logits": raw["scores"].transpose(1, 2)}
    names: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
        "mask_coefficient": ("coefs", lambda x: x.transpose(1, 2)),
        "proto": ("prototypes", lambda x: x),
        "kpts": ("keypoints", lambda x: x.transpose(1, 2)),
        "angle": ("angle", lambda x: x[:, 0]),
    }
    return parts | {new: read(raw[old]) for old, (new, read) in names.items() if old in raw}


def _theirs_v5(found: Any) -> dict[str, Tensor]:
    rows = torch.cat([level.flatten(1, 3) for level in found[-1]], 1)
    parts = {"raw": rows[..., : 5 + CLASSES], "boxes px": cxcywh_to_xyxy(found[0][..., :4])}
    if len(found) == 3:
        parts |= {"coefs": rows[..., 5 + CLASSES :], "prototypes": found[1]}
    return parts


def rows() -> list[str]:
    """Names of the table's rows."""
    return [case.preset for case in CASES]


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__, timed=False, kept=False)
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--half", action="store_true", help="files in half precision, as published ones are")
    bench = start("parity_import", parser, rows())
    given = bench.options
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    missing = {package: why for package in sorted({case.package for case in CASES}) if (why := absent(package))}
    for package, why in missing.items():
        bench.leave_out(f"peer {package}", why)
    if missing and not bench.smoke:
        raise SystemExit("the peers are needed; without them only --smoke runs, with networks of ours in their place")
    print("| preset | keys used | left | outputs | largest difference |\n|---|---|---|---|---|")
    worst = 0.0
    for case in CASES:
        if case.preset not in PRESETS or (given.only and given.only not in case.preset):
            continue
        if bench.smoke and case.preset in SAME_CODE:
            bench.leave_out(case.preset, f"smoke run: {SAME_CODE[case.preset]} walks the same code")
            continue
        case = case._replace(side=SMOKE_SIDE) if bench.smoke else case
        with tempfile.TemporaryDirectory() as folder:
            report, found = differences(case, Path(folder), half=given.half, own=case.package in missing)
        largest = max(found, key=lambda name: found[name])
        worst = max(worst, found[largest])
        assert report.recipe.name == case.preset, f"{case.preset} was taken for {report.recipe.name}"
        print(
            f"| {case.preset} | {len(report.used)} | {len(report.left)} | {', '.join(found)} | "
            f"{found[largest]:.1e} ({largest}) |",
            flush=True,
        )
    print(f"worst {worst:.1e}, limit {LIMIT:.0e}")
    raise SystemExit(worst > LIMIT)


if __name__ == "__main__":
    main()
