# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright check` looks a dataset over, `boxwright data` draws, converts or tiles one. None needs torch."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boxwright.cli.options import DATA_HELP, Settings, TaskChoice
from boxwright.errors import DataError

if TYPE_CHECKING:
    from boxwright.datasets.checks import DatasetCheck
    from boxwright.datasets.policy import DataConfig

MANY = 50  # problems shown before the rest is only counted


def check(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the class counts into this picture.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything found into this file.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help=f"List every problem, not only the first {MANY}.")] = False,
    settings: Settings = None,
) -> None:
    """Check a dataset before training on it.

    Reads every image header and label, changes nothing, and says what would be used, fixed in memory or refused.
    The exit status is 1 when there are errors.
    """
    from boxwright.cli.console import say
    from boxwright.datasets.checks import check_dataset

    with _stages("reading {}") as on_progress:
        found = check_dataset(data, _data_config(settings), on_progress)
    _show(found, limit=len(found.problems) if show_all else MANY)
    if plot is not None:
        _plot(found, plot)
        say(f"class counts: {plot}")
    if report is not None:
        _write(report, json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        say(f"report: {report}")
    if not found.ok:
        raise typer.Exit(1)


@contextlib.contextmanager
def _stages(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Progress that names its stage: each new name ends the stage before it."""
    from boxwright.cli.progress import make_listener

    listener, current = make_listener(), ""

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal current
        if stage != current:
            listener.end_stage()
            current = stage
            listener.stage(title.format(stage), total)
        listener.advance(done, {})

    try:
        yield on_progress
    finally:
        listener.end_stage()


def _show(found: "DatasetCheck", limit: int) -> None:
    from boxwright.cli import tables
    from boxwright.cli.console import out, say, show
    from boxwright.datasets.checks import class_table

    if found.header is not None:
        say(f"{found.source}: {found.header.format}, {len(found.header.names)} classes")
        show(tables.splits(found.reports, found.statistics))
        names, counts = class_table(found)
        show(tables.class_counts(names, {str(split): of_split.tolist() for split, of_split in counts.items()}))
    worst_first = sorted(found.problems, key=lambda problem: [*tables.SEVERITY_STYLES].index(problem.severity))
    for problem in worst_first[:limit]:
        out().print(tables.problem_line(problem), soft_wrap=True)
    if len(worst_first) > limit:
        say(f"... and {len(worst_first) - limit} more; --all lists them, --json FILE writes them down")
    errors, warnings = (sum(p.severity == kind for p in found.problems) for kind in ("error", "warning"))
    verdict = "can be trained on" if found.ok else "cannot be trained on as it is"
    summary = f"{tables.counted(errors, 'error')}, {tables.counted(warnings, 'warning')}"
    say(f"{summary}: the dataset {verdict}", style="bold")


def _data_config(settings: list[str] | None) -> "DataConfig":
    """The settings of `data.*`, with the same paths as `train --set`."""
    from boxwright.config import component, override
    from boxwright.datasets.policy import DataConfig

    @component
    class Checked:
        data: DataConfig = DataConfig()

    return override(Checked(), settings or []).data


def _plot(found: "DatasetCheck", file: Path) -> None:
    """Class counts as a bar chart; the suffix names the format."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from boxwright.datasets.checks import class_table

    names, counts = class_table(found)
    figure = Figure(figsize=(max(6.0, 0.35 * len(names) + 2), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    bottom = [0] * len(names)
    for split, of_split in counts.items():
        values = of_split.tolist()
        axes.bar(range(len(names)), values, bottom=bottom, label=split)
        bottom = [below + value for below, value in zip(bottom, values, strict=True)]
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 8 else 0)
    axes.set_ylabel("objects")
    axes.set_title(f"{found.source.name}: objects per class")
    axes.legend()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: the plot cannot be written: {error}") from None


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}: cannot be written: {error.strerror}") from None


def draw(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the dataset.")],
    train: Annotated[int, typer.Option("--train", min=1, metavar="N", help="Training scenes.")] = 400,
    val: Annotated[int, typer.Option("--val", min=1, metavar="N", help="Held-out scenes.")] = 120,
    imgsz: Annotated[int, typer.Option("--imgsz", min=64, metavar="PX", help="Side of the scenes.")] = 192,
    seed: Annotated[int, typer.Option("--seed", help="The same seed draws the same scenes.")] = 0,
    task: Annotated[TaskChoice, typer.Option("--task", help="What the labels are made for.")] = TaskChoice.DETECT,
    attributes: Annotated[
        bool, typer.Option("--attributes", help="Objects also have a colour and marks, as named attributes.")
    ] = False,
) -> None:
    """Draw a synthetic dataset.

    Labelled shapes (figures with keypoints for pose) on textured backgrounds, in YOLO layout, or a folder for each
    class to classify; the same seed draws the same scenes.
    """
    from boxwright.cli.console import say
    from boxwright.cli.progress import make_listener
    from boxwright.drawn.synthetic import draw_dataset
    from boxwright.engine.logs import counted_stage

    listener = make_listener()
    with counted_stage(listener, "drawing scenes") as on_progress:
        made = draw_dataset(
            folder,
            train=train,
            val=val,
            imgsz=imgsz,
            seed=seed,
            task=task.value,
            attributes=attributes,
            on_progress=on_progress,
        )
    say(f"dataset: {made}")


class FormatName(StrEnum):
    """What datasets can be converted to."""

    YOLO = "yolo"
    COCO = "coco"
    VOC = "voc"
    DOTA = "dota"
    FOLDER = "folder"


class ImageChoice(StrEnum):
    """How images get into a new dataset."""

    COPY = "copy"
    LINK = "link"
    NONE = "none"


class PersonBox(StrEnum):
    """Which box of a person CrowdHuman's labels are read for."""

    FULL = "full"
    VISIBLE = "visible"
    HEAD = "head"


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help=DATA_HELP)],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="New folder.")],
    to: Annotated[FormatName, typer.Option("--to", help="Format to write.")],
    task: Annotated[
        TaskChoice | None, typer.Option("--task", help="What labels are read for; by default what the dataset says.")
    ] = None,
    images: Annotated[
        ImageChoice, typer.Option("--images", help="Copy the images, link them (hard links), or write labels only.")
    ] = ImageChoice.COPY,
    box: Annotated[PersonBox | None, typer.Option("--box", help="CrowdHuman: which box of a person.")] = None,
    settings: Settings = None,
) -> None:
    """Write a dataset in another format, into a new folder.

    The source is not changed. What the new format cannot hold is counted and listed.
    """
    from boxwright.datasets.convert import convert_dataset

    chosen = [*(settings or []), *([f"data.box={box.value}"] if box else [])]
    with _stages("{}") as on_progress:
        report = convert_dataset(
            source,
            destination,
            to=to.value,
            task=None if task is None else task.value,
            config=_data_config(chosen),
            images=images.value,
            on_progress=on_progress,
        )
    _say_written(report.lines(), report.destination)


