# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: the front door in Python. The command line is a thin layer over this room.

Lives here: `train`, `load`, `loss`, `recipe`, `Model` and `Run` in this file; `inspect.py` (batches and pictures taken
apart), `audit.py` (datasets looked over), `export.py` (other runtimes, checkpoints of other code bases).
May import: everything but the command line. This file imports none of the others, so a name is found in one place.
To add a function: here if it trains or loads, else in the file of its subject; a public one also in `boxwright`.
Must never happen here: a computation of its own, printing (a `Listener` is told instead).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import UInt8

from boxwright.config import from_yaml, override, suggest
from boxwright.datasets.dataset import read_split
from boxwright.datasets.formats import DATASETS, open_dataset
from boxwright.datasets.formats.listing import IMAGE_SUFFIXES
from boxwright.datasets.sample import DatasetHeader, Split
from boxwright.engine.assemble import expect_labels
from boxwright.engine.logs import Listener, counted_stage
from boxwright.engine.precision import choose_device, default_workers
from boxwright.engine.predictor import Predictor
from boxwright.engine.recipe import AnyCriterion, Recipe
from boxwright.engine.runfolder import free_folder
from boxwright.engine.trainer import EpochView, Trainer
from boxwright.engine.validator import Validation
from boxwright.engine.validator import validate as run_validation
from boxwright.errors import CheckpointError, ConfigError
from boxwright.evaluation.result import EvaluationResult
from boxwright.export.runtime import ExportedModel, is_exported, load_exported
from boxwright.loading.collate import Batch
from boxwright.loading.loader import val_loader
from boxwright.models.weights import load_weights, read_metadata
from boxwright.presets import preset
from boxwright.results import Detections
from boxwright.structures import LossBreakdown, Outputs
from boxwright.vocabulary import TASKS, Vocabulary

Array = UInt8[np.ndarray, "h w 3"]
Settings = Mapping[str, Any] | Sequence[str]

SHORT_SECTIONS = ("train", "data", "augment", "evaluation")  # where a keyword without dots is looked for, in this order
_MODEL_ARGUMENTS = 3  # model, vocabulary, imgsz: what a Model knows of a Predictor's arguments
RUNS = Path("runs")  # default place of run folders


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training run."""

    folder: Path
    metrics: Mapping[str, float]  # of the best epoch on the validation split: "box/ap50_95", "box/ap50", ...
    best_epoch: int  # counted from 1
    evaluation: EvaluationResult | None = None  # of that epoch, per class; None without a validation split

    @property
    def weights(self) -> Path:
        """The best weights."""
        return weights_of(self.folder)

    def model(self) -> "Model":
        """The best weights, ready to predict."""
        return load(self.folder)


def recipe(name: str, *, data: str | Path | None = None, settings: Settings | None = None, **keywords: Any) -> Recipe:
    """The complete recipe of a preset, with the classes of the dataset (80 without one) and checked settings.

    A keyword is the last part of a setting's path (`epochs=3` is `train.epochs`); `settings` takes whole paths, as a
    mapping or as texts of the form "a.b.c=value".

    Raises:
        ConfigError: an unknown preset, key or value.
        DataError: the dataset cannot be read.
    """
    source = None if data is None else absolute(data)
    chosen = configure(preset(name), settings, source=source, **keywords)
    if not chosen.data.source:
        return chosen
    header = open_dataset(chosen.data.source, chosen.data.names)
    # Once more, now that the classes are known: what a preset computes from their number and the image size follows.
    known = preset(
        name,
        num_classes=len(header.names),
        exclusive=bool(header.exclusive if chosen.data.exclusive is None else chosen.data.exclusive),
        keypoints=header.keypoints if TASKS[chosen.data.task].keypoints else None,
        attributes=header.attributes,
        imgsz=chosen.data.imgsz,
    )
    return configure(known, settings, source=source, **keywords)


def configure(base: Recipe, settings: Settings | None = None, **keywords: Any) -> Recipe:
    """A copy of a recipe with settings applied: keywords first, then `settings`; None as a keyword changes nothing.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    chosen = {_full_path(base, name): value for name, value in keywords.items() if value is not None}
    changed = override(base, chosen) if chosen else base
    return override(changed, settings) if settings else changed


