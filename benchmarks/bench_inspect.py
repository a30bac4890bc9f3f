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
from pathlib import Path
from typing import Any

from bench_criteria import BATCH, FAMILIES, SIDE, SMOKE_BATCH, SMOKE_SIDE, Question
from boxwright import api
from boxwright.api.inspect import every
from boxwright.drawn.synthetic import draw_dataset
from boxwright.inspector.probe import inspect
from harness import Bench, arguments, start

COUNTS = {"detect": (7, 50), "yolov5": (7, 50), "segment": (7, 50), "rtdetr": (7, 50)}  # objects per image
TRAINING = "training, not due"
BATCH_TRAINED = 8  # images


def rows() -> list[str]:
    """Names of the table's rows."""
    return [f"{family}, {count}" for family, counts in COUNTS.items() for count in counts] + [TRAINING]


def of_a_batch(family: str, count: int, bench: Bench) -> dict[str, Any]:
    """Times of the loss step and of the inspection of what it works on, and their ratio."""
    batch, side = (SMOKE_BATCH, SMOKE_SIDE) if bench.smoke else (BATCH, SIDE)
    work = FAMILIES[family](Question(f"{family}, {count}", (count,) * batch, side=side))

    def look() -> Any:
        return inspect(work.outputs(), work.targets, work.criterion)

    items = look().terms["term"].tolist()
    seconds = bench.medians({"step": work.step(), "inspect": look}, warmup=2, burst=3)
    return {
        "step_ms": round(1e3 * seconds["step"], 1),
        "inspect_ms": round(1e3 * seconds["inspect"], 1),
        "ratio": round(seconds["inspect"] / seconds["step"], 2),
        "terms": len({item.rpartition("/")[2] for item in items}),
        "items": len(items),
        "goal": 1 + len(items),
    }


def when_off(bench: Bench) -> dict[str, Any]:
    """Seconds of a short training without a look and with one that is never due."""
    turns, images, side, calls = max(3, bench.options.repeats // 3), 64, 128, 100_000
    if bench.smoke:
        turns, images, side, calls = 1, 8, 64, 10
    with tempfile.TemporaryDirectory() as folder:
        data = draw_dataset(Path(folder) / "set", train=images, val=4, imgsz=side, seed=0)
        times: dict[str, list[float]] = {"off": [], "hook": []}
        for turn in range(turns if bench.smoke else turns + 1):
            for name, seconds in times.items():
                look = every(1000, 4, lambda *_: None) if name == "hook" else None
                began = time.perf_counter()
                api.train(
                    "yolov8n", data=data, out=Path(folder) / f"{name}{turn}", epochs=2, imgsz=side, batch=BATCH_TRAINED,
                    workers=0, precision="fp32", plots=False, look_on=look,
                )  # fmt: skip
                if turn or bench.smoke:  # the first turn of a full run warms up
                    seconds.append(time.perf_counter() - began)
    off, hook = (statistics.median(seconds) for seconds in times.values())
    # Both callbacks of a hook that is not due, alone: what the difference must be, without the noise of a training.
    look, view = every(1000, 4, lambda *_: None), type("View", (), {"epoch": 1})()
    began = time.perf_counter()
    for _ in range(calls):
        look(view)
    call = (time.perf_counter() - began) / calls
    step = off / 2 / (images // BATCH_TRAINED)
    return {
        "off_s": round(off, 3),
        "hook_s": round(hook, 3),
        "ratio": round(hook / off, 4),
        "call_us": round(1e6 * call, 3),
        "share_of_a_step": call / step,
    }


def main() -> None:
    """Measure, print and keep."""
    parser = arguments(__doc__)
    parser.add_argument("--families", nargs="*", default=list(COUNTS), choices=list(COUNTS))
    parser.add_argument("--no-training", action="store_true", help="leave out the second question")
    bench = start("inspect", parser, rows())
    for family in bench.options.families:
        for count in COUNTS[family]:
            row = of_a_batch(family, count, bench)
            bench.show(f"{family}, {count}", row)
            bench.keep({"question": f"{family}, {count}", **row})
    if not bench.options.no_training:
        row = when_off(bench)
        bench.show(TRAINING, row)
        bench.keep({"question": TRAINING, **row})


if __name__ == "__main__":
    main()
