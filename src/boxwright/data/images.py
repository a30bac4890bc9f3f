# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Image files as RGB pixels, upright, whatever is inside the file. No torch, no write access."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from boxwright.data.policy import ImagePolicy


def read_image(path: Path, policy: ImagePolicy = ImagePolicy(), at_most: int | None = None) -> UInt8[np.ndarray, "h w 3"]:  # noqa: B008
    """RGB pixels of an image file, rotated as its EXIF orientation says."""
    raise NotImplementedError


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) px after EXIF rotation, from the header alone."""
    raise NotImplementedError
