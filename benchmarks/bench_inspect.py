# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What does inspecting a batch cost, and what does the inspector cost a training that does not use it?

One: `inspect` (tables, fates, gradients; no rendering) beside the loss step (criterion forward, backward) on the same
raw outputs and labels, batch 16, 640 px, in one process. The goal is (1 + items of the loss) loss steps. Two: a
small training with `--inspect-every` far in the future beside one without it: what the hook costs when it is off.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import bench_criteria
from bench_criteria import ANCHORS, FAMILIES, SIDE, STRIDES, Question, Scene, Step
from boxwright import api
from boxwright.api.inspect import every
from boxwright.drawn.synthetic import draw_dataset
from boxwright.inspector.probe import inspect
from boxwright.losses import Criterion, yolov5_grid
from boxwright.structures import Outputs, Targets
from harness import arguments, machine, medians, record, warm_heap

ASKED = {"detect": (7, 50), "yolov5": (7, 50), "segment": (7, 50), "rtdetr": (7, 50)}
prepared = bench_criteria.prepared


def seen(family: str, question: Question) -> tuple[Step, Callable[[], Any]]:
    """The loss step of a question, and the inspection of what it works on."""
    held: list[Callable[[], Any]] = []

    def catch(scene: Scene, criterion: Criterion, outputs: Callable[[], Outputs], targets: Targets) -> Step:
        grid = outputs().final.grid
        if grid is not None and grid.prior_wh is not None:
            grid = yolov5_grid((SIDE, SIDE), ANCHORS, STRIDES, anchor_unit="pixel")
        laid_out = criterion.prepare(targets, grid)
        held.append(lambda: inspect(outputs(), laid_out, criterion))
        return prepared(scene, criterion, outputs, laid_out)

    for name in ("peer", "peer_queries", "peer_yolov5"):
        setattr(bench_criteria, name, lambda *_, **__: None)
    bench_criteria.prepared = catch
    _, step, _ = FAMILIES[family](question)
    return step, held[0]


def of_a_batch(family: str, count: int, repeats: int) -> dict[str, Any]:
    """Times and their ratio."""
    step, look = seen(family, Question(f"{family}, {count}", (count,) * 16))
    terms = look().terms["term"].tolist()
    names = {name.rpartition("/")[2] for name in terms}
    seconds = medians({"step": step, "inspect": look}, repeats, warmup=2, burst=3)
    return {
        "question": f"{family}, {count}",
        "step_ms": round(1e3 * seconds["step"], 1),
        "inspect_ms": round(1e3 * seconds["inspect"], 1),
        "ratio": round(seconds["inspect"] / seconds["step"], 2),
        "terms": len(names),
        "items": len(terms),
        "goal": 1 + len(terms),
    }


def when_off(repeats: int) -> dict[str, Any]:
    """Seconds of a short training without a look and with one that is never due."""
    with tempfile.TemporaryDirectory() as folder:
        data = draw_dataset(Path(folder) / "set", train=64, val=4, imgsz=128, seed=0)
        made: dict[str, list[float]] = {"off": [], "hook": []}
        for turn in range(repeats + 1):
            for name in made:
                look = every(1000, 4, lambda *_: None) if name == "hook" else None
                began = time.perf_counter()
                api.train(
                    "yolov8n", data=data, out=Path(folder) / f"{name}{turn}", epochs=2, imgsz=128, batch=8, workers=0,
                    precision="fp32", plots=False, look_on=look,
                )  # fmt: skip
                if turn:
                    made[name].append(time.perf_counter() - began)
    off, hook = (statistics.median(made[name]) for name in made)
    # Both callbacks of a hook that is not due, alone: what the difference must be, without the noise of a training.
    look, view = every(1000, 4, lambda *_: None), type("View", (), {"epoch": 1})()
    began = time.perf_counter()
    for _ in range(100_000):
        look(view)
    call = (time.perf_counter() - began) / 100_000
    step = off / 2 / 8
    return {
        "question": "training, not due",
        "off_s": round(off, 3),
        "hook_s": round(hook, 3),
        "ratio": round(hook / off, 4),
        "call_us": round(1e6 * call, 3),
        "share_of_a_step": call / step,
    }


def main() -> None:
    """Measure, print and keep."""
    parser = arguments(__doc__)
    parser.add_argument("--families", nargs="*", default=list(ASKED), choices=list(ASKED))
    parser.add_argument("--no-training", action="store_true", help="leave out the second question")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    heap = "warm" if warm_heap() else "cold"
    print(machine(), f"heap {heap}")
    rows = ((family, count) for family in options.families for count in ASKED[family])
    for family, count in rows:
        row = of_a_batch(family, count, options.repeats)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if not options.no_record:
            record("inspect", row | {"heap": heap})
    if not options.no_training:
        row = when_off(max(3, options.repeats // 3))
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if not options.no_record:
            record("inspect", row | {"heap": heap})


if __name__ == "__main__":
    main()
