# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Builds docs/tour.md: one image and one label box on their way through the package.

The text is docs/tour.in.md. `{{ code("dotted.name") }}` becomes the definition of that name, cut out of the source
without its docstring; `{{ ... }}` with other names becomes a number that `walk` came across. Both follow the code: the
page cannot say what the code no longer does.
"""

import argparse
import ast
import contextlib
import importlib
import io
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # citations, wherever this is started from

import citations  # noqa: E402

from boxwright.datasets.dataset import read_split  # noqa: E402
from boxwright.datasets.formats import open_dataset  # noqa: E402
from boxwright.datasets.sample import Record  # noqa: E402
from boxwright.errors import DataError  # noqa: E402
from boxwright.loading.augment.pipeline import AugmentConfig  # noqa: E402
from boxwright.loading.collate import Batch  # noqa: E402
from boxwright.loading.loader import train_loader  # noqa: E402
from boxwright.ops.letterbox import letterbox  # noqa: E402
from boxwright.presets import preset  # noqa: E402
from boxwright.results import Detections  # noqa: E402
from boxwright.structures import LossBreakdown, Outputs, Targets  # noqa: E402
from boxwright.tasks.base import SelectOptions  # noqa: E402
from boxwright.tasks.postprocess import finish, postprocess  # noqa: E402

PAGE = HERE / "tour.md"
TEXT = HERE / "tour.in.md"
NOTE = "<!-- Made by docs/build_tour.py from docs/tour.in.md and the source; change those, then `make docs`. -->"
# After these files, in this order, a newcomer knows the training step; README.md names them.
READING = (
    "boxwright.structures.Predictions",
    "boxwright.losses.criterion.Criterion",
    "boxwright.losses.terms.box.BoxOverlap",
    "boxwright.engine.step.Stepper",
    "boxwright.presets.yolov8.yolov8",
)

WIDTH, HEIGHT, SIDE = 128, 96, 64  # px of the image; px of the network input
ROW = "1 0.5 0.5 0.4 0.5"
STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Walk:
    """What the one image becomes, from its file to what is found in it."""

    record: Record
    batch: Batch
    prepared: Targets
    outputs: Outputs
    loss: LossBreakdown
    before: torch.Tensor  # one weight of the network, before and after the step
    after: torch.Tensor
    found: Detections


def walk() -> Walk:
    """One YOLOv8n with fresh weights (seed 0, float64) sees one image once."""
    recipe = preset("yolov8n", num_classes=2, imgsz=SIDE)
    still = AugmentConfig(mosaic=0.0, translate=0.0, scale=0.0, fliplr=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
    with tempfile.TemporaryDirectory() as folder:
        header = open_dataset(_write(Path(folder)))
        records = read_split(header, "train", recipe.data)
        loader = train_loader(records, recipe.data, still, batch=1, seed=0, epochs=1, workers=0)
        loader.set_epoch(0)
        batch = next(iter(loader))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = recipe.model.build().double().train()
    weight = next(model.parameters())
    before = weight.detach().flatten()[0].clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    criterion: Any = recipe.criterion
    prepared = criterion.prepare(batch.targets, model.grid((SIDE, SIDE)))
    images = batch.images.double() / 255
    outputs = model(images, prepared)
    loss = criterion(outputs, prepared)
    loss.total.backward()
    optimizer.step()
    after = weight.detach().flatten()[0].clone()
    with torch.no_grad():
        seen = model.eval()(images).detection
    placed = letterbox((HEIGHT, WIDTH), (SIDE, SIDE))
    kept = postprocess(seen, SelectOptions(conf=0.0, max_det=1, multi_label=False))
    found = finish(seen, kept, [placed], vocabulary=recipe.vocabulary(header.names))[0]
    return Walk(records.records[0], batch, prepared, outputs, loss, before, after, found)


def _write(folder: Path) -> Path:
    """The dataset: one grey image with an orange rectangle, one row of labels."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    pixels[24:72, 38:90] = (40, 160, 230)
    for name in ("images", "labels"):
        (folder / name / "train").mkdir(parents=True)
    cv2.imwrite(str(folder / "images" / "train" / "one.png"), pixels)
    (folder / "labels" / "train" / "one.txt").write_text(f"{ROW}\n")
    file = folder / "data.yaml"
    file.write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
    return file


