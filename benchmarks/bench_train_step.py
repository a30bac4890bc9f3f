# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How fast is a whole CPU training step of yolov8n beside the peer's default, and which of our settings matter?

A step is: uint8 images to the network, forward, loss, backward, clipping, optimizer, moving average; batch 16, 320 px,
7 objects per image. Ours is the trainer's own `Stepper` in four settings (bf16 or fp32, channels-last or contiguous),
each with the host-side preparation of the targets. The peer is `ultralytics` (the extra `parity`), run as a black box
in its CPU default (fp32, contiguous) with torch's AdamW and its own moving average; without it only our side is
measured. `model` times our forward and backward alone.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from boxwright.config import override
from boxwright.engine.distributed import Ranks
from boxwright.engine.ema import Ema
from boxwright.engine.optim import Schedule, build_optimizer, choose_optimizer, scaled_decay
from boxwright.engine.precision import Resolved, autocast, gradient_scaler
from boxwright.engine.step import Stepper, StepSettings, to_network
from boxwright.loading.collate import Batch
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.presets import preset
from boxwright.structures import Targets
from harness import absent, arguments, start

SETTINGS: dict[str, tuple[Resolved, bool]] = {
    "ours": ("bf16", True),
    "bf16": ("bf16", False),
    "fp32_cl": ("fp32", True),
    "fp32": ("fp32", False),
}  # precision, channels-last
SMOKE = {"side": 64, "batch": 2}
CPU = torch.device("cpu")


def scene(batch: int, side: int, classes: int, objects: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (uint8), labels (B, M) and normalised centre boxes (B, M, 4)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)
    size = torch.rand(batch, objects, 2, generator=generator) * 0.3 + 0.05
    centre = size / 2 + torch.rand(batch, objects, 2, generator=generator) * (1 - size)
    return images, torch.randint(classes, (batch, objects), generator=generator), torch.cat((centre, size), dim=-1)


def our_step(
    options: argparse.Namespace, setting: tuple[Resolved, bool], data: tuple[Tensor, ...]
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The trainer's step, and forward and backward of the model alone."""
    precision, channels_last = setting
    images, labels, boxes = data
    batch = images.shape[0]
    recipe = override(
        preset("yolov8n", num_classes=options.classes),
        {"train.batch": batch, "train.nominal_batch": batch, "train.optimizer": "adamw", "train.lr0": 1e-4},
    )
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = recipe.model.build().to(memory_format=layout)  # type: ignore[call-overload]
    choice = choose_optimizer(recipe.train, images=batch, num_classes=options.classes)
    settings = StepSettings(CPU, precision, channels_last, 10.0, False, 0, Ranks(), Path(tempfile.gettempdir()))
    stepper = Stepper(
        model.train(),
        recipe.criterion,
        build_optimizer(model, choice, scaled_decay(5e-4, batch, batch)),
        Schedule(100, 1000, batch, batch, choice.lr0, 0.01, "linear", 0, 0.0, 0.8, choice.momentum),
        Ema(model),
        gradient_scaler(precision),
        settings,
    )
    targets = Targets(labels, cxcywh_to_xyxy(boxes * options.side), torch.ones_like(labels, dtype=torch.bool))
    loaded = Batch(images, targets, tuple(range(batch)), ("drawn",) * batch)
    iteration = iter(range(10**9))

    def step() -> float:
        return stepper.run(loaded, next(iteration), 1, 0.0).total.item()

    def network() -> None:
        with autocast(CPU, precision):
            final = model(to_network(images, CPU, channels_last=channels_last)).final
        gradients = [torch.full_like(final.logits, 1e-4), torch.full_like(final.box_raw, 1e-4)]
        torch.autograd.backward([final.logits, final.box_raw], gradients)
        model.zero_grad(set_to_none=True)

    return step, network


def peer_step(options: argparse.Namespace, data: tuple[Tensor, ...]) -> Callable[[], Any] | None:
    """The peer's step on the same data, or None where it is not installed."""
    try:
        from ultralytics.nn.tasks import DetectionModel
        from ultralytics.utils.torch_utils import ModelEMA
    except ImportError:
        return None
    images, labels, boxes = data
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=options.classes, verbose=False).train()
    model.args = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=5e-4)
    ema = ModelEMA(model)
    batch, objects = labels.shape
    rows = {
        "batch_idx": torch.arange(batch).repeat_interleave(objects).float(),
        "cls": labels.reshape(-1, 1).float(),
        "bboxes": boxes.reshape(-1, 4),
    }

    def step() -> float:
        loss, _ = model({**rows, "img": images.float() / 255})
        total = loss.sum()
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
        return float(total)

    return step


def rows() -> list[str]:
    """Names of the table's rows."""
    return [*SETTINGS, "model", "peer"]


def main() -> None:
    """Times, prints and records."""
    parser = arguments(__doc__)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--side", type=int, default=320, help="px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--objects", type=int, default=7, help="per image")
    parser.add_argument("--only", default=",".join(SETTINGS), help="which of our settings to time")
    bench = start("train_step", parser, rows())
    options = bench.options
    if bench.smoke:
        vars(options).update(SMOKE)
    data = scene(options.batch, options.side, options.classes, options.objects)
    variants: dict[str, Callable[[], Any]] = {}
    for name in options.only.split(","):
        variants[name], model = our_step(options, SETTINGS[name], data)
        if name == "ours":
            variants["model"] = model
    if peer := peer_step(options, data):
        variants["peer"] = peer
    seconds = bench.medians(variants, warmup=3)
    row: dict[str, Any] = {name: getattr(options, name) for name in ("classes", "side", "batch", "objects")}
    row |= {f"{name}_ms": round(1e3 * value, 1) for name, value in seconds.items()}
    steps = {name: value for name, value in seconds.items() if name != "model"}
    row |= {f"{name}_images_per_s": round(options.batch / value, 1) for name, value in steps.items()}
    if peer:
        row |= {f"speedup_{name}": round(steps["peer"] / value, 2) for name, value in steps.items() if name != "peer"}
    print("  ".join(f"{name} {row[name]}" for name in ("classes", "side", "batch", "objects")))
    for name in seconds:
        facts = {"ms": row[f"{name}_ms"], "images/s": row.get(f"{name}_images_per_s", "-")}
        bench.show(name, facts | {"speedup": row.get(f"speedup_{name}", "-")})
    if why := absent("ultralytics"):
        bench.leave_out("peer", why)
    bench.keep(row)


if __name__ == "__main__":
    main()
