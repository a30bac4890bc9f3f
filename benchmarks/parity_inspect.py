# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Is the sum that the inspector shows the loss that another code base computed?

The peer (`ultralytics`, AGPL, only run) trains a few steps on random images with its own loss; the last step's raw
outputs and labels are written with `examples/dump_tensors.py`, with the peer's loss as a number, and inspected.

    PATH=.venv-peer/bin:$PATH python benchmarks/parity_inspect.py [--only NAME]
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from boxwright.inspector.probe import Inspection, inspect
from boxwright.inspector.tensors import read_tensors

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path[:0] = [str(EXAMPLES), str(Path(__file__).parent)]
from dump_tensors import dump  # noqa: E402

from bench_criteria import peer_model  # noqa: E402

LIMIT = 1e-5  # relative difference of two float32 sums of the same numbers in another order
SIDE, BATCH, CLASSES, STEPS, OBJECTS = 192, 4, 80, 6, 7
os.environ.setdefault("YOLO_OFFLINE", "1")


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


def labels_of(case: Case, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Labels as the peer reads them, and what of them our file holds beside class and box."""
    g = torch.Generator().manual_seed(seed)
    count = BATCH * OBJECTS
    size = torch.rand(count, 2, generator=g) * 0.4 + 0.1
    boxes = torch.cat((size / 2 + torch.rand(count, 2, generator=g) * (1 - size), size), dim=1)
    image = torch.arange(BATCH).repeat_interleave(OBJECTS)
    rows = {
        "batch_idx": image.float(),
        "cls": torch.randint(case.classes, (count, 1), generator=g).float(),
        "bboxes": boxes,
    }
    more: dict[str, Tensor] = {}
    if "seg" in case.config:
        more["instance_map"] = painted(image, boxes)
        rows["masks"] = more["instance_map"].float()
    if "pose" in case.config:
        places = boxes[:, None, :2] + (torch.rand(count, 17, 2, generator=g) - 0.5) * boxes[:, None, 2:]
        seen = torch.randint(3, (count, 17, 1), generator=g).float()
        rows["keypoints"] = more["keypoints"] = torch.cat((places, seen), dim=2)
    if "obb" in case.config:
        rows["bboxes"] = torch.cat((boxes, torch.rand(count, 1, generator=g)), dim=1)
    return rows, more


def painted(image: Tensor, boxes: Tensor) -> Tensor:
    """(B, h, w): 1 + place of the object in its image; later objects lie on top."""
    side = SIDE // 4
    found = torch.zeros(BATCH, side, side, dtype=torch.int32)
    low = ((boxes[:, :2] - boxes[:, 2:] / 2) * side).long().clamp(min=0)
    high = ((boxes[:, :2] + boxes[:, 2:] / 2) * side).long()
    for number, of in enumerate(image.tolist()):
        (x1, y1), (x2, y2) = low[number].tolist(), high[number].tolist()
        found[of, y1:y2, x1:x2] = number % OBJECTS + 1
    return found


def arrays_of(case: Case, preds: Mapping[str, Any]) -> dict[str, Tensor]:
    """The peer's raw training outputs by the names of our file."""
    if not case.two_branches:
        return {ours: preds[theirs] for theirs, ours in ARRAYS.items() if theirs in preds}
    many = arrays_of(case._replace(two_branches=False), preds["one2many"])
    one = arrays_of(case._replace(two_branches=False), preds["one2one"])
    return {**one, **{f"one2many.{name}": tensor for name, tensor in many.items()}}


def compared(name: str, folder: Path) -> Result:
    """Trains the peer for a few steps, dumps the last one and inspects the file."""
    case = CASES[name]
    torch.manual_seed(0)
    model = peer_model(case.config)
    assert model is not None, "ultralytics is not installed"
    model.train()
    criterion: Callable[[Any, Any], Any] = model.init_criterion()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    g = torch.Generator().manual_seed(1)
    rows, more = labels_of(case, 0)
    for _ in range(STEPS):
        preds = model(torch.rand(BATCH, 3, SIDE, SIDE, generator=g))
        loss = criterion(preds, rows)[0].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    about = {
        "head": "yolov8", "criterion": case.criterion, "options": dict(case.options), "image_size": [SIDE, SIDE],
        "num_classes": case.classes, "strides": [8, 16, 32], "num_bins": 16, "loss": float(loss.detach()),
        "box_unit": "normalized_cxcywh",
    }  # fmt: skip
    table = torch.cat((rows["batch_idx"][:, None], rows["cls"], rows["bboxes"]), dim=1)
    outputs = arrays_of(case, preds) | {f"targets.{key}": value for key, value in more.items()}
    dump(folder / f"{name}.npz", outputs, table, about)
    held = read_tensors(folder / f"{name}.npz")
    found = inspect(held.outputs, held.targets, held.criterion, progress=held.about.progress)
    assert held.about.loss is not None
    return Result(held.about.loss, found, len(table))


def main() -> None:
    """Prints one line for each case; ends with 1 where a difference is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES))
    only = parser.parse_args().only
    warnings.filterwarnings("ignore")
    if importlib.util.find_spec("ultralytics") is None:
        raise SystemExit("ultralytics is not installed; see `make bench-peer`")
    print("| case | labels | peer's loss | inspected sum | relative difference |")
    print("|---|---|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in [only] if only else CASES:
            found = compared(name, Path(folder))
            print(f"| {name} | {found.rows} | {found.peer:.6f} | {found.inspected:.6f} | {found.difference:.1e} |")
            wrong += found.difference > LIMIT
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
