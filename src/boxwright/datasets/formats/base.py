# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a dataset format is: it tells what a source holds, lists its images, reads the labels of each, writes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from boxwright.datasets import codes
from boxwright.datasets.formats.job import Holds, Job
from boxwright.datasets.image_header import ImageHeader
from boxwright.datasets.policy import DataConfig
from boxwright.datasets.sample import DatasetHeader, Instances, Problem, Split

LabelState = Literal["found", "empty", "missing", "unreadable"]  # unreadable: the image cannot be used


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a split and where its labels are."""

    image: Path  # file to open
    label: Path | None  # file to open; None: there is none, the image is background
    image_name: str  # as problems name it: relative to the dataset's root where possible
    label_name: str
    content: object = None  # what a file that holds the labels of all images says of this one, parsed


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a split, in a fixed order, and what was found while looking for them."""

    items: tuple[Item, ...]
    problems: tuple[Problem, ...]
    dropped: int = 0  # images that were found but refused


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one image, fixed in memory."""

    instances: Instances  # px of the upright image
    state: LabelState = "found"
    rows: int = 0
    dropped: int = 0
    fixed: int = 0
    duplicates: int = 0
    problems: tuple[Problem, ...] = ()
    image_label: int | None = None  # class of the whole image, for classification
    left_out: Mapping[str, int] = field(default_factory=dict)  # what the file tells and `instances` does not, counted


def read_label_file(item: "Item") -> bytes | Labels:
    """The bytes of an image's label file, or what its absence means: background where there is none.

    A file that cannot be read drops its image.
    """
    if item.label is None:
        return Labels(Instances.empty(), "missing")
    try:
        return item.label.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        problem = Problem(item.label_name, None, codes.LABEL_UNREADABLE, message, "image dropped")
        return Labels(Instances.empty(), "unreadable", problems=(problem,))


@runtime_checkable
class Format(Protocol):
    """A format. Stateless; `version` is part of the label cache's key and grows when `read` changes its answer."""

    @property
    def name(self) -> str:
        """What `DatasetHeader.format` says."""
        ...

    @property
    def version(self) -> int:
        """Version of the answers of `read`."""
        ...

    def detect(self, source: Path) -> bool:
        """Whether `source` looks like this format; cheap, never raises."""
        ...

    def header(self, source: Path, names: Sequence[str] | None) -> DatasetHeader:
        """What the dataset says about itself; `names` replaces its class names where labels carry names.

        Raises:
            DataError: the description is incomplete or wrong.
        """
        ...

    def items(self, header: DatasetHeader, split: Split, config: DataConfig) -> Listing:
        """Images of a split, sorted.

        Raises:
            DataError: the split does not exist.
        """
        ...

    def read(self, item: Item, image: ImageHeader, header: DatasetHeader, config: DataConfig) -> Labels:
        """The labels of one image. Findings are returned, never raised."""
        ...

    @property
    def holds(self) -> Holds:
        """The tasks whose labels it can be written for, and what it keeps of objects; empty where it is only read."""
        ...

    @property
    def write(self) -> Callable[[Job], str] | None:
        """Fills the job's folder; returns what to name as the new dataset, relative to it. None: it is only read."""
        ...


def shown(path: Path, root: Path) -> str:
    """A path as problems name it: relative to the dataset where it lies inside."""
    text, prefix = path.as_posix(), root.as_posix().rstrip("/") + "/"
    return text.removeprefix(prefix)
