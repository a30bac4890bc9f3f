# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Does every family do every task? One row each: counts, a training step, predictions, export, import.

- counts: parameters and state keys equal those of `tests/golden/architectures.json`, at its number of classes;
- step: a batch of the training loader on drawn data, the loss, and the parameters without gradients;
- predict: weights saved, loaded and shown two drawn images;
- onnx: the largest difference of the exported file, in px and in scores;
- import: random weights of the peer, imported, and the largest difference of raw outputs (`parity_import.py`).

    PATH=.venv-peer/bin:$PATH python benchmarks/families.py [--only NAME]

The peers (AGPL, GPL) are only run. A cell that fails is shown, and the exit status is 1. A smoke run counts every
preset, fills the other cells for one preset of each task, and imports a network of ours where there is no peer.
"""

import json
import logging
import re
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from boxwright import api
from boxwright.api.export import export, import_checkpoint, verify
from boxwright.config import to_yaml
from boxwright.drawn.synthetic import draw_dataset
from boxwright.engine.assemble import Parts, assemble
from boxwright.engine.distributed import Ranks
from boxwright.engine.logs import Listener
from boxwright.engine.recipe import Recipe
from boxwright.errors import BoxwrightError
from boxwright.export.export import ExportSettings
from boxwright.export.verify import drawn_images
from boxwright.models.weights import load_weights, save_weights
from boxwright.presets import preset
from boxwright.results import Classification, Detections
from boxwright.vocabulary import TASKS, TaskName
from harness import Bench, absent, arguments, start
from parity_import import CASES, LIMIT, Case, difference, differences, shaken

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "architectures.json"
CLASSES = {"detect": 80, "segment": 80, "pose": 80, "obb": 80, "classify": 1000}  # of the golden rows
GOLDEN_NAMES = {
    "yolov5s-r5": "yolov5s-r5.0",
    "rtdetr-r18": "rtdetr-r18vd",
    "yolov5-mobilenetv3": "project-mobilenetv3small-yolov5",
    "yolov5-shufflenetv2": "project-shufflenetv2-1.0x-yolov5",
    "yolov5-mobilenetv3-published": "yolov5-mobilenetv3small",
    "yolov5-mobilenetv3-published-stem": "yolov5-mobilenetv3small-stem",
    "yolov5-shufflenetv2-published": "yolov5-shufflenetv2",
    "yolov5-shufflenetv2-published-stem": "yolov5-shufflenetv2-stem",
    "yolov5-shufflenetv2-published-focus": "yolov5-shufflenetv2-focus",
}
NAMES = (
    *("yolov5n", "yolov5n-seg", "yolov5n6", "yolov5n6-seg", "yolov5s-r5", "yolov5nu"),
    *(name for name in GOLDEN_NAMES if name.startswith("yolov5-")),
    *("yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls"),
    "yolov10n",
    *("yolo11n", "yolo11n-seg", "yolo11n-pose", "yolo11n-obb", "yolo11n-cls"),
    "yolo26n",
    *("rtdetr-r18", "rtdetr-l"),
)
# Families without an installable peer whose outputs could be compared.
NO_PEER = {
    "rtdetr-r18": "no package has its code",
    "yolov5n6-seg": "nobody published it",
    **dict.fromkeys((name for name in NAMES if "-published" in name), "no package has its code"),
}
# Spring 2021's layer table, which the peer's release only ships as blocks (spec/architectures 3).
R5_TABLE = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.50
anchors:
  - [10,13, 16,30, 33,23]
  - [30,61, 62,45, 59,119]
  - [116,90, 156,198, 373,326]
backbone:
  - [-1, 1, Focus, [64, 3]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C3, [128]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [-1, 9, C3, [256]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 9, C3, [512]]
  - [-1, 1, Conv, [1024, 3, 2]]
  - [-1, 1, SPP, [1024, [5, 9, 13]]]
  - [-1, 3, C3, [1024, False]]
head:
  - [-1, 1, Conv, [512, 1, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 6], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]
  - [-1, 1, Conv, [256, 1, 1]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 3, C3, [256, False]]
  - [-1, 1, Conv, [256, 3, 2]]
  - [[-1, 14], 1, Concat, [1]]
  - [-1, 3, C3, [512, False]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [[-1, 10], 1, Concat, [1]]
  - [-1, 3, C3, [1024, False]]
  - [[17, 20, 23], 1, Detect, [nc, anchors]]
"""


@dataclass(frozen=True)
class Size:
    """How much is asked of a preset."""

    side: int = 192  # px of every image here; 64, the coarsest stride, divides it
    steps: int = 40  # at most, until each parameter had a gradient other than 0
    images: tuple[int, int] = (16, 4)  # to train, to validate


