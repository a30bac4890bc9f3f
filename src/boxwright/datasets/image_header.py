# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the first bytes of an image file say: type, size, orientation, depth, frames, and whether its end is there.

Reads a few hundred bytes per file and never decodes pixels, so that a huge or hostile file costs nothing.
Not left to Pillow, which is no dependency: to tell the size of a WebP file it reads all of it and reserves its canvas
(1.1 GiB for a file of 250 kB that says 12000 x 12000), it has no colour PFM, does not tell the depth of a 16-bit RGB
PNG nor whether the end of a BMP or TIFF is there, and a header takes it two to nine times as long.
Sources: ITU-T T.81 (JPEG), Exif 2.32, PNG specification 3rd edition, WebP container specification, TIFF 6.0, BMP.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Literal

from boxwright.datasets import codes
from boxwright.datasets.codes import Code

ImageType = Literal["jpeg", "png", "bmp", "webp", "tiff", "pfm"]

_TAIL = 4096  # bytes searched for an end marker; cameras append small blocks behind it
_MAX_SEGMENTS = 1000  # markers or chunks before the pixels; real files have fewer than 100


class HeaderError(ValueError):
    """The file is not an image of a type that can be read; the message says what it is instead."""

    def __init__(self, code: Code, message: str):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Facts about an image file before decoding."""

    type: ImageType
    stored: tuple[int, int]  # (height, width) px as stored
    orientation: int = 1  # EXIF, 1..8
    bits: int = 8  # per channel
    frames: Literal["one", "several"] = "one"
    complete: bool = True  # the end of the file is where it should be; False only says "decode to find out"
    trailing: bool = False  # bytes follow the end marker

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) px when upright."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)


def read_header(file: BufferedIOBase) -> ImageHeader:
    """The header of an open image file.

    Raises:
        HeaderError: not an image, a type that is not read (GIF, PDF, SVG, HEIC, ...), or damaged before the pixels.
    """
    start = file.read(64)
    size = file.seek(0, os.SEEK_END)
    if not start:
        raise HeaderError(codes.IMAGE_EMPTY, "the file has no bytes")
    for magic, parse in _PARSERS:
        if start.startswith(magic) and (magic != b"RIFF" or start[8:12] == b"WEBP"):
            try:
                return parse(file, size)
            except (struct.error, IndexError, ValueError, OverflowError) as error:
                if isinstance(error, HeaderError):
                    raise
                raise HeaderError(codes.IMAGE_CORRUPT, "the header is damaged or cut off") from None
    raise _not_an_image(start)


def _not_an_image(start: bytes) -> HeaderError:
    for magic, name in _REFUSED:
        if start.startswith(magic) or (magic == b"ftyp" and start[4:8] == magic):
            return HeaderError(codes.IMAGE_UNSUPPORTED, f"the content is {name}, which is not read for training")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")):
        return HeaderError(codes.IMAGE_UNSUPPORTED, "the content is SVG or XML, which is not read for training")
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body")):
        return HeaderError(codes.NOT_AN_IMAGE, "the content is an HTML page; the download probably failed")
    if all(byte >= 32 or byte in b"\t\r\n" for byte in start):
        return HeaderError(
            codes.NOT_AN_IMAGE, f"the content is text, starting with {start[:20].decode(errors='replace')!r}"
        )
    return HeaderError(codes.NOT_AN_IMAGE, f"the content is of no known image type, starting with {start[:8].hex(' ')}")


def _exact(file: BufferedIOBase, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise HeaderError(codes.IMAGE_CORRUPT, "the file ends before its header does")
    return data


# -- JPEG ----------------------------------------------------------------------------------------------------------


def _jpeg(file: BufferedIOBase, size: int) -> ImageHeader:
    stored: tuple[int, int] | None = None
    orientation, frames, bits = 1, False, 8
    for marker, length in _jpeg_segments(file):
        if marker == 0xDA:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack(">BHH", _exact(file, 5))
            stored = (height, width)
        elif marker == 0xE1 and length > 14 and orientation == 1:
            data = _exact(file, min(length, 65536))
            if data.startswith(b"Exif\0\0"):
                orientation = exif_orientation(data[6:])
        elif marker == 0xE2 and length > 4:
            frames = frames or _exact(file, 4) == b"MPF\0"
    if stored is None or 0 in stored:
        raise HeaderError(codes.IMAGE_CORRUPT, "the JPEG header has no image size before the pixels")
    complete, trailing = _jpeg_end(file, file.tell(), size)
    return ImageHeader("jpeg", stored, orientation, bits, "several" if frames else "one", complete, trailing)


def _jpeg_segments(file: BufferedIOBase) -> Iterator[tuple[int, int]]:
    """Marker and payload length of each segment up to the first scan; the file stands at the payload."""
    file.seek(2)
    for _ in range(_MAX_SEGMENTS):
        prefix, marker = _exact(file, 2)
        if prefix != 0xFF:
            raise HeaderError(codes.IMAGE_CORRUPT, "the JPEG header is damaged")
        while marker == 0xFF:  # fill bytes
            marker = _exact(file, 1)[0]
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            continue
        length = int(struct.unpack(">H", _exact(file, 2))[0])
        if marker == 0xD9 or length < 2:
            raise HeaderError(codes.IMAGE_CORRUPT, "the JPEG header is damaged")
        payload = file.tell()
        yield marker, length - 2
        file.seek(payload + length - 2)
    raise HeaderError(codes.IMAGE_CORRUPT, f"more than {_MAX_SEGMENTS} segments before the pixels")


def _jpeg_end(file: BufferedIOBase, scan: int, size: int) -> tuple[bool, bool]:
    """Whether an end marker follows the first scan, and whether anything follows that marker."""
    # Inside a scan 0xFF is always followed by 0x00 or a restart marker, so the pair cannot occur by chance.
    start = max(scan, size - _TAIL)
    file.seek(start)
    tail = file.read(_TAIL)
    found = tail.rfind(b"\xff\xd9")
    return found >= 0, found >= 0 and found + 2 < len(tail)


def exif_orientation(data: bytes) -> int:
    """Orientation 1..8 of an Exif block (a small TIFF); 1 where it is missing or out of range."""
    try:
        order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
        offset = struct.unpack_from(order + "I", data, 4)[0]
        (count,) = struct.unpack_from(order + "H", data, offset)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", data, offset + 2 + 12 * index)
            if tag == 0x0112 and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


# -- PNG -----------------------------------------------------------------------------------------------------------


def _png(file: BufferedIOBase, size: int) -> ImageHeader:
    file.seek(8)
    length, kind, width, height, bits = struct.unpack(">I4sIIB", _exact(file, 17))
    if kind != b"IHDR" or length != 13 or 0 in (width, height):
        raise HeaderError(codes.IMAGE_CORRUPT, "the PNG header is damaged")
    orientation, frames = 1, False
    position = 8 + 25
    for _ in range(_MAX_SEGMENTS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind == b"acTL":
            frames = struct.unpack(">I", _exact(file, 4))[0] > 1
        elif kind == b"eXIf" and length <= 65536:
            orientation = exif_orientation(_exact(file, length))
        elif kind == b"IDAT":
            break
        position += length + 12
    file.seek(max(position, size - _TAIL))
    tail = file.read(_TAIL)
    end = tail.rfind(b"IEND")
    return ImageHeader(
        "png", (height, width), orientation, bits, "several" if frames else "one", end >= 0, 0 <= end < len(tail) - 8
    )


# -- WebP ----------------------------------------------------------------------------------------------------------


def _webp(file: BufferedIOBase, size: int) -> ImageHeader:
    file.seek(4)
    (body,) = struct.unpack("<I", _exact(file, 4))
    file.seek(12)
    kind, _ = struct.unpack("<4sI", _exact(file, 8))
    orientation, frames = 1, False
    if kind == b"VP8 ":
        data = _exact(file, 10)
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 6))
    elif kind == b"VP8L":
        data = _exact(file, 5)
        packed = struct.unpack_from("<I", data, 1)[0]
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8X":
        data = _exact(file, 10)
        frames = bool(data[0] & 0x02)
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (4, 7))
        orientation = _webp_orientation(file) if data[0] & 0x08 else 1
    else:
        raise HeaderError(codes.IMAGE_CORRUPT, "the WebP header is damaged")
    return ImageHeader(
        "webp", (height, width), orientation, 8, "several" if frames else "one", size >= body + 8, size > body + 9
    )


def _webp_orientation(file: BufferedIOBase) -> int:
    for _ in range(_MAX_SEGMENTS):
        head = file.read(8)
        if len(head) < 8:
            return 1
        kind, length = struct.unpack("<4sI", head)
        if kind == b"EXIF":
            data = file.read(min(length, 65536))
            return exif_orientation(data.removeprefix(b"Exif\0\0"))
        file.seek(length + (length & 1), os.SEEK_CUR)
    return 1


# -- TIFF, BMP, PFM ------------------------------------------------------------------------------------------------


def _tiff(file: BufferedIOBase, size: int) -> ImageHeader:
    file.seek(0)
    order: Literal["<", ">"] = "<" if _exact(file, 2) == b"II" else ">"
    version, offset = struct.unpack(order + "HI", _exact(file, 6))
    if version != 42:
        raise HeaderError(codes.IMAGE_UNSUPPORTED, "the content is a BigTIFF file, which is not read")
    file.seek(offset)
    (count,) = struct.unpack(order + "H", _exact(file, 2))
    entries = _exact(file, 12 * count)
    (following,) = struct.unpack(order + "I", file.read(4).ljust(4, b"\0"))
    tags: dict[int, tuple[int, int, int]] = {}
    for index in range(count):
        tag, kind, number, value = struct.unpack_from(order + "HHII", entries, 12 * index)
        if kind == 3 and number == 1:  # a short is stored in the first two bytes
            (value,) = struct.unpack_from(order + "H", entries, 12 * index + 8)
        tags[tag] = (kind, number, value)
    if 0xC612 in tags:
        raise HeaderError(codes.IMAGE_UNSUPPORTED, "the content is a DNG raw photograph, which cannot be decoded")
    width, height = tags[256][2] if 256 in tags else 0, tags[257][2] if 257 in tags else 0
    if 0 in (width, height):
        raise HeaderError(codes.IMAGE_CORRUPT, "the TIFF header has no image size")
    orientation = tags[274][2] if 274 in tags and 1 <= tags[274][2] <= 8 else 1
    ends = _tiff_extents(file, order, tags)
    return ImageHeader(
        "tiff", (height, width), orientation, _tiff_bits(file, order, tags), "several" if following else "one",
        all(end <= size for end in ends),
    )  # fmt: skip


def _tiff_values(file: BufferedIOBase, order: str, entry: tuple[int, int, int]) -> list[int]:
    kind, number, value = entry
    width = {3: 2, 4: 4}.get(kind, 0)
    if number == 1 or not width:
        return [value]
    number = min(number, 65536)
    if width * number <= 4:
        return [value & 0xFFFF]  # two shorts packed in the entry; equal in practice
    file.seek(value)
    return list(struct.unpack(f"{order}{number}{'H' if kind == 3 else 'I'}", _exact(file, width * number)))


def _tiff_bits(file: BufferedIOBase, order: str, tags: dict[int, tuple[int, int, int]]) -> int:
    return max(_tiff_values(file, order, tags[258])) if 258 in tags else 1


def _tiff_extents(file: BufferedIOBase, order: str, tags: dict[int, tuple[int, int, int]]) -> list[int]:
    """Where each strip or tile of the first image ends in the file."""
    for offsets, counts in ((273, 279), (324, 325)):
        if offsets in tags and counts in tags:
            starts, lengths = (_tiff_values(file, order, tags[tag]) for tag in (offsets, counts))
            return [start + length for start, length in zip(starts, lengths, strict=False)]
    return []


def _bmp(file: BufferedIOBase, size: int) -> ImageHeader:
    file.seek(2)
    _, _, data_offset, header = struct.unpack("<IIII", _exact(file, 16))
    if header == 12:
        width, height, _, bits = struct.unpack("<HHHH", _exact(file, 8))
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack("<iiHHI", _exact(file, 16))
    height = abs(height)  # negative: rows from top to bottom
    if width <= 0 or height == 0:
        raise HeaderError(codes.IMAGE_CORRUPT, f"the BMP header says {width} x {height} px")
    needed = data_offset + (width * bits + 31) // 32 * 4 * height if compression in (0, 3) else 0
    return ImageHeader("bmp", (height, width), complete=size >= needed)


def _pfm(file: BufferedIOBase, size: int) -> ImageHeader:
    file.seek(0)
    text = file.read(128)
    words = text.split(maxsplit=4)
    channels = 3 if words[0] == b"PF" else 1
    width, height = int(words[1]), int(words[2])
    if width <= 0 or height <= 0:
        raise HeaderError(codes.IMAGE_CORRUPT, f"the PFM header says {width} x {height} px")
    return ImageHeader("pfm", (height, width), bits=32, complete=size >= width * height * channels * 4)


_PARSERS: tuple[tuple[bytes, Callable[[BufferedIOBase, int], ImageHeader]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"BM", _bmp),
    (b"PF\n", _pfm),
    (b"Pf\n", _pfm),
)
_REFUSED = (
    (b"GIF8", "a GIF animation (a video for prediction)"),
    (b"%PDF", "a PDF document"),
    (b"ftyp", "a HEIC, AVIF or MP4 container"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a GZIP archive"),
    (b"8BPS", "a Photoshop document"),
)