def names(steps: Walk) -> dict[str, Any]:
    """What the text may use."""
    pairs = steps.loss.assignments["main"]
    preds = steps.outputs.final
    chosen = pairs.valid.nonzero()[:, 0]
    grid = preds.cells
    scores = preds.logits.detach().sigmoid()[0]
    cells = [
        (
            int(grid.strides[anchor]),
            numbers(grid.points[anchor].tolist(), 0),
            f"{scores[anchor, int(steps.prepared.labels[0, 0])]:.4f}",
            numbers(preds.boxes[0, anchor].tolist(), 0),
            f"{weight:.1e}",
        )
        for anchor, weight in zip(pairs.anchor[chosen].tolist(), pairs.weight[chosen].tolist(), strict=True)
    ]
    components = steps.loss.components
    items = [
        (f"`{item.name}`", tuple(item.contributions.shape), f"{item.contributions.sum():.4f}", f"{item.gain:g}",
         f"{components[item.name]:.4f}")
        for item in steps.loss.items
    ]  # fmt: skip
    inside = _inside(steps.batch.targets, grid)
    return {
        "ROW": ROW, "WIDTH": WIDTH, "HEIGHT": HEIGHT, "SIDE": SIDE,
        "code": code, "numbers": numbers, "shape": lambda tensor: tuple(tensor.shape),
        "steps": steps, "preds": preds, "targets": steps.batch.targets, "pairs": pairs, "matched": len(chosen),
        "inside": ", ".join(f"{count} of stride {stride}" for stride, count in inside.items()),
        "pair_table": table(("stride", "centre, px", "score of dog", "box, px", "weight"), cells),
        "item_table": table(("item", "contributions", "sum", "gain", "component"), items),
        "total": f"{steps.loss.total:.4f}",
        "change": f"{steps.before.item():.6f} to {steps.after.item():.6f}",
        "score": f"{steps.found.scores[0]:.4f}", "label": steps.found.names[int(steps.found.labels[0])],
        "reading": reading(),
    }  # fmt: skip


def _inside(targets: Any, grid: Any) -> dict[int, int]:
    """How many cell centres of each stride lie inside the one box."""
    x1, y1, x2, y2 = targets.boxes[0, 0].tolist()
    x, y = grid.points.T
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    return {stride: int((inside & (grid.strides == stride)).sum()) for stride in STRIDES}


def numbers(values: Iterable[float], digits: int = 1) -> str:
    """Values with one precision, in brackets."""
    return "(" + ", ".join(f"{value:.{digits}f}" for value in values) + ")"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0]), *[[str(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def find(name: str) -> tuple[Path, list[str]]:
    """File of a dotted name of the package, and the names that lead to its definition there.

    The name may be one that a package re-exports: the definition is looked up where it stands.

    Raises:
        DataError: there is no such name.
    """
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        found = getattr(found, "fget", found)  # a property's function
        if getattr(found, "__qualname__", None) is None:
            break
        module = sys.modules[found.__module__]
        return Path(str(module.__file__)), found.__qualname__.split(".")
    raise DataError(f"docs/tour.in.md: {name}: no class or function of that name; it moved, or has another name now")


def code(name: str) -> str:
    """The definition of a dotted name as a Markdown block: no docstrings; of a class the fields only."""
    file, path = find(name)
    text = file.read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in path:
        inner = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        node = next(child for child in node.body if isinstance(child, inner) and child.name == part)
    lines = text.splitlines()
    first = min((node.lineno, *(decorator.lineno for decorator in node.decorator_list)))
    body = list(node.body)
    dropped = [part for part in body if _is_docstring(part)]
    if isinstance(node, ast.ClassDef):
        dropped += [part for part in body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
    gone = {line for part in dropped for line in range(_start(part), part.end_lineno + 1)}
    kept = [lines[line - 1] for line in range(first, node.end_lineno + 1) if line not in gone]
    shown = re.sub(r"\n{2,}", "\n", textwrap.dedent("\n".join(kept)).strip())
    where = file.relative_to(ROOT).as_posix()
    return f"[{where}](../{where}), `{'.'.join(path)}`:\n\n```python\n{shown}\n```"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _start(node: Any) -> int:
    return min((node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))))


def reading() -> list[tuple[str, int]]:
    """The files of the reading order, relative to the repository, with their lines."""
    files = [find(name)[0] for name in READING]
    return [(file.relative_to(ROOT).as_posix(), len(file.read_text(encoding="utf-8").splitlines())) for file in files]


def build() -> str:
    """The page.

    Raises:
        DataError: the text names what does not exist; says which.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        known = names(walk())

    def value(match: re.Match[str]) -> str:
        try:
            return str(eval(match[1].strip(), dict(known)))
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"docs/tour.in.md: {match[0]}: {error!r}") from error

    text = re.sub(r"\{\{(.+?)\}\}", value, TEXT.read_text(encoding="utf-8"))
    return NOTE + "\n\n" + citations.linked(text, "")


def main() -> None:
    """Writes the page, or prints the lines of the reading order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", action="store_true", help="count the lines of the reading order instead")
    if parser.parse_args().lines:
        for file, lines in reading():
            print(f"{lines:5} {file}")  # noqa: T201
        print(f"{sum(lines for _, lines in reading()):5} in all")  # noqa: T201
        return
    text = build()
    PAGE.write_text(text, encoding="utf-8")
    print(f"{len(text.splitlines())} lines in {PAGE}")  # noqa: T201


if __name__ == "__main__":
    main()
