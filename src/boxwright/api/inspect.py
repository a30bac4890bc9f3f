# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The front door of the inspector: whole splits, two settings side by side, and a look at a training as it goes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from boxwright.api import Model, Settings, configure, load, recipe
from boxwright.datasets import codes
from boxwright.datasets.dataset import read_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.formats.yolo import highest_class
from boxwright.datasets.formats.yolo_rows import RowRules, read_rows
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import Instances, Records, Split
from boxwright.engine.logs import Listener, counted_stage, stage
from boxwright.engine.precision import choose_device
from boxwright.engine.recipe import AnyCriterion, Recipe
from boxwright.engine.sources import Sources
from boxwright.engine.step import prepare, to_network
from boxwright.engine.trainer import EpochView
from boxwright.errors import ConfigError, DataError
from boxwright.inspector.explain import Stage, explain
from boxwright.inspector.joined import join_inspections
from boxwright.inspector.probe import Inspection, inspect
from boxwright.loading.augment.geometry import apply_letterbox
from boxwright.loading.loader import val_loader
from boxwright.losses.criterion import Criterion
from boxwright.models.network import Network
from boxwright.ops.collective import alone
from boxwright.ops.letterbox import letterbox
from boxwright.presets import PRESETS, preset
from boxwright.structures import Targets

BATCH = 8  # images inspected together


@dataclass(frozen=True, slots=True)
class Inspected:
    """Images of a split, taken apart."""

    inspection: Inspection
    images: tuple[UInt8[np.ndarray, "h w 3"], ...]  # RGB network inputs, one per image of the inspection
    against: Inspection | None = None  # the same images under another criterion or other weights
    title: str = "Inspection"
    sides: tuple[str, str] = ("this", "against")  # what the two are called


def inspect_data(
    model: str | Path | Model,
    data: str | Path | None = None,
    *,
    split: Split = "val",
    limit: int | None = 32,
    images: Sequence[str] = (),
    settings: Settings | None = None,
    against: str | Path | None = None,
    against_settings: Settings | None = None,
    device: str = "auto",
    listener: Listener | None = None,
) -> Inspected:
    """Runs the training criterion on labelled images, without augmentation, and says who pays what.

    Args:
        model: a preset (fresh weights), a weights file, a run folder, or a loaded model.
        data: the dataset; None: the one the model was trained on.
        split: of the dataset.
        limit: images, evenly spread over the split; None: all.
        images: only images whose path ends with one of these.
        settings: changes to the recipe, for example {"criterion.rules.main.assigner.topk": 13}.
        against: other weights to put beside.
        against_settings: changes for the other side only.
        device: where the model runs.
        listener: hears progress.

    Raises:
        ConfigError: an unknown preset or setting, or an exported file, which has no loss.
        DataError: the dataset cannot be used, or has none of the named images.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"inspect: limit: expected at least 1 image, or None for all, got {limit}")
    listener = listener or Listener()
    network, chosen = _model(model, data, settings)
    records = _records(chosen, split, limit, images, listener)
    place = choose_device(device)
    inspection, pixels = _run(network, chosen, chosen.criterion, records, place, listener)
    other = None
    if against is not None or against_settings is not None:
        both = [*_listed(settings), *_listed(against_settings)]
        other_network, other_recipe = _model(model if against is None else against, data, both)
        other, _ = _run(other_network, other_recipe, other_recipe.criterion, records, place, listener)
    called = _called(model)
    beside = called if against is None else _called(against)
    if against_settings is not None:
        beside = f"{beside} with {', '.join(setting.rpartition('.')[2] for setting in _listed(against_settings))}"
    return Inspected(inspection, pixels, other, f"Inspection of {called}, {split} split", (called, beside))


def every(epochs: int, images: int, show: Callable[[Path, Inspected], None]) -> Callable[[EpochView], None]:
    """What hands the trainer an eye: every so many epochs the same images, into `inspect/epoch-0010` of the run folder.

    Args:
        epochs: between two looks.
        images: looked at, evenly spread over the validation split.
        show: writes the report into a folder.
    """

    def look(view: EpochView) -> None:
        if view.epoch % epochs:
            return
        records = _spread(view.records, images)
        with alone():
            inspection, pixels = _run(view.model, view.recipe, view.recipe.criterion, records, view.device, Listener())
        title = f"{view.folder.name} after epoch {view.epoch}"
        show(view.folder / "inspect" / f"epoch-{view.epoch:04d}", Inspected(inspection, pixels, title=title))

    return look


def explain_image(
    name: str, image: Path, labels: Path, *, weights: str | Path | None = None, imgsz: int = 320
) -> Iterator[Stage]:
    """A loss step by step on one image with YOLO label rows; see `inspector.explain`.

    Args:
        name: a preset.
        image: file.
        labels: text rows: class, centre x and y, width, height, in shares of the image.
        weights: of that preset; None: fresh ones.
        imgsz: px, side of the network input.

    Raises:
        DataError: the image or the labels cannot be read.
        ConfigError: weights of another family.
    """
    pixels = next(iter(Sources(str(image)))).image
    height, width = pixels.shape[:2]
    objects = _read_labels(labels, (height, width))
    classes = max(int(objects.labels.max(initial=0)) + 1, 2)
    chosen = preset(name, num_classes=classes, imgsz=imgsz)
    if weights is not None:
        loaded = load(weights)
        chosen = configure(loaded.recipe, imgsz=imgsz)
        network = loaded.detector
    else:
        torch.manual_seed(0)
        network = chosen.model.build()
    box = letterbox((height, width), (imgsz, imgsz))
    placed = torch.from_numpy(box.to_network(objects.boxes.astype(np.float64)).astype(np.float32))[None]
    targets = Targets(torch.from_numpy(objects.labels)[None], placed, torch.ones(1, len(objects)) > 0)
    canvas = apply_letterbox(pixels, box)
    criterion = chosen.criterion
    if not isinstance(criterion, Criterion):
        raise ConfigError(f"explain: expected a model that finds objects, got {name}")
    targets = criterion.prepare(targets, network.grid((imgsz, imgsz)))
    with torch.no_grad():
        outputs = network.fold(auxiliary=True)(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255)
    yield from explain(outputs, targets, criterion)


def _read_labels(path: Path, size: tuple[int, int]) -> Instances:
    """The objects of a YOLO label file, px of its image of `size` (height, width), as training reads them.

    Raises:
        DataError: the file cannot be read, or training would drop a row that repeats no other.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    names = tuple(f"class_{index}" for index in range(max(highest_class(data) + 1, 2)))
    rules = RowRules({index: index for index in range(len(names))}, names, None, DataConfig())
    labels = read_rows(data, str(path), size, rules)
    for problem in labels.problems:
        if problem.line is not None and "dropped" in problem.action and problem.code != codes.DUPLICATE_ROW:
            row = data.splitlines()[problem.line - 1].strip().decode(errors="replace")
            expected = f"expected class, centre x, y, width, height, got {row!r}"
            raise DataError(f"{path}, line {problem.line}: {expected}: {problem.message}")
    return labels.instances


