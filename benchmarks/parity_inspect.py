# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Is the sum that the inspector shows the loss that another code base computed?

The peer (`ultralytics`, AGPL, only run) trains a few steps on random images with its own loss; the last step's raw
outputs and labels are written with `examples/dump_tensors.py`, with the peer's loss as a number, and inspected.
A smoke run trains our own network with our own criterion where there is no peer.

    PATH=.venv-peer/bin:$PATH python benchmarks/parity_inspect.py [--only NAME]
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boxwright.inspector.probe import Inspection, inspect
from boxwright.inspector.tensors import CRITERIA, read_tensors
from boxwright.losses import targets_from_rows
from boxwright.presets import preset
from boxwright.structures import Predictions

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path[:0] = [str(EXAMPLES), str(Path(__file__).parent)]
from dump_tensors import dump  # noqa: E402

from bench_criteria import peer_model  # noqa: E402
from harness import absent, arguments, start  # noqa: E402

LIMIT = 1e-5  # relative difference of two float32 sums of the same numbers in another order
CLASSES, OBJECTS = 80, 7
os.environ.setdefault("YOLO_OFFLINE", "1")


class Size(NamedTuple):
    """How much is trained."""

    side: int = 192  # px
    batch: int = 4
    steps: int = 6


FULL = Size()
SMOKE = Size(side=64, batch=2, steps=1)
Step = Callable[[Tensor], tuple[dict[str, Tensor], Tensor]]  # images to raw outputs and the loss


class Case(NamedTuple):
    """A model of the peer and how its file is described."""

    config: str
    criterion: str
    options: Mapping[str, Any] = {}
    classes: int = CLASSES
    two_branches: bool = False


CASES = {
    "detect": Case("yolov8n.yaml", "yolov8_detect"),
    "segment": Case("yolov8n-seg.yaml", "yolov8_segment"),
    "pose": Case("yolov8n-pose.yaml", "yolov8_pose", classes=1),
    "oriented": Case("yolov8n-obb.yaml", "yolov8_oriented", {"modern": True}),
    "dual": Case("yolov10n.yaml", "end_to_end_progressive", two_branches=True),
}
ARRAYS = {
    "boxes": "boxes",
    "scores": "logits",
    "mask_coefficient": "mask_coefs",
    "proto": "prototypes",
    "kpts": "keypoints",
    "angle": "angle",
}


@dataclass(frozen=True)
class Result:
    """Both sums."""

    peer: float
    inspection: Inspection
    rows: int  # labels

    @property
    def inspected(self) -> float:
        """What objects, background and images pay together."""
        terms = self.inspection.terms
        return float(terms["objects"].sum() + terms["background"].sum() + terms["images"].sum())

    @property
    def difference(self) -> float:
        """Relative to the peer's."""
        return abs(self.inspected - self.peer) / abs(self.peer)


