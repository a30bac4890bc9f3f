# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Batches for training and validation, from any number of worker processes and ranks.

Which images a batch holds and how each looks follows from (seed, epoch, index) alone: two workers, two ranks or a
resumed run see exactly what one process sees.
"""

import signal
import sys
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset, get_worker_info

from boxwright.datasets.instances import move, scaling
from boxwright.datasets.policy import DataConfig, Fit
from boxwright.datasets.sample import Records, Sample
from boxwright.errors import BoxwrightError, ConfigError, DataError
from boxwright.loading.augment.classify import build_image_sample
from boxwright.loading.augment.geometry import apply_letterbox
from boxwright.loading.augment.pipeline import AugmentConfig, build_sample, sample_generator
from boxwright.loading.collate import Batch, PackedBatch, TargetLayout, pack
from boxwright.loading.image_store import ImageStore
from boxwright.loading.plan import global_batches, rank_share, validation_shape
from boxwright.ops.letterbox import Letterbox, centre_crop, letterbox, stretch
from boxwright.vocabulary import TASKS

# Partners of a mosaic come from this many neighbours in the epoch's order: with them in memory an image is decoded
# about once per epoch and process instead of four times. The peer draws them from a buffer of as many recent images.
PARTNER_WINDOW = 128
RECENT_BYTES = 256 * 2**20  # decoded images each process keeps for that


@runtime_checkable
class Images(Protocol):
    """What the loaders need of an `ImageStore`."""

    def resized(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The image as `ImageStore.resized` gives it."""
        ...


class _Recent:
    """The samples loaded last, up to a number of bytes; the oldest go first."""

    def __init__(self, load: Callable[[int], Sample], limit: int) -> None:
        self._load, self._limit, self._bytes = load, limit, 0
        self._kept: OrderedDict[int, Sample] = OrderedDict()

    def __call__(self, index: int) -> Sample:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        sample = self._load(index)
        self._kept[index] = sample
        self._bytes += sample.image.nbytes
        while self._bytes > self._limit:
            self._bytes -= self._kept.popitem(last=False)[1].image.nbytes
        return sample


