# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Trains, explains and ships YOLO-family object detectors, with the training loss at its heart.

Names are imported when they are first used, so that `import boxwright` costs nothing and needs no torch.

    import boxwright as bw

    run = bw.train("yolov8n", data="data.yaml", epochs=100)
    model = run.model()  # or bw.load("runs/yolov8n")
    detections = model("photo.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from boxwright.version import __version__

if TYPE_CHECKING:
    from boxwright.api import Model as Model
    from boxwright.api import Run as Run
    from boxwright.api import load as load
    from boxwright.api import loss as loss
    from boxwright.api import recipe as recipe
    from boxwright.api import train as train
    from boxwright.api.audit import audit as audit
    from boxwright.api.inspect import explain_image as explain_image
    from boxwright.api.inspect import inspect_data as inspect_data
    from boxwright.engine.recipe import Recipe as Recipe
    from boxwright.errors import BoxwrightError as BoxwrightError
    from boxwright.inspector.findings import findings_of as findings_of
    from boxwright.inspector.probe import Inspection as Inspection
    from boxwright.inspector.probe import inspect as inspect
    from boxwright.losses.criterion import Criterion as Criterion
    from boxwright.presets import PRESETS as PRESETS
    from boxwright.reports.page import write_report as write_report
    from boxwright.results import Detections as Detections
    from boxwright.structures import Assignment as Assignment
    from boxwright.structures import LossBreakdown as LossBreakdown
    from boxwright.structures import Outputs as Outputs
    from boxwright.structures import Predictions as Predictions
    from boxwright.structures import Targets as Targets

# Public name -> module it lives in.
_HOMES = {
    "train": "api",
    "load": "api",
    "loss": "api",
    "recipe": "api",
    "inspect": "inspector.probe",
    "inspect_data": "api.inspect",
    "explain_image": "api.inspect",
    "findings_of": "inspector.findings",
    "write_report": "reports.page",
    "Inspection": "inspector.probe",
    "audit": "api.audit",
    "Model": "api",
    "Run": "api",
    "Recipe": "engine.recipe",
    "PRESETS": "presets",
    "Criterion": "losses.criterion",
    "Targets": "structures",
    "Predictions": "structures",
    "Outputs": "structures",
    "Assignment": "structures",
    "LossBreakdown": "structures",
    "Detections": "results",
    "BoxwrightError": "errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'boxwright' has no attribute {name!r}")
    value = getattr(import_module(f"boxwright.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
