# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""How fast are threshold and suppression beside the peer's, and is the output identical?

Three questions: one image with 10 000 candidates of one class, the same with 80 classes, and a validation batch of 16
images at a confidence of 0.001 with several labels per box. Both sides get the same raw boxes (centre and size) and
scores; ours also pays the sigmoid. The peer is `ultralytics` (the extra `parity`), run as a black box; its time limit,
which would return empty images, is lifted. It is measured twice: with its own loop, and after torchvision (compiled
code) was imported, which it then uses. Without the peer only our side is measured.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.config import component
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.grid import grid_for_image
from boxwright.structures import Predictions
from boxwright.tasks.base import SelectOptions
from boxwright.tasks.postprocess import Kept, postprocess
from harness import Bench, absent, allocation_peak, arguments, start

ROW = "{:<64} {:>9} {:>9} {:>7} {:>8} {:>8} {:>10} {:>11}"


@component
class CentreSize:
    """Reads raw outputs that are boxes already: centre and size in px."""

    def __call__(
        self,
        raw: Float[Tensor, "*n raw"],
        points: Float[Tensor, "*n 2"],
        strides: Float[Tensor, "*n"],
        extra: Float[Tensor, "*n"] | Float[Tensor, "*n 2"] | None = None,
    ) -> Float[Tensor, "*n 4"]:
        """The boxes as xyxy."""
        return cxcywh_to_xyxy(raw)


@dataclass(frozen=True)
class Question:
    """One workload."""

    name: str
    images: int
    classes: int
    conf: float
    multi_label: bool
    candidates: int  # per image and above the confidence
    side: int  # px
    objects: int = 400  # that the candidates are noisy copies of


QUESTIONS = (
    Question("1 image, 10 000 candidates, 1 class", 1, 1, 0.25, False, 10_000, 896),
    Question("1 image, 10 000 candidates, 80 classes", 1, 80, 0.25, False, 10_000, 896),
    Question("16 images, 640 px, conf 0.001, multi-label", 16, 80, 0.001, True, 400, 640),
)
WAYS = ("own loop", "torchvision")  # of the peer


def smallest(question: Question) -> Question:
    """The same question of two small images at most."""
    return replace(question, images=min(question.images, 2), candidates=50, side=64, objects=10)


def rows() -> list[str]:
    """Names of the table's rows."""
    return [title(question, way) for way in WAYS for question in QUESTIONS]


def title(question: Question, way: str) -> str:
    """What a row is called."""
    return f"{question.name}; peer: {way}"


def scene(question: Question) -> Predictions:
    """Noisy copies of some objects above the confidence, everything else below it.

    Coordinates are multiples of 1/8 px, so that the peer's class offset (7680 px per class) rounds nothing.
    """
    generator = torch.Generator().manual_seed(0)
    side = question.side
    grid = grid_for_image((side, side), (8, 16, 32))
    count, objects = grid.points.shape[0], question.objects
    which = torch.randint(objects, (question.images, count), generator=generator)
    centre = torch.rand(objects, 2, generator=generator)[which] * side
    centre += torch.randn(centre.shape, generator=generator) * 8
    size = (torch.rand(objects, 2, generator=generator) * 120 + 16)[which]
    size *= 1 + 0.1 * torch.randn(size.shape, generator=generator).clamp(-3, 3)
    raw = (torch.cat((centre, size), dim=2) * 8).round() / 8
    logits = torch.full((question.images, count, question.classes), -12.0)
    above = torch.rand(question.images, count, generator=generator).argsort(dim=1)[:, : question.candidates]
    image = torch.arange(question.images)[:, None].expand_as(above)
    # All scores of an image differ: the peer's sort is not stable, so equal scores come out in any order.
    turns = 3 if question.multi_label else 1
    ranks = torch.rand(question.images, turns * question.candidates, generator=generator).argsort(dim=1)
    values = torch.logit(torch.tensor(question.conf)) + 0.05 + 6 * ranks / ranks.shape[1]
    for turn, part in enumerate(values.chunk(turns, dim=1)):
        label = (which[image, above] * 7 + turn * 13) % question.classes
        logits[image, above, label] = part
    return Predictions(logits=logits, box_raw=raw, decoder=CentreSize(), grid=grid)


def peer(question: Question, preds: Predictions) -> Callable[[], Any] | None:
    """The peer's function on the same scores, or None when it is not installed."""
    try:
        from ultralytics.utils.nms import non_max_suppression
    except ImportError:
        return None
    raw = torch.cat((preds.box_raw, preds.logits.sigmoid()), dim=2).transpose(1, 2).contiguous()

    def run() -> Any:
        with torch.no_grad():
            return non_max_suppression(
                raw.clone(), question.conf, 0.7, multi_label=question.multi_label, max_det=300, max_time_img=1e4
            )

    return run


def identical(ours: list[Kept], theirs: Any) -> bool:
    """Whether boxes, scores and labels agree to the bit, in order."""
    return all(
        torch.equal(rows.boxes, other[:, :4])
        and torch.equal(rows.scores, other[:, 4])
        and torch.equal(rows.labels, other[:, 5].long())
        for rows, other in zip(ours, theirs, strict=True)
    )


def measure(question: Question, bench: Bench) -> dict[str, Any]:
    """Milliseconds, ratio, peak memory and agreement of one question."""
    preds = scene(question)

    def ours() -> list[Kept]:
        return postprocess(
            preds, SelectOptions(conf=question.conf, iou=0.7, max_det=300, multi_label=question.multi_label)
        )

    theirs = peer(question, preds)
    variants = {"ours": ours} | ({} if theirs is None else {"peer": theirs})
    seconds = bench.medians(variants, warmup=2, burst=3)
    found = ours()
    row: dict[str, Any] = {
        "question": question.name,
        "candidates": int((preds.logits.sigmoid() > question.conf).sum()),
        "kept": sum(len(rows.scores) for rows in found),
        "ours_ms": seconds["ours"] * 1e3,
        "ours_peak_mb": allocation_peak(ours) / 1e6,
    }
    if theirs is not None:
        row |= {
            "peer_ms": seconds["peer"] * 1e3,
            "ratio": seconds["peer"] / seconds["ours"],
            "peer_peak_mb": allocation_peak(theirs) / 1e6,
            "identical": identical(found, theirs()),
        }
    return row


def unloaded() -> str | None:
    """Imports torchvision, for the peer to find; says why it cannot: not installed, or made for another torch."""
    if why := absent("ultralytics"):
        return why
    if why := absent("torchvision"):
        return why
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        return f"torchvision does not load: {error}"
    return None


def main() -> None:
    """Measures every question, prints a table and keeps one JSON line each."""
    bench = start("nms", arguments(__doc__), rows())
    print(ROW.format("", "ours ms", "peer ms", "ratio", "ours MB", "peer MB", "kept", "identical"))
    for question, way in [(question, way) for way in WAYS for question in QUESTIONS]:
        # The second way cannot be had without the peer, and our side alone was measured in the first.
        if way == "torchvision" and (why := unloaded()):
            bench.leave_out(title(question, way), why)
            continue
        row = measure(smallest(question) if bench.smoke else question, bench) | {"peer_uses": way}
        cells = [row["ours_ms"], row.get("peer_ms"), row.get("ratio"), row["ours_peak_mb"], row.get("peer_peak_mb")]
        texts = ["-" if cell is None else f"{cell:.1f}" for cell in cells]
        print(ROW.format(title(question, way), *texts, row["kept"], str(row.get("identical", "-"))), flush=True)
        bench.keep(row | {"threads": bench.options.threads})


if __name__ == "__main__":
    main()
