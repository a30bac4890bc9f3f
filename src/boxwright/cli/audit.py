# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright audit`: a dataset looked over before anybody trains on it."""

from pathlib import Path
from typing import Annotated

import typer

from boxwright.cli.options import DATA_HELP, Device, Imgsz, Settings, SplitName


def audit(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=DATA_HELP)],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Preset whose assigner is asked who can be learned (yolov5n: anchors, rtdetr-r18: queries); by "
            "default that of the weights, or YOLOv8 for the dataset's task.",
        ),
    ] = None,
    imgsz: Imgsz = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", "-w", metavar="PATH", help="A trained model, to rank label errors by."),
    ] = None,
    split: Annotated[
        list[SplitName] | None, typer.Option("--split", help="Only this split; may be given several times.")
    ] = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Labels only: no copies, near copies or damaged pixels are looked for.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write audit.json and tables here; with weights by default runs/."),
    ] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="Also write Parquet tables.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show all classes and ten examples of each finding.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors for the exit status.")] = False,
    device: Device = None,
    settings: Settings = None,
) -> None:
    """Audit a dataset: faults, oddities, leaks between splits, and objects that can never be learned.

    Changes nothing. The exit status is 1 when there are errors, or warnings with --strict. docs/audit.md explains every
    finding.
    """
    from boxwright.api import RUNS
    from boxwright.api.audit import audit as look_over
    from boxwright.auditor.scene import SHOWN
    from boxwright.cli.console import say, show
    from boxwright.cli.progress import make_listener
    from boxwright.engine.runfolder import free_folder
    from boxwright.reports.audit_files import write_audit
    from boxwright.reports.audit_text import CLASSES, EXAMPLES, summary

    found = look_over(
        data,
        model=model,
        imgsz=imgsz,
        weights=weights,
        splits=None if split is None else [one.value for one in split],
        pixels=not no_images,
        settings=settings,
        device=device or "auto",
        listener=make_listener(),
    )
    show(summary(found, examples=SHOWN if show_all else EXAMPLES, classes=10**6 if show_all else CLASSES))
    if out is not None or weights is not None:
        files = write_audit(out or free_folder(RUNS / "audit"), found, ("json", "parquet") if parquet else ("json",))
        say(f"written to {files[0].parent}: {', '.join(file.name for file in files)}")
    if not found.ok or (strict and found.of_severity("warning")):
        raise typer.Exit(1)
