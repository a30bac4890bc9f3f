# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The front door for files of other runtimes and of other code bases: exports, their comparison, imports."""

from pathlib import Path
from typing import Any

from boxwright.api import Model, absolute, configure, load
from boxwright.datasets.dataset import read_split
from boxwright.datasets.formats import open_dataset
from boxwright.errors import CheckpointError
from boxwright.export.export import SUFFIXES, ExportSettings
from boxwright.export.export import export as write_export
from boxwright.export.runtime import ExportedModel
from boxwright.export.verify import DRAWN, Difference, compare, drawn_images
from boxwright.foreign.importing import Imported
from boxwright.foreign.importing import import_checkpoint as run_import
from boxwright.loading.loader import val_loader


def export(model: Model, out: str | Path | None = None, settings: ExportSettings | None = None) -> Model:
    """Writes a model for another runtime, by default beside its weights, and opens the file.

    Raises:
        ExportError: the model cannot be written like this, or a package is missing.
        CheckpointError: the model is an exported file already.
    """
    if isinstance(model.detector, ExportedModel):
        raise CheckpointError(f"{model.path}: is exported already; expected weights (.safetensors)")
    settings = settings or ExportSettings()
    target = model.path.with_suffix(SUFFIXES[settings.format]) if out is None else Path(out)
    return load(write_export(model.detector, model.recipe, model.vocabulary, target, settings))


def verify(model: Model, exported: Model, data: str | Path | None = None, *, images: int = DRAWN) -> list[Difference]:
    """The largest difference of every output of an exported file from its weights, on drawn images or those of `data`.

    Raises:
        ExportError: the outputs are not the same ones.
        DataError: the dataset cannot be read.
    """
    if isinstance(model.detector, ExportedModel) or not isinstance(exported.detector, ExportedModel):
        raise CheckpointError("verify: expected weights and their exported file")
    side = exported.detector.imgsz
    if data is None:
        return compare(exported.detector, model.detector, drawn_images(side, images))
    chosen = configure(model.recipe, source=absolute(data), imgsz=side)
    records = read_split(open_dataset(chosen.data.source, chosen.data.names), "val", chosen.data)
    loader = val_loader(records, chosen.data, batch=images, workers=0, stride=max(model.detector.strides), square=True)
    return compare(exported.detector, model.detector, next(iter(loader)).images.float() / 255)


def import_checkpoint(source: str | Path, out: str | Path | None = None, **options: Any) -> Imported:
    """A checkpoint of another code base as boxwright weights, with a report; nothing in the file is run.

    Without `out` they are written beside it, as `.safetensors`. Options are those of
    `boxwright.foreign.importing.import_checkpoint`: `names`, `preset`, `keypoints`, `exclusive`, `task`.

    Raises:
        CheckpointError: the file is damaged, refused, not known, or does not fit.
    """
    file = Path(source).expanduser()
    target = file.with_name(f"{file.stem}.boxwright.safetensors") if out is None else Path(out)
    return run_import(file, target, **options)