def _model(model: str | Path | Model, data: str | Path | None, settings: Settings | None) -> tuple[Network, Recipe]:
    if isinstance(model, str) and model in PRESETS:
        if data is None:
            raise ConfigError(f"inspect: {model} is a fresh model; say which dataset to look at")
        chosen = recipe(model, data=data, settings=settings)
        torch.manual_seed(chosen.train.seed)
        return chosen.model.build(), chosen
    loaded = model if isinstance(model, Model) else load(model)
    if not isinstance(loaded.detector, Network):
        raise ConfigError(f"{loaded.path}: an exported file has no loss to inspect; use the weights it was made from")
    source = None if data is None else str(Path(data).expanduser().absolute())
    chosen = configure(loaded.recipe, settings, source=source)
    return loaded.detector, chosen


def _records(chosen: Recipe, split: Split, limit: int | None, images: Sequence[str], listener: Listener) -> Records:
    if not chosen.data.source:
        raise ConfigError("data.source: these weights name no dataset; say which one to look at")
    header = open_dataset(chosen.data.source, chosen.data.names)
    with counted_stage(listener, f"reading {split} labels") as on_progress:
        records = read_split(header, split, chosen.data, on_progress)
    if images:
        wanted = tuple(images)
        found = tuple(record for record in records.records if str(record.image).endswith(wanted))
        if not found:
            raise ConfigError(f"{header.source}: no image of the {split} split ends with {' or '.join(wanted)}")
        return replace(records, records=found)
    return records if limit is None else _spread(records, limit)


def _spread(records: Records, limit: int) -> Records:
    """At most `limit` records, evenly spread."""
    count = len(records.records)
    if count <= limit:
        return records
    chosen = np.unique(np.linspace(0, count - 1, limit).round().astype(int))
    return replace(records, records=tuple(records.records[i] for i in chosen))


def _run(
    network: Network,
    chosen: Recipe,
    criterion: AnyCriterion,
    records: Records,
    device: torch.device,
    listener: Listener,
) -> tuple[Inspection, tuple[np.ndarray, ...]]:
    model = network.fold(auxiliary=True).to(device)
    loader = val_loader(records, chosen.data, batch=BATCH, workers=0, stride=max(network.strides), square=True)
    parts, pixels, done = [], [], 0
    with stage(listener, "inspect", len(records.records)):
        for batch in loader:
            ready = prepare(batch, criterion, network).to(device)
            with torch.no_grad():
                outputs = model(to_network(ready.images, device, channels_last=False), ready.targets)
            parts.append(inspect(outputs, ready.targets, criterion, names=records.header.names, paths=batch.paths))
            pixels += [image.permute(1, 2, 0).numpy().copy() for image in batch.images]
            done += len(batch)
            listener.advance(done, {})
    return join_inspections(parts), tuple(pixels)


def _called(model: str | Path | Model) -> str:
    """A short name: of the preset, of the run of best weights, else of the file."""
    path = model.path if isinstance(model, Model) else Path(model)
    return path.parents[1].name if path.parent.name == "weights" and path.stem == "best" else path.stem


def _listed(settings: Settings | None) -> list[str]:
    if settings is None:
        return []
    if isinstance(settings, str):
        return [settings]
    return [f"{key}={value}" for key, value in settings.items()] if hasattr(settings, "items") else list(settings)
