# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright export`: weights as a file of another runtime, checked against the original."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boxwright.cli.options import Conf, Data, Imgsz, Iou, MaxDet

if TYPE_CHECKING:
    from boxwright.api import Model
    from boxwright.export.verify import Difference


METRICS = ("ap50", "ap50_95", "top1", "top5")  # whose change is shown


class ExportFormatName(StrEnum):
    """The formats that are written."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"


def export(
    weights: Annotated[
        Path | None, typer.Argument(metavar="WEIGHTS", help="Weights file or run folder; the newest run without it.")
    ] = None,
    form: Annotated[ExportFormatName, typer.Option("--format", help="What to write.")] = ExportFormatName.ONNX,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Beside the weights without it.")] = None,
    imgsz: Imgsz = None,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Images the file takes at once.")] = 1,
    opset: Annotated[int, typer.Option("--opset", metavar="N", help="Version of the ONNX operations.")] = 17,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave number and size of the images open.")] = False,
    nms: Annotated[bool, typer.Option("--nms", help="Put suppression inside the file (onnx).")] = False,
    conf: Conf = None,
    iou: Iou = None,
    max_det: MaxDet = None,
    verify: Annotated[bool, typer.Option("--verify", help="Run the file and compare it with the weights.")] = False,
    data: Data = None,
) -> None:
    """Write weights as ONNX or TorchScript.

    With --verify on drawn images; with --data also on that dataset, and the change in its metrics.
    [bold]boxwright export runs/yolov8n --format onnx --verify[/]
    """
    from boxwright import api
    from boxwright.api.export import export as write
    from boxwright.cli.console import say
    from boxwright.export.export import ExportSettings

    given = {"imgsz": imgsz, "conf": conf, "iou": iou, "max_det": max_det}
    settings = ExportSettings(
        format=form.value,
        batch=batch,
        opset=opset,
        dynamic=dynamic,
        nms=nms,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )
    model = api.load(weights or api.newest_weights())
    exported = write(model, out, settings)
    say(f"{model.path} as {exported.path}, {exported.path.stat().st_size / 1e6:.1f} MB")
    if verify or data is not None:
        _verify(model, exported, data)


def _verify(model: "Model", exported: "Model", data: Path | None) -> None:
    from boxwright.api.export import verify
    from boxwright.cli.console import say
    from boxwright.export.verify import expect_equal

    differences = verify(model, exported, data)
    lowered = differences[0].conf if differences else None
    if lowered is not None:
        threshold = exported.detector.suppression["conf"]
        say(
            f"nothing scores above {threshold:g} in these images, so the file leaves nothing to compare: compared with "
            f"a copy whose threshold is {lowered:.3g} (--data looks at your own images)"
        )
    for found in differences:
        say(_line(found))
    expect_equal(exported.detector, differences)
    if data is not None:
        side = exported.detector.imgsz
        before, after = (one.validate(data, imgsz=side).result.metrics for one in (model, exported))
        for name in before:
            if name.rpartition("/")[2] in METRICS and name in after:
                say(f"{name}: {before[name]:.5f} to {after[name]:.5f}, change {after[name] - before[name]:+.5f}")


def _line(found: "Difference") -> str:
    unit = " px" if found.output in ("boxes", "keypoints") else ""
    return f"{found.output}: largest difference {found.largest:.2e}{unit} (limit {found.limit:g}{unit})"