def train(
    model: str | Recipe | None = None,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    weights: str | Path | None = None,
    resume: str | Path | None = None,
    listener: Listener | None = None,
    look_on: Callable[[EpochView], None] | None = None,
    settings: Settings | None = None,
    **keywords: Any,
) -> Run:
    """Trains a model and returns its run.

    Args:
        model: a preset ("yolov8n", "yolo11s-seg"), the path of a YAML table of layers, or a complete recipe.
        data: the dataset, of any format: a YOLO `data.yaml` or folder, COCO JSON (file or folder), Pascal VOC, DOTA, a
            folder of images by class, WIDER FACE or CrowdHuman.
        out: the run folder; without it a new one under `runs/`.
        weights: a weights file or run folder to start from; what does not fit, for example the last layers of other
            classes, keeps its fresh values, and a message says how much that is.
        resume: the folder of an interrupted run, to be finished as if it had never stopped; its own recipe is used.
        listener: hears progress; see `boxwright.engine.logs.Listener`.
        look_on: called after every epoch, for example `boxwright.api.inspect.every(...)`.
        settings: whole paths, for example {"criterion.rules.main.assigner.topk": 13} or ["train.lr0=0.01"].
        **keywords: settings by their last name, for example `epochs=3`, `imgsz=320`, `batch=8`.

    Raises:
        ConfigError: an unknown preset, key or value, or nothing to train.
        DataError: the dataset cannot be used.
        TrainingError: the loss is not finite.
    """
    if resume is not None and weights is not None:
        raise ConfigError("train: expected weights to start from or a run to resume, got both; leave one out")
    if resume is not None:
        folder, chosen = _resumed(Path(resume), model, data, out)
        chosen = configure(chosen, settings, **keywords)
    else:
        chosen = _chosen(model, data, settings, keywords)
        folder = free_folder(RUNS / chosen.name) if out is None else Path(out)
    start = None if weights is None else weights_of(Path(weights))
    if start is not None and is_exported(start):
        raise CheckpointError(
            f"{start}: an exported file cannot be trained on; expected the weights (.safetensors) it was made of"
        )
    result = Trainer(chosen, folder, listener=listener, resume=resume is not None, weights=start, look_on=look_on).fit()
    return Run(result.folder, result.metrics, result.best_epoch, result.evaluation)


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model of any task: call it on an image, or on a list of images."""

    detector: Any  # a `Network`, or an `ExportedModel`
    recipe: Recipe
    names: tuple[str, ...]
    class_ids: tuple[int, ...]  # the dataset's own id of each class
    path: Path  # the weights file
    epoch: int  # finished epochs when it was saved
    _ready: dict[object, Predictor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def vocabulary(self) -> Vocabulary:
        """How its outputs read."""
        return self.recipe.vocabulary(self.names, self.class_ids)

    @property
    def criterion(self) -> AnyCriterion:
        """The loss it was trained with."""
        return self.recipe.criterion

    @overload
    def __call__(self, source: Array, **options: Any) -> Detections: ...
    @overload
    def __call__(self, source: Sequence[Any], **options: Any) -> list[Detections]: ...
    @overload
    def __call__(self, source: Any, **options: Any) -> Any: ...
    def __call__(self, source: Any, **options: Any) -> Detections | list[Detections]:
        """Detections of one image (a path or an RGB array); a list of them for a list, folder, glob pattern or video.

        Options are those of `predictor`.
        """
        found = self.predictor(**options)(source)
        return found[0] if _is_one_image(source) else found

    def predictor(self, *, imgsz: int | None = None, **options: Any) -> Predictor:
        """A predictor with options of `boxwright.engine.predictor.Predictor`: `conf`, `iou`, `max_det`, `device`, ...

        The last one is kept and used again while options and weights stay as they are.

        Raises:
            ConfigError: an unknown option or a value out of range.
        """
        known = list(signature(Predictor).parameters)[_MODEL_ARGUMENTS:]
        for name in options:
            if name not in known:
                raise ConfigError(f"{name}: unknown option of prediction{suggest(name, known)}")
        # An in-place change of a tensor, such as an optimizer step, raises its version.
        exported = isinstance(self.detector, ExportedModel)
        weights = 0 if exported else sum(tensor._version for tensor in self.detector.state_dict().values())
        options = {"fit": self.recipe.data.fit, "minimal": not exported or self.detector.dynamic} | options
        key = (imgsz, weights, repr(sorted(options.items())))
        if key not in self._ready:
            self._ready.clear()
            size = imgsz or (self.detector.imgsz if exported else self.recipe.data.imgsz)
            self._ready[key] = Predictor(self.detector, self.vocabulary, size, **options)
        return self._ready[key]

    def validate(
        self,
        data: str | Path | None = None,
        *,
        split: Split = "val",
        listener: Listener | None = None,
        settings: Settings | None = None,
        **keywords: Any,
    ) -> Validation:
        """Metrics and losses on a split of a dataset; without `data`, of the one it was trained on.

        Raises:
            ConfigError: the model was trained without a dataset on disk and none is given, or a wrong setting.
            DataError: the dataset cannot be read, has no such split, or other classes.
        """
        source = None if data is None else absolute(data)
        exported = isinstance(self.detector, ExportedModel)
        if exported and not self.detector.dynamic and keywords.get("imgsz") is None:
            keywords["imgsz"] = self.detector.imgsz
        chosen = configure(self.recipe, settings, source=source, **keywords)
        if not chosen.data.source:
            raise ConfigError("data.source: these weights name no dataset; say which one to use")
        header = open_dataset(chosen.data.source, chosen.data.names)
        self._expect_classes(header)
        listener = listener or Listener()
        with counted_stage(listener, f"reading {split} labels") as on_progress:
            records = read_split(header, split, chosen.data, on_progress)
        device = choose_device(chosen.train.device)
        loader = val_loader(
            records,
            chosen.data,
            batch=chosen.evaluation.batch or 2 * chosen.train.batch,
            workers=default_workers(device) if chosen.train.workers is None else chosen.train.workers,
            stride=max(self.detector.strides),
            square=exported and not self.detector.dynamic,
        )
        return run_validation(
            self.detector,
            loader,
            vocabulary=self.vocabulary,
            config=chosen.evaluation,
            criterion=None if exported else self.criterion,
            device=device,
            precision=chosen.train.precision,
            listener=listener,
        )

    def _expect_classes(self, header: DatasetHeader) -> None:
        if header.names != self.names:
            raise ConfigError(
                f"{header.source}: expected the {len(self.names)} classes of {self.path} ({_few(self.names)}), "
                f"got {len(header.names)} ({_few(header.names)}); measure on a dataset of these classes, or train on "
                "this one from these weights (--weights): rows of classes of the same name are kept"
            )
        expect_labels(self.recipe, header)


def load(path: str | Path) -> Model:
    """The model of a weights file or of an exported file, or the best one of a run folder.

    Raises:
        CheckpointError: there is no such file, or it is not a boxwright checkpoint.
    """
    file = weights_of(Path(path).expanduser())
    if is_exported(file):
        return _load_exported(file)
    metadata = read_metadata(file)
    if "part" in metadata:
        raise CheckpointError(
            f"{file}: holds only the {metadata['part']} of a network; start a training from it with --weights"
        )
    missing = [key for key in ("recipe", "names", "class_ids") if key not in metadata]
    if missing:
        raise CheckpointError(f"{file}: its metadata lack {', '.join(missing)}; expected weights written by boxwright")
    found = from_yaml(Recipe, metadata["recipe"], source=str(file))
    names, class_ids = (_listed(file, metadata, key, found.num_classes) for key in ("names", "class_ids"))
    detector = found.model.build()
    load_weights(detector, file, strict=True)
    return Model(
        detector=detector.eval(),
        recipe=found,
        names=tuple(map(str, names)),
        class_ids=tuple(map(int, class_ids)),
        path=file,
        epoch=int(metadata.get("epoch", 0)),
    )


def _listed(file: Path, metadata: Mapping[str, str], key: str, classes: int) -> list[Any]:
    """What a weights file says about each of its classes."""
    try:
        found = json.loads(metadata[key])
    except json.JSONDecodeError:
        found = None
    kind = str if key == "names" else int
    if isinstance(found, list) and len(found) == classes and all(isinstance(one, kind) for one in found):
        return found
    got = f"{len(found)} of them" if isinstance(found, list) else metadata[key][:40]
    raise CheckpointError(
        f"{file}: {key}: expected a list of {classes}, one for each class of its model, got {got}; the file is damaged "
        "or was written by something else, use another checkpoint"
    )


def loss(model: Model, batch: Batch, outputs: Outputs | None = None, *, progress: float = 0.0) -> LossBreakdown:
    """The training loss of a batch, in parts; without `outputs` the model computes them.

    `loss(model, batch).total.backward()` gives its gradients.
    """
    device = next(model.detector.parameters()).device
    height, width = (int(side) for side in batch.images.shape[2:])
    criterion: Any = model.criterion  # of the kind that the model's outputs are for
    targets = criterion.prepare(batch.targets, model.detector.grid((height, width))).to(device)
    if outputs is None:
        outputs = model.detector(batch.images.to(device).float() / 255)
    return criterion(outputs, targets, progress)  # type: ignore[no-any-return]


def weights_of(path: Path) -> Path:
    """The weights file that a path means: itself, or the best (else the last) of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        return path
    for name in ("best", "last"):
        for folder in (path / "weights", path):
            if (folder / f"{name}.safetensors").is_file():
                return folder / f"{name}.safetensors"
    what = "holds no weights/best.safetensors" if path.is_dir() else "no such file or folder"
    raise CheckpointError(f"{path}: {what}; expected a .safetensors file or a run folder")