FULL = Size()
SMOKE = Size(side=64, steps=1, images=(4, 2))
SMOKE_WHOLE = {  # presets whose cells a smoke run fills, and those cells
    "yolov5n": ("step", "predict", "import"),
    "yolov8n-seg": ("step", "predict"),
    "yolov8n-pose": ("step", "predict", "onnx"),
    "yolov8n-obb": ("step", "predict"),
    "yolov8n-cls": ("step", "predict"),
    "yolov5-mobilenetv3": ("import",),
}
# Boxes of one level of one-to-one branches: every object has one candidate, and in a fresh network often none is of
# this level. It counts as known only where the same level's one-to-many branch had gradients.
ONE_TO_ONE = re.compile(r"head\.(box_branches\.\d+\..+)")


class Cell(NamedTuple):
    """What is printed, and what the JSON line keeps."""

    text: str
    facts: dict[str, Any]
    ok: bool = True


def counts(name: str, task: TaskName) -> Cell:
    """Parameters and state keys at the golden file's number of classes."""
    stem = name.removesuffix(TASKS[task].suffix)
    row = f"{GOLDEN_NAMES.get(stem, stem)}/{task}"
    golden = json.loads(GOLDEN.read_text())["models"].get(row)
    classes = 1 if row == "yolov8n/pose" else CLASSES[task]
    with torch.device("meta"):
        model = preset(name, num_classes=classes).model.build()
    params, keys = sum(p.numel() for p in model.parameters()), len(model.state_dict())
    if golden is None:
        return Cell(f"{params} ({keys}), no row", {"params": params, "keys": keys, "row": None})
    wanted = golden.get("state_dict_keys", golden.get("state_dict_keys_excluding_anchor_grid"))
    ok = params == golden["params"] and wanted in (keys, None)
    text = f"{params} ({keys})" if wanted is not None else f"{params}"
    return Cell(
        text if ok else f"{text}, expected {golden['params']} ({wanted})",
        {"params": params, "keys": keys, "row": row, "classes": classes},
        ok,
    )


@cache
def scenes(folder: Path, task: TaskName, size: Size) -> Path:
    """The drawn dataset of a task."""
    train, val = size.images
    return draw_dataset(folder / task, task=task, train=train, val=val, imgsz=size.side, seed=5)


def assembled(name: str, data: Path, folder: Path, size: Size) -> Parts:
    """Model, loader and stepper of a run, as `boxwright train` makes them."""
    settings = ["train.precision=fp32", "train.nominal_batch=4", "train.autoanchor=false"]
    recipe = api.recipe(name, data=data, settings=settings, imgsz=size.side, batch=4, workers=0, device="cpu")
    torch.manual_seed(0)
    return assemble(recipe, ranks=Ranks(), device=torch.device("cpu"), folder=folder, listener=Listener())