def labels_of(case: Case, size: Size, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Labels as the peer reads them, and what of them our file holds beside class and box."""
    g = torch.Generator().manual_seed(seed)
    count = size.batch * OBJECTS
    wh = torch.rand(count, 2, generator=g) * 0.4 + 0.1
    boxes = torch.cat((wh / 2 + torch.rand(count, 2, generator=g) * (1 - wh), wh), dim=1)
    image = torch.arange(size.batch).repeat_interleave(OBJECTS)
    rows = {
        "batch_idx": image.float(),
        "cls": torch.randint(case.classes, (count, 1), generator=g).float(),
        "bboxes": boxes,
    }
    more: dict[str, Tensor] = {}
    if "seg" in case.config:
        more["instance_map"] = painted(image, boxes, size)
        rows["masks"] = more["instance_map"].float()
    if "pose" in case.config:
        places = boxes[:, None, :2] + (torch.rand(count, 17, 2, generator=g) - 0.5) * boxes[:, None, 2:]
        seen = torch.randint(3, (count, 17, 1), generator=g).float()
        rows["keypoints"] = more["keypoints"] = torch.cat((places, seen), dim=2)
    if "obb" in case.config:
        rows["bboxes"] = torch.cat((boxes, torch.rand(count, 1, generator=g)), dim=1)
    return rows, more


def painted(image: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """(B, h, w): 1 + place of the object in its image; later objects lie on top."""
    side = size.side // 4
    found = torch.zeros(size.batch, side, side, dtype=torch.int32)
    low = ((boxes[:, :2] - boxes[:, 2:] / 2) * side).long().clamp(min=0)
    high = ((boxes[:, :2] + boxes[:, 2:] / 2) * side).long()
    for number, place in enumerate(image.tolist()):
        (x1, y1), (x2, y2) = low[number].tolist(), high[number].tolist()
        found[place, y1:y2, x1:x2] = number % OBJECTS + 1
    return found


def arrays_of(case: Case, preds: Mapping[str, Any]) -> dict[str, Tensor]:
    """The peer's raw training outputs by the names of our file."""
    if not case.two_branches:
        return {ours: preds[theirs] for theirs, ours in ARRAYS.items() if theirs in preds}
    many = arrays_of(case._replace(two_branches=False), preds["one2many"])
    one = arrays_of(case._replace(two_branches=False), preds["one2one"])
    return {**one, **{f"one2many.{name}": tensor for name, tensor in many.items()}}


def peers(case: Case, rows: Mapping[str, Tensor]) -> tuple[nn.Module, Step]:
    """The peer's network, and its step."""
    model = peer_model(case.config)
    assert model is not None, "ultralytics is not installed"
    criterion: Callable[[Any, Any], Any] = model.init_criterion()

    def step(images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        preds = model(images)
        return arrays_of(case, preds), criterion(preds, rows)[0].sum()

    return model, step


def stand_in(case: Case, rows: Mapping[str, Tensor], more: Mapping[str, Tensor], size: Size) -> tuple[nn.Module, Step]:
    """Our own network with our own criterion in the peer's place."""
    recipe = preset(case.config.removesuffix(".yaml"), num_classes=case.classes)
    model, criterion = recipe.model.build(), CRITERIA[case.criterion](**case.options)
    targets = targets_from_rows(
        rows["batch_idx"],
        rows["cls"][:, 0],
        rows["bboxes"],
        batch=size.batch,
        image_size=(size.side, size.side),
        **more,
    )

    def step(images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        outputs = model(images)
        arrays = raw_arrays(outputs.final)
        for branch in outputs.auxiliary:
            arrays |= {f"{branch.role}.{name}": tensor for name, tensor in raw_arrays(branch).items()}
        return arrays, criterion(outputs, targets).total

    return model, step


def raw_arrays(preds: Predictions) -> dict[str, Tensor]:
    """Raw outputs by the names of our file, candidates last."""
    parts = {
        "boxes": preds.box_raw.transpose(1, 2),
        "logits": preds.logits.transpose(1, 2),
        "mask_coefs": None if preds.mask_coefs is None else preds.mask_coefs.transpose(1, 2),
        "prototypes": preds.prototypes,
        "keypoints": None if preds.keypoints_raw is None else preds.keypoints_raw.flatten(2).transpose(1, 2),
        "angle": None if preds.angle is None else preds.angle[:, None],
    }
    return {name: tensor for name, tensor in parts.items() if tensor is not None}


def compared(name: str, folder: Path, *, size: Size = FULL, own: bool = False) -> Result:
    """Trains the peer for a few steps, dumps the last one and inspects the file; with `own`, ours in its place."""
    case = CASES[name]
    torch.manual_seed(0)
    rows, more = labels_of(case, size, 0)
    model, step = stand_in(case, rows, more, size) if own else peers(case, rows)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9)
    g = torch.Generator().manual_seed(1)
    for _ in range(size.steps):
        arrays, loss = step(torch.rand(size.batch, 3, size.side, size.side, generator=g))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    about = {
        "head": "yolov8", "criterion": case.criterion, "options": dict(case.options),
        "image_size": [size.side, size.side], "num_classes": case.classes, "strides": [8, 16, 32], "num_bins": 16,
        "loss": float(loss.detach()), "box_unit": "normalized_cxcywh",
    }  # fmt: skip
    table = torch.cat((rows["batch_idx"][:, None], rows["cls"], rows["bboxes"]), dim=1)
    dump(folder / f"{name}.npz", arrays | {f"targets.{key}": value for key, value in more.items()}, table, about)
    batch = read_tensors(folder / f"{name}.npz")
    found = inspect(batch.outputs, batch.targets, batch.criterion, progress=batch.about.progress)
    assert batch.about.loss is not None
    return Result(batch.about.loss, found, len(table))


def rows() -> list[str]:
    """Names of the table's rows."""
    return list(CASES)


def main() -> None:
    """Prints one line for each case; ends with 1 where a difference is above the limit."""
    parser = arguments(__doc__, timed=False, kept=False)
    parser.add_argument("--only", choices=list(CASES))
    bench = start("parity_inspect", parser, rows())
    only = bench.options.only
    warnings.filterwarnings("ignore")
    why = absent("ultralytics")
    if why and not bench.smoke:
        raise SystemExit(f"{why}; without it only --smoke runs, with our own network in its place")
    if why:
        bench.leave_out("peer", why)
    print("| case | labels | peer's loss | inspected sum | relative difference |")
    print("|---|---|---|---|---|")
    wrong, size = 0, SMOKE if bench.smoke else FULL
    with tempfile.TemporaryDirectory() as folder:
        for name in [only] if only else CASES:
            found = compared(name, Path(folder), size=size, own=why is not None)
            print(f"| {name} | {found.rows} | {found.peer:.6f} | {found.inspected:.6f} | {found.difference:.1e} |")
            wrong += found.difference > LIMIT
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
