# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright inspect`: who pays which part of the loss, and why. `boxwright explain`: a loss, step by step."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boxwright.cli.options import Data, Device, Settings, SplitName, Weights

if TYPE_CHECKING:
    from boxwright.api.inspect import Inspected
    from boxwright.inspector.explain import Stage
    from boxwright.inspector.probe import Inspection


class WalkThrough(StrEnum):
    """Losses that have a walk-through."""

    YOLOV5 = "yolov5"
    YOLOV8 = "yolov8"
    RTDETR = "rtdetr"


SMALLEST = {WalkThrough.YOLOV5: "yolov5n", WalkThrough.YOLOV8: "yolov8n", WalkThrough.RTDETR: "rtdetr-r18"}
ROWS = 12  # rows of a table that `explain` prints
KEYS = ("part", "class", "image", "object", "candidate", "term")  # columns that say which row it is
WIDE = 16  # columns beyond which a table is turned on its side


def inspect(
    weights: Weights = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="A preset with fresh weights instead of weights.")
    ] = None,
    data: Data = None,
    split: Annotated[SplitName, typer.Option("--split", help="Split to look at.")] = SplitName.VAL,
    limit: Annotated[
        int, typer.Option("--limit", min=0, metavar="N", help="Images, evenly spread over the split; 0 takes all.")
    ] = 32,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="NAME", help="Only images whose path ends so; may be given several times."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", metavar="PATH", help="Other weights to put beside these.")
    ] = None,
    against_set: Annotated[
        list[str] | None,
        typer.Option("--against-set", metavar="A.B.C=VALUE", help="Settings of the other side only."),
    ] = None,
    tensors: Annotated[
        Path | None,
        typer.Option("--tensors", metavar="FILE", help="Outputs and labels of another code base (.npz, .safetensors)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where files go; a new folder under runs/.")
    ] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="Also write Parquet tables.")] = False,
    device: Device = None,
    settings: Settings = None,
) -> None:
    """Show what every object adds to the loss, and which candidates learn from it.

    Prints the findings and writes report.html, tables as JSON and overlays as PNG.
    """
    from boxwright.api import RUNS, newest_weights
    from boxwright.cli.console import say, show
    from boxwright.cli.progress import make_listener
    from boxwright.engine.runfolder import free_folder
    from boxwright.reports.text import summary

    if tensors is not None:
        seen = _of_tensors(tensors)
    else:
        from boxwright.api.inspect import inspect_data

        seen = inspect_data(
            model if model is not None else weights or newest_weights(),
            data,
            split=split.value,
            limit=limit or None,
            images=image or (),
            settings=settings,
            against=against,
            against_settings=against_set,
            device=device or "auto",
            listener=make_listener(),
        )
    show(summary(seen.inspection, against=seen.against, sides=seen.sides))
    folder = out or free_folder(RUNS / "inspect")
    write(folder, seen, parquet=parquet)
    say(f"written to {folder}: report.html, tables, overlays")


def write(folder: Path, seen: "Inspected", *, parquet: bool = False) -> None:
    """The report, the tables and the overlays of an inspection."""
    from boxwright.inspector.joined import write_tables
    from boxwright.reports.overlay import save_overlays
    from boxwright.reports.page import write_report

    folder.mkdir(parents=True, exist_ok=True)
    images: Any = seen.images or None
    write_report(
        folder / "report.html", seen.inspection, images, title=seen.title, against=seen.against, sides=seen.sides
    )
    write_tables(folder / "tables", seen.inspection, ("json", "parquet") if parquet else ("json",))
    if images is not None and len(seen.inspection.objects):
        save_overlays(folder / "overlays", seen.inspection, images, most=20)


def _of_tensors(path: Path) -> "Inspected":
    from boxwright.api.inspect import Inspected
    from boxwright.cli.console import say
    from boxwright.inspector.probe import inspect as take_apart
    from boxwright.inspector.tensors import read_tensors

    held = read_tensors(path)
    about = held.about
    found: Inspection = take_apart(
        held.outputs, held.targets, held.criterion, progress=about.progress, names=about.names, paths=about.paths
    )
    if about.loss is not None:
        say(f"loss here {found.total:.6g}, in the file {about.loss:.6g}, difference {found.total - about.loss:.3g}")
    return Inspected(found, (), title=f"Inspection of {path.name}")


def explain(
    family: Annotated[WalkThrough, typer.Argument(metavar="FAMILY", help="yolov5, yolov8 or rtdetr.")],
    image: Annotated[Path, typer.Option("--image", metavar="FILE", help="An image.")],
    labels: Annotated[Path, typer.Option("--labels", metavar="FILE", help="Its labels, YOLO text rows.")],
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="PATH", help="Weights of that family; else fresh ones.")
    ] = None,
    imgsz: Annotated[int, typer.Option("--imgsz", min=64, metavar="PX", help="Side of the network input.")] = 320,
    everything: Annotated[bool, typer.Option("--all", help=f"Every row, not only the first {ROWS}.")] = False,
) -> None:
    """Print every tensor of target building and loss for one image, in the order of the computation."""
    from boxwright.api.inspect import explain_image
    from boxwright.cli.console import say

    for number, stage in enumerate(explain_image(SMALLEST[family], image, labels, weights=weights, imgsz=imgsz), 1):
        say(f"\n{number}. {stage.title}", style="bold")
        say(stage.sentence)
        _print(stage, None if everything else ROWS)


def _print(stage: "Stage", most: int | None) -> None:
    from boxwright.cli.console import out, say, show
    from boxwright.cli.tables import table

    whole = stage.table if len(stage.table.columns) <= WIDE else stage.table.turned()
    held = whole if most is None else whole.head(most)
    if not len(held):
        say("(no rows)")
        return
    numbers = [name for name, column in held.columns.items() if column.dtype.kind in "fiub"]
    text = [name for name in held.columns if name not in numbers]
    words = {name: [_number(value) for value in held[name].tolist()] for name in (*text, *numbers)}
    for names in _blocks(words, out().width):
        left, right = ([name for name in part if name in names] for part in (text, numbers))
        grid = table("", left, right)
        for row in range(len(held)):
            grid.add_row(*[words[name][row] for name in (*left, *right)])
        show(grid)
    more = len(whole) - len(held)
    if more:
        say(f"... {more} more rows; --all shows them")


def _blocks(words: Mapping[str, Sequence[str]], width: int) -> list[list[str]]:
    """Columns that fit beside each other; those that say which row it is stand in every block."""
    room = {name: max(len(name), *map(len, column)) + 3 for name, column in words.items()}  # 3: between columns
    keys = [name for name in words if name in KEYS] or list(words)[:1]
    blocks, free = [list(keys)], width - sum(room[name] for name in keys)
    left = free
    for name in words:
        if name in keys:
            continue
        if room[name] > left and len(blocks[-1]) > len(keys):
            blocks.append(list(keys))
            left = free
        blocks[-1].append(name)
        left -= room[name]
    return blocks


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