def step(parts: Parts, size: Size) -> Cell:
    """A training step; gradients are looked at as they arrive.

    Every trainable parameter must get one. Some are 0 in the first step, where no object fell on a level or a layer
    starts at 0: then more steps follow, until each parameter had another one; a smoke run is content with the first.
    """
    seen: dict[str, float] = {}

    def look(name: str, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        seen[name] = max(seen.get(name, 0.0), float(parameter.grad.abs().max()))

    model = parts.model.train()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hooks = [p.register_post_accumulate_grad_hook(partial(look, name)) for name, p in trainable.items()]
    batches = cycle(parts.train)
    loss, first, steps = 0.0, set(trainable), 0
    without: list[str] = []
    still = set(trainable)
    while still and steps < size.steps:
        found = float(parts.stepper.run(next(batches), steps, 1, 0.0).total.detach())
        steps += 1
        still = {name for name in trainable if not 0 < seen.get(name, 0.0) < torch.inf}
        if steps == 1:
            loss, first, without = found, still, [name for name in trainable if name not in seen]
    for hook in hooks:
        hook.remove()
    known = {name for name in still if _chosen_by_others(name, seen)}
    text = f"{loss:.2f}; {len(trainable) - len(without)} of {len(trainable)}"
    if first:
        text += f", 0 in step 1: {len(first)}, after {steps}: {len(still)}"
    if known:
        text += " (one-to-one boxes of a level no object chose)"
    still -= known
    ok = bool(loss < torch.inf) and not (without or (still and size.steps > 1))
    text += "" if ok else f": {', '.join((without or sorted(still))[:3])}"
    facts = {
        "loss": loss,
        "trainable": len(trainable),
        "frozen": sum(not p.requires_grad for p in model.parameters()),
        "without": without,
        "zero_at_first": sorted(first),
        "steps_until_none_is_zero": steps,
        "zero_at_last": sorted(still),
        "zero_at_last_as_known": sorted(known),
    }
    return Cell(text, facts, ok)


def _chosen_by_others(name: str, seen: Mapping[str, float]) -> bool:
    """Whether a gradient may be 0: see `ONE_TO_ONE`."""
    found = ONE_TO_ONE.fullmatch(name)
    return found is not None and seen.get(name) == 0 and seen.get(f"head.one2many.{found[1]}", 0.0) > 0


@torch.no_grad()
def settle(model: nn.Module, size: Size) -> None:
    """Gives batch norms factors other than 1, and the statistics of drawn images: numbers of a trained network's size.

    Otherwise values grow from layer to layer, and float32 is off by pixels in any runtime.
    """
    random = torch.Generator().manual_seed(0)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for part in norms:
        part.weight.uniform_(0.7, 1.3, generator=random)
        part.bias.normal_(0, 0.1, generator=random)
        part.momentum = 1.0
    model.train()(drawn_images(size.side))
    for part in norms:  # a channel that hardly varies in a fresh network would make rounding large
        part.running_var.clamp_(min=float(part.running_var.mean()))
    model.eval()


def saved(parts: Parts, recipe: Recipe, folder: Path, size: Size) -> api.Model:
    """The network as weights on disk that were loaded again."""
    settle(parts.model, size)
    names = parts.header.names
    facts = {"recipe": to_yaml(recipe), "names": json.dumps(names), "class_ids": json.dumps(list(range(len(names))))}
    save_weights(folder / "ours.safetensors", parts.model.state_dict(), facts)
    return api.load(folder / "ours.safetensors")


def predict(model: api.Model, data: Path) -> Cell:
    """Two drawn images; the thresholds keep nearly everything."""
    images = sorted(data.parent.rglob("val/**/*.jpg"))[:2]
    found = model.predictor(conf=1e-6, max_det=50, device="cpu", precision="fp32")([str(path) for path in images])
    kind = Classification if model.recipe.data.task == "classify" else Detections
    ok = len(found) == 2 and all(isinstance(one, kind) for one in found)
    if kind is Classification:
        return Cell("2 classified", {"images": len(found)}, ok)
    sizes = [len(one) for one in found]
    return Cell(" + ".join(map(str, sizes)), {"objects": sizes}, ok and all(sizes))


def exported(model: api.Model, folder: Path, size: Size) -> Cell:
    """The ONNX file, verified on drawn images."""
    file = export(model, folder / "ours.onnx", ExportSettings(imgsz=size.side))
    found = {one.output: one for one in verify(model, file)}
    pixels = [f"{found[name].largest:.0e} px" for name in ("boxes", "keypoints") if name in found]
    other = [f"{name} {one.largest:.0e}" for name, one in found.items() if name not in ("boxes", "keypoints", "scores")]
    text = ", ".join([*pixels, f"{found['scores'].largest:.0e}", *other])
    return Cell(text, {name: one.largest for name, one in found.items()}, all(one.ok for one in found.values()))


def compared(name: str, folder: Path, size: Size, *, own: bool) -> Cell:
    """The peer's random weights as ours, on the same images; with `own`, ours in its place where it is missing."""
    if name in NO_PEER:
        return Cell(f"- {NO_PEER[name]}", {"peer": None})
    if name in BACKBONES:
        package = "torchvision"
        if why := absent(package):
            return Cell(f"- left out: {why}", {"peer": package}, ok=own)
        found = backbone(name, folder, size.side)
    else:
        case = peer_case(name, folder)
        package = case.package
        why = absent(package)
        if why and not own:
            return Cell(why, {"peer": package}, ok=False)
        case = case if size == FULL else case._replace(side=size.side)
        report, found = differences(case, folder, own=why is not None)
        if report.recipe.name != name or report.left:
            return Cell(f"taken for {report.recipe.name}, {len(report.left)} keys left", {"peer": package}, ok=False)
    largest = max(found, key=lambda output: found[output])
    return Cell(f"{found[largest]:.0e} ({largest})", {"peer": package, **found}, found[largest] <= LIMIT)


def peer_case(name: str, folder: Path) -> Case:
    """How the peer builds the same network."""
    known = {case.preset: case for case in CASES}
    if name in known:
        return known[name]
    table = folder / "yolov5s-r5.yaml"
    table.write_text(R5_TABLE, encoding="utf-8")
    return known["yolov5n"]._replace(preset=name, config=str(table))


BACKBONES = {"yolov5-mobilenetv3": "mobilenet_v3_small", "yolov5-shufflenetv2": "shufflenet_v2_x1_0"}


def backbone(name: str, folder: Path, side: int) -> dict[str, float]:
    """The backbone of torchvision as ours: each of our maps against the closest output of a stage of its shape."""
    from torchvision import models

    theirs = shaken(getattr(models, BACKBONES[name])(weights=None).eval(), side).double()
    torch.save({key: value.float() for key, value in theirs.state_dict().items()}, folder / "theirs.pth")
    theirs.float().load_state_dict(torch.load(folder / "theirs.pth", weights_only=True))
    written = import_checkpoint(folder / "theirs.pth", folder / "part.safetensors", preset=name).path
    network = preset(name).model.build()
    load_weights(network, written, strict=False)
    outputs: list[torch.Tensor] = []
    stages = [part for part in theirs.modules() if isinstance(part, nn.Sequential)]
    for part in [layer for stage in stages for layer in stage]:
        part.register_forward_hook(lambda _part, _inputs, output: outputs.append(output))
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        maps = network.double().eval().backbone(image)  # type: ignore[operator]
        theirs.double()(image)
    return {
        f"map {index}": min((difference(out, own) for out in outputs if out.shape == own.shape), default=float("inf"))
        for index, own in enumerate(maps)
    }


def guarded(what: Callable[..., Cell], *arguments: Any) -> Cell:
    """The cell, or what went wrong: nobody needs the other rows less."""
    try:
        return what(*arguments)
    except (Exception, SystemExit) as error:
        reason = str(error).splitlines()[0][:160] if isinstance(error, BoxwrightError) else ""
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "boxwright" in f.filename]
        place = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        return Cell(f"FAILED {type(error).__name__}{place} {reason}".strip(), {"error": type(error).__name__}, ok=False)


