# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What an importer found out about a checkpoint before any network is built."""

from dataclasses import dataclass

from boxwright.vocabulary import TaskName


@dataclass(frozen=True, slots=True)
class Origin:
    """A family and the numbers that its tensors tell."""

    family: str  # "yolov8"
    task: TaskName
    num_classes: int
    keypoint_numbers: int = 0  # of one object, keypoints times the numbers of each
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()  # by level, (width, height) in cells
    layers: int = 0  # of the published table, with the head
    eps: float = 1e-3  # of batch norms, where the file does not say
    gaps: bool = False  # parts of our network may have no counterpart
    part: str = ""  # "backbone" where the file holds no detector

    @property
    def presets(self) -> str:
        """A pattern that names of the family's presets begin with."""
        return "yolov5.u" if self.family == "yolov5u" else self.family
