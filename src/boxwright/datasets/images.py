# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Image files as RGB pixels, upright, whatever is inside the file. Imports no torch, writes nothing.

Source: spec/datasets 6. Orientation is applied here and not by OpenCV, whose versions differ in which types
they rotate; TIFF is the exception, which OpenCV always turns upright itself. A TIFF with transparency loses the
hidden colour of transparent pixels, because OpenCV multiplies it with alpha while decoding.
"""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.datasets import codes
from boxwright.datasets.codes import Code, Severity
from boxwright.datasets.image_header import HeaderError, ImageHeader, read_header
from boxwright.datasets.policy import ImagePolicy
from boxwright.datasets.sample import Problem
from boxwright.errors import DataError

DEFAULT_POLICY = ImagePolicy()
_END_OF_IMAGE = b"\xff\xd9"
_NOISE = b"\x55\x9a\x33\xc7" * 2000  # no 0xFF, so it can only be read as pixels
_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".mpo"),
    "png": (".png",),
    "bmp": (".bmp",),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "pfm": (".pfm",),
}


def read_image(
    path: Path, policy: ImagePolicy = DEFAULT_POLICY, min_long_side: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of an image file, upright.

    With `min_long_side` a JPEG may come back at 1/2, 1/4 or 1/8 of its size, as long as its long side keeps that many
    pixels: the decoder then does a part of the shrinking, faster and without aliasing.

    Raises:
        DataError: the file is missing, not an image, damaged or above the limits of the policy.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return decode(data, policy, min_long_side)
    except HeaderError as error:
        raise DataError(f"{path}: {error}") from None


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) px of an upright image file, from its header alone.

    Raises:
        DataError: the file is missing or not an image.
    """
    try:
        with path.open("rb") as file:
            return read_header(file).size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except HeaderError as error:
        raise DataError(f"{path}: {error}") from None