def cells_of(name: str, folder: Path, data_folder: Path, *, smoke: bool) -> dict[str, Cell]:
    """Every cell of a preset."""
    task: TaskName = preset(name).data.task
    size = SMOKE if smoke else FULL
    parts: list[Parts] = []
    models: list[api.Model] = []

    def build() -> Cell:
        parts.append(assembled(name, scenes(data_folder, task, size), folder, size))
        return step(parts[0], size)

    def store() -> Cell:
        models.append(saved(parts[0], parts[0].recipe, folder, size))
        return predict(models[0], scenes(data_folder, task, size))

    fill: dict[str, Callable[[], Cell]] = {
        "step": build,
        "predict": store,
        "onnx": lambda: exported(models[0], folder, size),
        "import": lambda: compared(name, folder, size, own=smoke),
    }
    chosen = SMOKE_WHOLE.get(name, ()) if smoke else tuple(fill)
    cells = {"counts": guarded(counts, name, task)}
    return cells | {what: guarded(cell) if what in chosen else Cell("-", {}) for what, cell in fill.items()}


def rows() -> list[str]:
    """Names of the table's rows."""
    return list(NAMES)


def main() -> None:
    """Prints the table, a row as soon as it is done."""
    parser = arguments(__doc__, timed=False)
    parser.add_argument("--only", help="presets whose name holds this")
    bench = start("families", parser, rows())
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    if bench.smoke:
        print(f"a smoke run fills every cell of the counts, the others of {', '.join(SMOKE_WHOLE)} alone")
        for package in ("ultralytics", "yolov5", "torchvision"):
            if why := absent(package):
                bench.leave_out(f"peer {package}", why)
    print("| preset | task | parameters (state keys) | step: loss; gradients | predicts | ONNX | peer's weights | s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as drawn:
        failed = sum(
            show(name, Path(drawn), bench) for name in NAMES if not bench.options.only or bench.options.only in name
        )
    print(f"{failed} cells failed" if failed else "every cell holds")
    raise SystemExit(failed > 0)


def show(name: str, data_folder: Path, bench: Bench) -> int:
    """Prints and keeps the row of a preset; how many of its cells fail."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cells = cells_of(name, Path(folder), data_folder, smoke=bench.smoke)
    seconds = time.monotonic() - began
    task = preset(name).data.task
    texts = [cell.text if cell.ok else f"**{cell.text}**" for cell in cells.values()]
    print(f"| {name} | {task} | {' | '.join(texts)} | {seconds:.0f} |", flush=True)
    wrong = [what for what, cell in cells.items() if not cell.ok]
    facts = {what: cell.facts for what, cell in cells.items()}
    bench.keep({"preset": name, "task": task, "failed": wrong, "seconds": round(seconds, 1), **facts})
    return len(wrong)


if __name__ == "__main__":
    main()
