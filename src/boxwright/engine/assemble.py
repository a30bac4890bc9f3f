# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From a recipe to the live parts of a run: data, model, optimizer, schedule."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from boxwright.config import from_yaml, replace
from boxwright.datasets.dataset import read_split
from boxwright.datasets.formats import DATASETS, open_dataset
from boxwright.datasets.report import summary_line
from boxwright.datasets.sample import DatasetHeader, Records, Split
from boxwright.engine.distributed import Ranks, wait_for_all
from boxwright.engine.ema import Ema
from boxwright.engine.logs import Listener, counted_stage
from boxwright.engine.optim import (
    Schedule,
    build_optimizer,
    choose_optimizer,
    few_steps_message,
    scaled_decay,
    warmup_iterations,
)
from boxwright.engine.precision import Resolved, choose_precision, default_workers, gradient_scaler
from boxwright.engine.recipe import Recipe
from boxwright.engine.step import Stepper, StepSettings
from boxwright.errors import CheckpointError, ConfigError, DataError
from boxwright.loading.augment.pipeline import pose_flip_message
from boxwright.loading.autoanchor import check_anchors, label_sizes
from boxwright.loading.image_store import ImageStore
from boxwright.loading.loader import BatchLoader, TrainLoader, train_loader, val_loader
from boxwright.losses.assign.anchor_ratio import AnchorRatio
from boxwright.losses.criterion import Criterion
from boxwright.models.heads.anchor_based import AnchorBasedConfig
from boxwright.models.network import Network
from boxwright.models.weights import load_weights, read_metadata
from boxwright.vocabulary import TASKS, AttributeSpec, KeypointSpec


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run works with."""

    recipe: Recipe  # with the batch clamped to the dataset and the class weights as numbers
    header: DatasetHeader
    train: TrainLoader
    val: BatchLoader | None  # None where the dataset has no validation split
    train_records: Records
    val_records: Records | None
    model: Network
    stepper: Stepper
    precision: Resolved
    workers: int


def assemble(
    recipe: Recipe, *, ranks: Ranks, device: torch.device, folder: Path, listener: Listener, weights: Path | None = None
) -> Parts:
    """Reads the data and builds the model; tells the listener every choice it makes.

    Raises:
        ConfigError, DataError, CheckpointError: the recipe, the data or the initial weights cannot be used.
    """
    _check(recipe, ranks)
    header = open_dataset(recipe.data.source, recipe.data.names)
    if recipe.num_classes != len(header.names):
        raise ConfigError(
            f"model.head.num_classes: expected {len(header.names)}, the number of classes that {header.source} names, "
            f"got {recipe.num_classes}"
        )
    for text in expect_labels(recipe, header):
        listener.message(text, "warning")
    records = _read(header, "train", recipe, ranks, listener)
    for text in _expect_outlines(recipe, records):
        listener.message(text, "warning")
    recipe = _fit_batch(recipe, len(records.records), ranks, listener)
    recipe = _fit_anchors(recipe, records, listener)
    recipe = _weigh_classes(recipe, records, listener)
    mirrored = pose_flip_message(header, recipe.augment, task=recipe.data.task)
    if mirrored is not None:
        listener.message(mirrored, "warning")
    workers = recipe.train.workers
    workers = default_workers(device, ranks.world) if workers is None else workers
    loader = train_loader(
        records,
        recipe.data,
        recipe.augment,
        batch=recipe.train.batch,
        seed=recipe.train.seed,
        workers=workers,
        rank=ranks.rank,
        world=ranks.world,
        epochs=recipe.train.epochs,
        images=_images(records, recipe, listener),
        pin_memory=device.type == "cuda",
    )
    model = _build_model(recipe, device, weights, listener, header.names)
    _check_size(recipe.data.imgsz, max(model.strides))
    precision = choose_precision(recipe.train.precision, device)
    listener.message(precision.reason)
    stepper = _stepper(
        recipe, model, len(loader), len(records.records), precision.value, ranks, device, folder, listener
    )
    val_records = _read_val(header, recipe, ranks, listener)
    val = (
        None
        if val_records is None
        else _val_loader(val_records, recipe, workers, ranks, max(model.strides), device, listener)
    )
    return Parts(recipe, header, loader, val, records, val_records, model, stepper, precision.value, workers)


def _check(recipe: Recipe, ranks: Ranks) -> None:
    if not recipe.data.source:
        raise ConfigError(f"data.source: no dataset; expected {DATASETS}")
    if recipe.train.batch < ranks.world:
        raise ConfigError(
            f"train.batch: expected at least one image for each of {ranks.world} ranks, got {recipe.train.batch}"
        )


def _check_size(imgsz: int, stride: int) -> None:
    if imgsz < stride or imgsz % stride:
        low = max(imgsz // stride, 1) * stride
        raise ConfigError(
            f"data.imgsz: expected a multiple of {stride}, got {imgsz}; the closest are {low} and {low + stride}"
        )


def expect_labels(recipe: Recipe, header: DatasetHeader) -> tuple[str, ...]:
    """What the model will not learn of what the labels tell; a dataset that does not say agrees with any model.

    Raises:
        ConfigError: the model needs what the labels do not tell, or reads them in another way.
    """
    task = recipe.data.task
    if header.task is not None and TASKS[header.task].whole_image != TASKS[task].whole_image:
        raise ConfigError(
            f"data.task: expected '{header.task}', what the labels of {header.source} are made for, got '{task}'; "
            "choose a preset of that task"
        )
    _expect_exclusive(recipe, header)
    vocabulary = recipe.vocabulary(header.names)
    if TASKS[task].keypoints:
        _expect_keypoints(vocabulary.keypoints, header)
    return _expect_attributes(vocabulary.attributes, header)


def _expect_outlines(recipe: Recipe, records: Records) -> tuple[str, ...]:
    """How many objects a segment model would learn as their boxes.

    Raises:
        ConfigError: all of them.
    """
    if not TASKS[recipe.data.task].outlines:
        return ()
    outlined = [bool(outline) for record in records.records for outline in record.instances.polygons or ()]
    count = sum(len(record.instances) for record in records.records)
    without = count - sum(outlined)
    source = records.header.source
    if count and without == count:
        raise ConfigError(
            f"{source}: a segment model needs labels with outlines, and none of the {count} objects of the split "
            f"'{records.split}' has one; choose a preset for boxes (without -seg), or labels with polygons or masks"
        )
    if not without:
        return ()
    return (f"{source}: {without} of {count} objects of the split '{records.split}' have no outline; their masks are "
            "learned as their whole boxes",)  # fmt: skip


def _expect_keypoints(wanted: KeypointSpec | None, header: DatasetHeader) -> None:
    given = header.keypoints
    if given is None:
        raise ConfigError(
            f"{header.source}: a pose model needs labels with keypoints; expected kpt_shape in data.yaml, or a COCO "
            "file with keypoints"
        )
    if wanted is None or (wanted.count, wanted.dims) != (given.count, given.dims):
        has = "none" if wanted is None else f"{wanted.count} of {wanted.dims} numbers"
        raise ConfigError(
            f"model.head.keypoints: expected {given.count} keypoints of {given.dims} numbers as in {header.source}, "
            f"got {has}"
        )


def _expect_attributes(wanted: tuple[AttributeSpec, ...], header: DatasetHeader) -> tuple[str, ...]:
    given = {spec.name: spec for spec in header.attributes}
    for spec in wanted:
        if given.get(spec.name) != spec:
            told = f"has {list(given[spec.name].values)}" if spec.name in given else "does not have it"
            raise ConfigError(
                f"model.head.attributes: '{spec.name}' has the values {list(spec.values)}; {header.source} {told}"
            )
    left = [name for name in given if name not in {spec.name for spec in wanted}]
    if not left:
        return ()
    return (f"{header.source}: the model has no answer for the attributes {', '.join(left)}; they are not learned",)


def _expect_exclusive(recipe: Recipe, header: DatasetHeader) -> None:
    wanted = header.exclusive if recipe.data.exclusive is None else recipe.data.exclusive
    if not TASKS[recipe.data.task].whole_image and wanted is not None and recipe.exclusive != wanted:
        given = str(wanted).lower()
        who = f"{header.source} says (key 'exclusive')" if recipe.data.exclusive is None else "data.exclusive says"
        raise ConfigError(
            f"model.head.exclusive: expected {given}, what {who}, got "
            f"{str(recipe.exclusive).lower()}; it decides how classes are scored, in training and after"
        )


def _read(header: DatasetHeader, split: Split, recipe: Recipe, ranks: Ranks, listener: Listener) -> Records:
    """The split on every rank; rank 0 reads first and leaves a label cache for the others."""
    if not ranks.first:
        wait_for_all()
    with counted_stage(listener, f"reading {split} labels") as on_progress:
        records = read_split(header, split, recipe.data, on_progress)
    if ranks.first:
        wait_for_all()
    if not records.records:
        raise DataError(f"{header.source}: the split '{split}' holds no usable image")
    warned = any(problem.severity == "warning" for problem in records.report.problems)
    listener.message(summary_line(split, records.report), "warning" if warned else "info")
    return records


def _images(records: Records, recipe: Recipe, listener: Listener) -> ImageStore:
    """The pixels of a split; fills its cache here when the recipe asks for one."""
    if recipe.data.cache == "none":
        return ImageStore(records, recipe.data)
    with counted_stage(listener, f"caching {records.split} images in {recipe.data.cache}") as on_progress:
        store = ImageStore(records, recipe.data, on_progress)
    for text in store.messages:
        listener.message(text, "warning")
    return store


def _fit_batch(recipe: Recipe, images: int, ranks: Ranks, listener: Listener) -> Recipe:
    if recipe.train.batch <= images:
        return recipe
    if images < ranks.world:
        raise ConfigError(f"{recipe.data.source}: {images} training images cannot be shared by {ranks.world} ranks")
    listener.message(
        f"train.batch: {recipe.train.batch} is more than the {images} training images; using {images}", "warning"
    )
    return replace(recipe, train=replace(recipe.train, batch=images))


def _fit_anchors(recipe: Recipe, records: Records, listener: Listener) -> Recipe:
    """The recipe with anchors that reach the labels; the numbers are told either way."""
    head = getattr(recipe.model, "head", None)
    if not isinstance(head, AnchorBasedConfig) or not isinstance(recipe.criterion, Criterion):
        return recipe
    ratios = [rule.assigner.ratio for rule in recipe.criterion.rules.values() if isinstance(rule.assigner, AnchorRatio)]
    if not ratios:
        return recipe
    sizes = label_sizes(records.records, recipe.data.imgsz, seed=recipe.train.seed)
    report = check_anchors(sizes, head.anchors, ratio=ratios[0], seed=recipe.train.seed)
    listener.message(report.summary())
    if not recipe.train.autoanchor or not report.changed:
        return recipe
    return replace(recipe, model=replace(recipe.model, head=replace(head, anchors=report.anchors)))


def _weigh_classes(recipe: Recipe, records: Records, listener: Listener) -> Recipe:
    """The recipe with its class weights as numbers, from the labels of the training split."""
    names = records.header.names
    if not isinstance(recipe.criterion, Criterion):
        return recipe
    labels = np.concatenate([record.instances.labels for record in records.records])
    counts = np.bincount(labels, minlength=len(names)).tolist()
    criterion = recipe.criterion.with_class_counts(counts)
    for role, rule in criterion.rules.items():
        for name, weighted in rule.terms.items():
            vector = getattr(weighted.term, "class_weights", None)
            if vector is not None and len(vector) == len(names):
                held = (f"{of} {w:.4g} ({count})" for of, w, count in zip(names, vector, counts, strict=True))
                listener.message(f"class weights of {role}/{name} (labels in brackets): {', '.join(held)}")
    return replace(recipe, criterion=criterion)


def _build_model(
    recipe: Recipe, device: torch.device, weights: Path | None, listener: Listener, names: tuple[str, ...]
) -> Network:
    model = recipe.model.build()
    if weights is not None:
        report = load_weights(model, weights, strict=False, names=names)
        task = _task_of(weights)
        other = task is not None and task != recipe.data.task
        of = f"made for {task}, this run is for {recipe.data.task}: what fits is taken; " if other else ""
        listener.message(f"{weights}: {of}{report.summary()}", "warning" if other or report.mismatched else "info")
    freeze = recipe.train.freeze
    if freeze:
        layers = model.freeze(freeze, bn_eval=recipe.train.frozen_bn_eval)
        still = (
            "stay fixed" if recipe.train.frozen_bn_eval else "still follow the data (train.frozen_bn_eval fixes them)"
        )
        listener.message(f"frozen layers: {', '.join(map(str, layers))}; their batch statistics {still}")
    layout = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def _task_of(weights: Path) -> str | None:
    """The task a weights file was made for, if it says so."""
    try:
        return from_yaml(Recipe, read_metadata(weights)["recipe"], source=str(weights)).data.task
    except (CheckpointError, ConfigError, KeyError):
        return None


def _stepper(
    recipe: Recipe,
    model: Network,
    batches: int,
    images: int,
    precision: Resolved,
    ranks: Ranks,
    device: torch.device,
    folder: Path,
    listener: Listener,
) -> Stepper:
    config = recipe.train
    choice = choose_optimizer(config, images=images, num_classes=model.num_classes)
    decay = scaled_decay(config.weight_decay, config.batch, config.nominal_batch)
    warmup = warmup_iterations(config.warmup_epochs, batches, config.epochs, config.warmup_floor)
    listener.message(f"{choice.reason}, weight_decay={decay:g} (train.weight_decay scaled to the images per step)")
    if warmup:
        cap = " (capped at half of the run)" if warmup == batches * config.epochs // 2 else ""
        listener.message(f"warm-up: {warmup} of {batches * config.epochs} iterations{cap}")
    schedule = Schedule(
        epochs=config.epochs,
        batches=batches,
        batch=config.batch,
        nominal_batch=config.nominal_batch,
        lr0=choice.lr0,
        lrf=config.lrf,
        shape=config.schedule,
        warmup=warmup,
        warmup_bias_lr=choice.warmup_bias_lr,
        warmup_momentum=config.warmup_momentum,
        momentum=choice.momentum,
    )
    few = few_steps_message(schedule, images)
    if few is not None:
        listener.message(few, "warning")
    return Stepper(
        model,
        recipe.criterion,
        build_optimizer(model, choice, decay, config.backbone_lr),
        schedule,
        Ema(model, config.ema_decay, config.ema_warmup),
        gradient_scaler(precision),
        StepSettings(
            device=device,
            precision=precision,
            channels_last=config.channels_last,
            clip_norm=config.clip_norm,
            multi_scale=config.multi_scale,
            seed=config.seed,
            ranks=ranks,
            folder=folder,
        ),
    )


def _read_val(header: DatasetHeader, recipe: Recipe, ranks: Ranks, listener: Listener) -> Records | None:
    if "val" in header.splits:
        return _read(header, "val", recipe, ranks, listener)
    listener.message(
        f"{header.source}: no validation split; training without metrics, 'best' is the last epoch", "warning"
    )
    return None


def _val_loader(
    records: Records, recipe: Recipe, workers: int, ranks: Ranks, stride: int, device: torch.device, listener: Listener
) -> BatchLoader:
    batch = recipe.evaluation.batch or 2 * recipe.train.batch
    return val_loader(
        records,
        recipe.data,
        batch=max(min(batch, len(records.records)), ranks.world),
        workers=workers,
        rank=ranks.rank,
        world=ranks.world,
        stride=stride,
        images=_images(records, recipe, listener),
        pin_memory=device.type == "cuda",
    )