def load_sample(records: Records, images: Images, index: int) -> Sample:
    """Image `index` as the store resizes it, and its objects in the same pixels.

    Raises:
        DataError: the image cannot be used; the message starts with its path.
    """
    record = records.records[index]
    try:
        image = images.resized(index)
    except BoxwrightError:
        raise
    except Exception as error:
        raise DataError(f"{record.image}: cannot be loaded: {type(error).__name__}: {error}") from error
    gain_y, gain_x = image.shape[0] / record.size[0], image.shape[1] / record.size[1]
    return Sample(image, move(record.instances, scaling((gain_x, gain_y))), index, record.image_label)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error on its way out of a worker, so that the parent raises it as it was."""

    error: Exception
    trace: str


class _Batches(Dataset[PackedBatch | _Failure]):
    """One item is one whole batch of this rank; runs in the workers."""

    def __init__(self, build: Callable[[tuple[int, int], bool], PackedBatch]) -> None:
        self._build = build

    def __getitem__(self, key: tuple[int, int]) -> PackedBatch | _Failure:
        in_worker = get_worker_info() is not None
        try:
            return self._build(key, in_worker)
        except Exception as error:
            if not in_worker:
                raise
            return _Failure(error, traceback.format_exc())


class _TrainBuild:
    """Draws the training batches of one rank."""

    def __init__(
        self, records: Records, data: DataConfig, augment: AugmentConfig, images: Images, shares: list[range],
        seed: int, epochs: int,
    ) -> None:  # fmt: skip
        self._records, self._data, self._augment, self._shares = records, data, augment, shares
        self._seed, self._epochs = seed, epochs
        self._layout = TargetLayout.of(data, records.header)
        load = partial(load_sample, records, images)
        self._load = load if data.cache == "ram" else _Recent(load, RECENT_BYTES)
        self._order = (-1, np.zeros(0, np.int64))

    def order(self, epoch: int) -> np.ndarray:
        """Dataset indices in the order of this epoch."""
        if self._order[0] != epoch:
            stream = np.random.default_rng(np.random.SeedSequence([self._seed, epoch]))
            self._order = epoch, stream.permutation(len(self._records.records))
        return self._order[1]

    def __call__(self, key: tuple[int, int], shared: bool) -> PackedBatch:
        epoch, number = key
        order, positions = self.order(epoch), self._shares[number]
        paths = [str(self._records.records[order[position]].image) for position in positions]
        size = (self._data.imgsz, self._data.imgsz)
        samples = (self._draw(epoch, position) for position in positions)
        return pack(samples, paths, size, shared=shared, layout=self._layout)

    def _draw(self, epoch: int, position: int) -> Sample:
        order = self.order(epoch)
        index = int(order[position])
        first = min(max(position - PARTNER_WINDOW // 2, 0), max(len(order) - PARTNER_WINDOW, 0))
        rng = sample_generator(self._seed, epoch, index)
        imgsz, config = self._data.imgsz, self._augment
        try:
            if TASKS[self._data.task].whole_image:
                return build_image_sample(self._load(index), imgsz=imgsz, config=config, rng=rng, fit=self._data.fit)
            return build_sample(
                self._load,
                index,
                imgsz=imgsz,
                config=config,
                rng=rng,
                partners=order[first : first + PARTNER_WINDOW].tolist(),
                mosaic=not config.mosaic_closed(epoch, self._epochs),
                keypoints=self._records.header.keypoints if TASKS[self._data.task].keypoints else None,
            )
        except BoxwrightError:
            raise
        except Exception as error:
            image = self._records.records[index].image
            raise DataError(f"{image}: cannot be augmented: {type(error).__name__}: {error}") from error


class _ValidationBuild:
    """Places the images of one rank's validation batches."""

    def __init__(
        self, records: Records, data: DataConfig, images: Images, order: list[int], shares: list[range],
        shapes: list[tuple[int, int]],
    ) -> None:  # fmt: skip
        self._records, self._images, self._fit = records, images, data.fit
        self._order, self._shares, self._shapes = order, shares, shapes
        self._layout = TargetLayout.of(data, records.header)

    def __call__(self, key: tuple[int, int], shared: bool) -> PackedBatch:
        number = key[1]
        indices = [self._order[position] for position in self._shares[number]]
        target = self._shapes[number]
        records = [self._records.records[index] for index in indices]
        letterboxes: list[Letterbox] = []
        samples = (self._place(index, target, letterboxes) for index in indices)
        # Taken one by one: a list of whole images would be a second batch in memory.
        paths = [str(record.image) for record in records]
        packed = pack(samples, paths, target, truths=records, shared=shared, layout=self._layout)
        return replace(packed, letterboxes=tuple(letterboxes))

    def _place(self, index: int, target: tuple[int, int], letterboxes: list[Letterbox]) -> Sample:
        sample = load_sample(self._records, self._images, index)
        height, width = sample.image.shape[:2]
        record = self._records.records[index]
        inner, whole = _placements((height, width), record.size, target, self._fit)
        letterboxes.append(whole)
        gain_y, gain_x = whole.gain
        objects = move(record.instances, scaling((gain_x, gain_y), (whole.left, whole.top)))
        return Sample(apply_letterbox(sample.image, inner), objects, index, record.image_label)


def _placements(
    kept: tuple[int, int], original: tuple[int, int], target: tuple[int, int], fit: Fit
) -> tuple[Letterbox, Letterbox]:
    """From the size the store keeps to the network input, and from the original straight to the same place."""
    if fit == "stretch":
        return stretch(kept, target), stretch(original, target)
    if fit == "crop":
        whole = centre_crop(original, target[0])
        return Letterbox(kept, target, whole.resized, whole.top, whole.left), whole
    inner = letterbox(kept, target, scaleup=False)
    # From the original straight to the input: the two resizes in one.
    return inner, Letterbox(original, target, inner.resized, inner.top, inner.left)


class _Keys:
    """What the workers are asked for: (epoch, number of the batch)."""

    def __init__(self, count: int) -> None:
        self.count, self.epoch, self.start = count, 0, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, number) for number in range(self.start, self.count))

    def __len__(self) -> int:
        return self.count - self.start