def newest_weights(runs: Path = RUNS) -> Path:
    """The best weights of the run that was written last.

    Raises:
        CheckpointError: there is no run.
    """
    found = [*runs.glob("*/weights/best.safetensors"), *runs.glob("*/*/weights/best.safetensors")]
    if not found:
        raise CheckpointError(f"{runs}: no trained weights there; train first, or say which with --weights")
    return max(found, key=lambda file: file.stat().st_mtime)


def absolute(data: str | Path) -> str:
    """A path that still holds when the run is resumed from another folder."""
    return str(Path(data).expanduser().absolute())


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])


def _full_path(base: Recipe, name: str) -> str:
    """The path "train.epochs" for "epochs": the first section that has a key of this name."""
    known: list[str] = []
    for section in SHORT_SECTIONS:
        keys = [field.name for field in dataclasses.fields(getattr(base, section))]
        if name in keys:
            return f"{section}.{name}"
        known += keys
    raise ConfigError(f"{name}: unknown setting{suggest(name, dict.fromkeys(known))}")


def _chosen(
    model: str | Recipe | None, data: str | Path | None, settings: Settings | None, keywords: dict[str, Any]
) -> Recipe:
    if model is None:
        raise ConfigError("model: expected a preset such as 'yolov8n', or a recipe")
    if isinstance(model, str):
        if data is None:
            raise ConfigError(f"data: no dataset; expected {DATASETS}")
        return recipe(model, data=data, settings=settings, **keywords)
    source = None if data is None else absolute(data)
    return configure(model, settings, source=source, **keywords)


def _resumed(folder: Path, model: object, data: object, out: object) -> tuple[Path, Recipe]:
    for name, value in (("model", model), ("data", data), ("out", out)):
        if value is not None:
            raise ConfigError(f"{name}: a resumed run keeps its own; leave it out, or start a new run")
    file = folder / "recipe.yaml"
    if not file.is_file():
        raise CheckpointError(f"{folder}: holds no recipe.yaml; expected the folder of an interrupted run")
    return folder, from_yaml(Recipe, file.read_text(encoding="utf-8"), source=str(file))


def _is_one_image(source: object) -> bool:
    """True for an array, a PIL image and the path of a picture; lists, folders, globs and videos are several."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    return isinstance(source, np.ndarray) or hasattr(source, "getbands")


def _load_exported(file: Path) -> Model:
    exported = load_exported(file)
    vocabulary = exported.vocabulary
    return Model(
        detector=exported,
        recipe=exported.recipe,
        names=vocabulary.names,
        class_ids=vocabulary.class_ids or tuple(range(len(vocabulary.names))),
        path=file,
        epoch=0,
    )
