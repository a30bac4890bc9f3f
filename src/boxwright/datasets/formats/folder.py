# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Classification folders, read and written: `train/<class name>/<images>`, `val/<class name>/<images>`.

Source: spec/datasets 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.datasets import codes
from boxwright.datasets.formats.base import Item, Labels, Listing, shown
from boxwright.datasets.formats.job import Holds, Job
from boxwright.datasets.formats.listing import list_folder, reach
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Instances, Problem, Split
from boxwright.errors import DataError
from boxwright.vocabulary import task_with

_SPLITS: tuple[tuple[Split, tuple[str, ...]], ...] = (
    ("train", ("train",)),
    ("val", ("val", "validation", "valid")),
    ("test", ("test",)),
)
_NOT_CLASSES = frozenset(("images", "labels", "annotations", "labelTxt"))  # folders of other formats


@dataclass(frozen=True, slots=True)
class Folder:
    """Images sorted into one folder for each class."""

    name: str = "folder"
    version: int = 1

    @property
    def holds(self) -> Holds:
        """Classes of whole images."""
        return {task_with(whole_image=True): frozenset()}

    def detect(self, source: Path) -> bool:
        """A folder whose `train` has folders, none of which belongs to another format."""
        classes = _classes(source / "train") if source.is_dir() else []
        return bool(classes) and not _NOT_CLASSES & set(classes)

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """Classes are the sorted names of train's folders, or `names` in their order.

        Raises:
            DataError: there is nothing to validate on, or a folder is no class of the train split.
        """
        problems: list[Problem] = []
        splits: dict[Split, tuple[Path, ...]] = {}
        for split, choices in _SPLITS:
            place = next((source / name for name in choices if reach(source / name).is_dir()), None)
            if place is not None:
                splits[split] = (place,)
        if "val" not in splits:
            if "test" not in splits:
                raise DataError(f"{source}: there is no val folder (nor test); expected val/<class name>/ beside train")
            splits = {"train": splits["train"], "val": splits["test"], "test": splits["test"]}
            message = "there is no val folder; test is used as val"
            problems.append(Problem(source.name, None, codes.TEST_AS_VAL, message, "none"))
        chosen = tuple(names) if names else tuple(_classes(splits["train"][0]))
        for split, (place,) in splits.items():
            problems += _compare(split, place, chosen)
        return DatasetHeader(
            "folder", source, source, chosen, tuple(range(len(chosen))), splits, tuple(problems),
            task=task_with(whole_image=True), exclusive=True,
        )  # fmt: skip

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """The images below each class's folder."""
        items: list[Item] = []
        problems: list[Problem] = []
        dropped = 0
        for place in header.splits[split]:
            for label, name in enumerate(header.names):
                if not reach(place / name).is_dir():
                    continue
                found = list_folder(place / name, header.root, config.follow_links)
                problems += found.problems
                dropped += found.dropped
                for image in found.images:
                    text = shown(image, header.root)
                    items.append(Item(reach(image.parent) / image.name, None, text, text, label))
        return Listing(tuple(items), tuple(problems), dropped)

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """The class of the folder that the image lies in."""
        assert isinstance(item.content, int)
        return Labels(Instances.empty(), "found", rows=1, image_label=item.content)

    def write(self, job: Job) -> str:
        """Writes `<split>/<class name>/<images>`; the folder itself is the dataset.

        Raises:
            DataError: labels without images are asked for.
        """
        if job.images == "none":
            raise DataError("convert: in a classification folder the images are the labels; use --images copy or link")
        for part in job.parts:
            for split in part.splits:
                for name in job.header.names:
                    (job.folder / split / name).mkdir(parents=True)
                for record in part.records:
                    assert record.image_label is not None  # the task says so
                    place = f"{split}/{job.header.names[record.image_label]}"
                    job.place(record, place, place)
        return "."


def _classes(place: Path) -> list[str]:
    """Names of the folders in a split, without hidden ones."""
    real = reach(place)
    if not real.is_dir():
        return []
    return sorted(entry.name for entry in real.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _compare(split: Split, place: Path, names: tuple[str, ...]) -> list[Problem]:
    """What the folders of a split have more or less than the classes."""
    there = _classes(place)
    extra = [name for name in there if name not in names]
    if extra:
        raise DataError(f"{place}: {_few(extra)}: not among the classes of train; expected {_few(list(names))}")
    missing = [name for name in names if name not in there]
    if not missing:
        return []
    message = f"{len(missing)} of {len(names)} classes have no folder in {split}: {_few(missing)}"
    return [Problem(place.name, None, codes.CLASS_FOLDER_MISSING, message, "none")]


def _few(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