def tile(
    source: Annotated[Path, typer.Argument(metavar="SRC", help=DATA_HELP)],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="New folder.")],
    size: Annotated[int, typer.Option("--size", min=32, metavar="PX", help="Side of a tile.")] = 1024,
    gap: Annotated[int, typer.Option("--gap", min=0, metavar="PX", help="Pixels that neighbouring tiles share.")] = 200,
    keep: Annotated[
        float, typer.Option("--keep", metavar="SHARE", help="Least share of an object's area inside a tile.")
    ] = 0.7,
    to: Annotated[
        FormatName | None, typer.Option("--to", help="Format to write; by default that of the source.")
    ] = None,
    task: Annotated[
        TaskChoice | None, typer.Option("--task", help="What labels are read for; by default what the dataset says.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Cut large images into overlapping tiles, with their labels, into a new folder.

    What sticks out of a tile is clipped; an object is labelled where enough of it is inside. The source is not changed.
    """
    from boxwright.datasets.tiles import Tiling, tile_dataset

    with _stages("{}") as on_progress:
        report = tile_dataset(
            source,
            destination,
            Tiling(size, gap, keep),
            to=None if to is None else to.value,
            task=None if task is None else task.value,
            config=_data_config(settings),
            on_progress=on_progress,
        )
    _say_written(report.lines(), report.written.destination)


def _say_written(lines: Iterable[str], place: Path) -> None:
    from boxwright.cli.console import say

    for line in lines:
        say(line)
    say(f"dataset: {place}")