def decode(
    data: bytes, policy: ImagePolicy = DEFAULT_POLICY, min_long_side: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels of the bytes of an image file; see `read_image`.

    Raises:
        HeaderError: not an image, damaged, or above the limits.
    """
    header = read_header(io.BytesIO(data))
    refusal = _refusal(header, policy)
    if refusal:
        raise HeaderError(*refusal)
    if header.type == "jpeg" and not header.complete:
        if policy.truncated == "drop" and not _all_pixels_there(data):
            raise HeaderError(codes.IMAGE_TRUNCATED, "the JPEG is cut off before its last pixels")
        data = _ended(data)
    return _upright(_pixels(data, header, policy, min_long_side), header)


def _pixels(data: bytes, header: ImageHeader, policy: ImagePolicy, min_long_side: int | None) -> np.ndarray:
    if header.type == "pfm" or header.bits == 16 or policy.alpha == "composite":
        return _to_rgb8(_imdecode(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION), policy)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if min_long_side is not None and header.type == "jpeg":
        flags |= _reduction(max(header.stored), min_long_side)
    return _imdecode(data, flags)


def _imdecode(data: bytes, flags: int) -> np.ndarray:
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise HeaderError(codes.IMAGE_CORRUPT, "the pixels cannot be decoded: the file is damaged or cut off")
    return np.asarray(pixels)


def _reduction(long_side: int, wanted: int) -> int:
    """The reduced-decoding flag for the smallest size that still has `wanted` px, 0 for full size."""
    for factor, flag in ((8, 64), (4, 32), (2, 16)):  # the IMREAD_REDUCED_* bits without their colour bit
        if -(-long_side // factor) >= wanted:
            return flag
    return 0


def _upright(pixels: np.ndarray, header: ImageHeader) -> np.ndarray:
    if header.orientation == 1 or header.type == "tiff":
        return pixels
    if header.orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(header.orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)


def _to_rgb8(pixels: np.ndarray, policy: ImagePolicy) -> np.ndarray:
    """RGB of unchanged OpenCV pixels: 1, 3 or 4 channels (BGR order) of 8 or 16 bits or floats in [0, 1]."""
    if pixels.ndim == 2:
        pixels = pixels[..., None].repeat(3, axis=2)
    colour, alpha = pixels[..., 2::-1], pixels[..., 3:4]
    if colour.dtype == np.uint16:
        colour = _by_percentile(colour) if policy.depth16 == "percentile" else colour >> 8
        alpha = alpha >> 8
    elif colour.dtype != np.uint8:
        colour = np.nan_to_num(colour, nan=0.0) * 255
        alpha = alpha[..., :0]  # a fourth float channel has no agreed scale
    if alpha.shape[2] and policy.alpha == "composite":
        weight = alpha.astype(np.float32) / 255
        colour = colour * weight + 255 * (1 - weight)
    return np.ascontiguousarray(np.clip(np.rint(colour), 0, 255).astype(np.uint8))


def _by_percentile(colour: np.ndarray) -> np.ndarray:
    low, high = np.percentile(colour, (1, 99))
    return np.asarray((colour.astype(np.float32) - low) * (255 / max(high - low, 1)))


def _ended(data: bytes) -> bytes:
    """A JPEG with an end marker put behind its last usable bytes."""
    if cv2.imdecode(np.frombuffer(data + _END_OF_IMAGE, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is None:
        # Cut inside the tables of a later scan of a progressive file: end before that scan.
        data = data[: max(data.rfind(b"\xff\xc4"), data.rfind(b"\xff\xda"))]
    return data + _END_OF_IMAGE


def _all_pixels_there(data: bytes) -> bool:
    """Whether a JPEG without an end marker lacks only that marker.

    Bytes behind the last pixel cannot change the picture; where pixels are missing, noise is read as pixels.
    """
    ended, noisy = (
        cv2.imdecode(np.frombuffer(data + tail, np.uint8), cv2.IMREAD_GRAYSCALE)
        for tail in (_END_OF_IMAGE, _NOISE + _END_OF_IMAGE)
    )
    return ended is not None and noisy is not None and np.array_equal(ended, noisy)


def _refusal(header: ImageHeader, policy: ImagePolicy) -> tuple[Code, str] | None:
    height, width = header.size
    mebibytes = height * width * 3 * max(1, header.bits // 8) / 2**20
    if height * width > policy.max_pixels or mebibytes > policy.max_decoded_mib:
        return codes.IMAGE_TOO_LARGE, (
            f"{width} x {height} px need {mebibytes:,.0f} MiB; the limits are {policy.max_pixels:,} px and "
            f"{policy.max_decoded_mib} MiB (data.image.max_pixels, data.image.max_decoded_mib)"
        )
    if min(height, width) < policy.min_side:
        return codes.IMAGE_TOO_SMALL, f"{width} x {height} px; the shorter side needs at least {policy.min_side} px"
    return None


def inspect_image(path: Path, name: str, policy: ImagePolicy) -> tuple[ImageHeader | None, list[Problem]]:
    """The header of an image that can be used, or None, and what there is to say about the file.

    Pixels are decoded only where the header leaves a doubt, or for every file with `policy.verify = "decode"`.
    """
    try:
        with path.open("rb") as file:
            header = read_header(file)
        refusal = _refusal(header, policy)
        if refusal:
            raise HeaderError(*refusal)
        if not header.complete or policy.verify == "decode":
            decode(path.read_bytes(), policy)
    except FileNotFoundError:
        return None, [_dropped(name, codes.IMAGE_MISSING, "listed, but there is no such file")]
    except OSError as error:
        return None, [_dropped(name, codes.IMAGE_UNREADABLE, f"cannot be read: {error.strerror}")]
    except HeaderError as error:
        return None, [_dropped(name, error.code, str(error))]
    return header, _remarks(path, name, header, policy)


def _dropped(name: str, code: Code, message: str) -> Problem:
    return Problem(name, None, code, message, "image dropped")


def _remarks(path: Path, name: str, header: ImageHeader, policy: ImagePolicy) -> list[Problem]:
    remarks: list[tuple[Code, str, Severity]] = []
    if not header.complete and header.type == "jpeg":
        message = "the JPEG has no end marker; all its pixels are there or were filled with grey"
        remarks.append((codes.IMAGE_NO_END_MARKER, message, "note"))
    if header.trailing and header.frames == "one":
        remarks.append((codes.IMAGE_TRAILING_BYTES, "bytes follow the end of the image; they are ignored", "note"))
    if path.suffix.lower() not in _SUFFIXES[header.type]:
        remarks.append(
            (codes.SUFFIX_MISMATCH, f"the content is {header.type}, not {path.suffix!r}; read as such", "note")
        )
    if header.bits == 16 and policy.depth16 == "high_byte":
        message = "16 bits per channel: only the high byte is used; data.image.depth16=percentile stretches instead"
        remarks.append((codes.IMAGE_16BIT, message, "warning"))
    if header.frames == "several":
        severity: Severity = "note" if header.type == "jpeg" else "warning"  # phones add a second picture to a JPEG
        remarks.append((codes.IMAGE_SEVERAL_FRAMES, "several frames; only the first is used", severity))
    return [Problem(name, None, code, message, "none", severity) for code, message, severity in remarks]