class BatchLoader:
    """Iterates over the batches of one rank; every rank has as many, and each of its batches holds an image."""

    def __init__(
        self, build: Callable[[tuple[int, int], bool], PackedBatch], count: int, *, workers: int, persistent: bool,
        pin_memory: bool,
    ) -> None:  # fmt: skip
        self._keys = _Keys(count)
        with _known_warnings():
            self._loader: DataLoader[Any] = DataLoader(
                _Batches(build),
                batch_size=None,
                sampler=self._keys,
                num_workers=workers,
                collate_fn=_unchanged,
                worker_init_fn=_prepare_worker,
                persistent_workers=persistent and workers > 0,
                pin_memory=pin_memory,
                multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
                generator=torch.Generator(),  # otherwise torch's loader would advance the global one
            )

    def __len__(self) -> int:
        return self._keys.count

    def __iter__(self) -> Iterator[Batch]:
        with _known_warnings():
            items = iter(self._loader)
        for item in items:
            if isinstance(item, _Failure):
                item.error.add_note(f"in a loader process:\n{item.trace}")
                raise item.error
            yield item.unpack()


class TrainLoader(BatchLoader):
    """Shuffled, augmented batches; call `set_epoch` before each epoch."""

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Chooses the epoch (from 0) that the next iteration delivers, from batch `start` on.

        Batches are those of an uninterrupted run, so a resumed run continues exactly.
        """
        self._keys.epoch, self._keys.start = epoch, start


def train_loader(
    records: Records,
    data: DataConfig,
    augment: AugmentConfig,
    *,
    batch: int,
    seed: int,
    workers: int,
    epochs: int,
    rank: int = 0,
    world: int = 1,
    images: Images | None = None,
    pin_memory: bool = False,
) -> TrainLoader:
    """Training batches of this rank. `batch` counts images over all ranks; `images` replaces the store in tests.

    Raises:
        DataError: the split has no image.
        ConfigError: fewer images in a batch than ranks, or `fit` is not for this task.
    """
    _check_fit(data)
    batches = global_batches(len(records.records), batch, world)
    shares = [rank_share(positions, rank, world) for positions in batches]
    build = _TrainBuild(records, data, augment, images or ImageStore(records, data), shares, seed, epochs)
    return TrainLoader(build, len(batches), workers=workers, persistent=True, pin_memory=pin_memory)


def val_loader(
    records: Records,
    data: DataConfig,
    *,
    batch: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    stride: int = 32,
    images: Images | None = None,
    pin_memory: bool = False,
    square: bool = False,
) -> BatchLoader:
    """Validation batches of this rank with letterboxes and truths.

    Letterboxed images are ordered by aspect ratio and share the smallest rectangle; others, and all of them where
    `square` is set, stay in order, in squares.

    Raises:
        DataError: the split has no image.
        ConfigError: fewer images in a batch than ranks, or `fit` is not for this task.
    """
    _check_fit(data)
    aspects = [record.size[0] / record.size[1] for record in records.records]
    rectangles = data.fit == "letterbox" and not TASKS[data.task].whole_image and not square
    order = sorted(range(len(aspects)), key=aspects.__getitem__) if rectangles else list(range(len(aspects)))
    batches = global_batches(len(order), batch, world)
    shapes = [(data.imgsz, data.imgsz)] * len(batches)
    if rectangles:
        shapes = [validation_shape([aspects[order[p]] for p in positions], data.imgsz, stride) for positions in batches]
    shares = [rank_share(positions, rank, world) for positions in batches]
    build = _ValidationBuild(records, data, images or ImageStore(records, data), order, shares, shapes)
    return BatchLoader(build, len(batches), workers=workers, persistent=False, pin_memory=pin_memory)


def _check_fit(data: DataConfig) -> None:
    if data.fit == "crop" and not TASKS[data.task].whole_image:
        raise ConfigError(
            f"data.fit: 'crop' cuts objects off and is for data.task=classify, got task '{data.task}'; "
            "choose letterbox or stretch"
        )


@contextmanager
def _known_warnings() -> Iterator[None]:
    """Silences what torch and Python say of workers that are started on purpose."""
    with warnings.catch_warnings():
        # The number of workers is the user's choice, even above the number of cores.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        # Python 3.12 warns of fork beside threads; the workers use neither torch's nor OpenCV's.
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        yield


def _unchanged(item: Any) -> Any:
    return item


def _prepare_worker(worker: int) -> None:
    # The parent handles Ctrl-C and ends its workers; torch's own watchdog ends them when the parent is gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)
