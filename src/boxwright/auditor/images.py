# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the pixels of a split say: fingerprints to find the same picture twice, and how each file stores it.

Each image is decoded once, as small as its file allows. Imports no torch, writes nothing.

Source: perceptual hash by the signs of low frequencies, as in Zauner 2010, "Implementation and Benchmarking of
Perceptual Image Hash Functions".
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt64

from boxwright.datasets.image_header import HeaderError, read_header
from boxwright.datasets.images import decode
from boxwright.datasets.policy import ImagePolicy
from boxwright.datasets.sample import Split

SEEN = 64  # px; the long side of what is decoded is at least this
FACE = 16  # px; the side of the small grey picture that near duplicates are compared by
DISTANCE = 7  # differing bits of 64 up to which two pictures are compared
ALIKE = 0.97  # correlation of the small grey pictures above which two are the same picture
BAND = 8  # bits; two hashes that differ in at most 7 of 64 bits agree in one of 8 bands
_CHUNK = 16  # images a thread takes at once


class _Look(NamedTuple):
    digest: bytes
    hash: int
    face: np.ndarray
    spread: float
    mode: str
    orientation: int
    fault: str


@dataclass(frozen=True, slots=True)
class SplitImages:
    """Columns of a split's images, I of them."""

    split: Split
    digest: tuple[bytes, ...]  # of the file's bytes; b"" where it cannot be read
    hash: UInt64[np.ndarray, " I"]  # perceptual; alike pictures differ in few bits
    face: UInt8[np.ndarray, "I 16 16"]  # grey
    spread: Float64[np.ndarray, " I"]  # standard deviation of grey, 0 to 128
    mode: tuple[str, ...]  # "" for three colours, otherwise what it is
    orientation: Int64[np.ndarray, " I"]  # EXIF, 1 is upright
    fault: Mapping[int, str]  # images that cannot be decoded, and why

    def __len__(self) -> int:
        return len(self.digest)


class Near(NamedTuple):
    """Two pictures that look the same in files of different bytes."""

    first: tuple[Split, int]
    second: tuple[Split, int]
    bits: int  # in which the hashes differ
    alike: float  # correlation


def look_at(
    split: Split, images: Sequence[Path], policy: ImagePolicy, on_progress: Callable[[int, int], None] | None = None
) -> SplitImages:
    """Decodes every image of a split once; what cannot be decoded is told in `fault`."""
    looks: list[_Look] = []
    chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:
        for part in pool.map(lambda paths: [_look(path, policy) for path in paths], chunks):
            looks += part
            if on_progress is not None:
                on_progress(len(looks), len(images))
    return SplitImages(
        split=split,
        digest=tuple(look.digest for look in looks),
        hash=np.array([look.hash for look in looks], np.uint64),
        face=np.array([look.face for look in looks], np.uint8).reshape(-1, FACE, FACE),
        spread=np.array([look.spread for look in looks], np.float64),
        mode=tuple(look.mode for look in looks),
        orientation=np.array([look.orientation for look in looks], np.int64),
        fault={row: look.fault for row, look in enumerate(looks) if look.fault},
    )


def _look(path: Path, policy: ImagePolicy) -> _Look:
    nothing = np.zeros((FACE, FACE), np.uint8)
    try:
        data = path.read_bytes()
    except OSError as error:
        return _Look(b"", 0, nothing, 0.0, "", 1, f"cannot be read: {error.strerror}")
    digest = hashlib.blake2b(data, digest_size=16).digest()
    try:
        header = read_header(io.BytesIO(data))
        grey = cv2.cvtColor(decode(data, policy, SEEN), cv2.COLOR_RGB2GRAY)
    except HeaderError as error:
        return _Look(digest, 0, nothing, 0.0, "", 1, str(error))
    return _Look(
        digest,
        perceptual_hash(grey),
        cv2.resize(grey, (FACE, FACE), interpolation=cv2.INTER_AREA),
        float(grey.std()),
        color_mode(data, header.type, header.bits),
        header.orientation,
        "",
    )


def perceptual_hash(grey: UInt8[np.ndarray, "h w"]) -> int:
    """64 bits: which of the 64 lowest frequencies (but the mean) lie above their median.

    >>> ramp = np.tile(np.arange(0, 200, 2, dtype=np.uint8), (80, 1))
    >>> perceptual_hash(ramp) == perceptual_hash(cv2.resize(ramp, (50, 40)))
    True
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    waves = cv2.dct(small)[:8, :9].ravel()[1:65]
    bits = waves > np.median(waves)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def color_mode(data: bytes, kind: str, bits: int) -> str:
    r"""How a file stores colours, in words; "" for three plain colours.

    >>> color_mode(b"\x89PNG\r\n\x1a\n" + bytes(17) + b"\x03", "png", 8)
    'palette'
    """
    deep = f"{bits} bits, " if bits == 16 else ""
    if kind == "png" and len(data) > 25:
        words = {0: "grey", 3: "palette", 4: "grey with transparency", 6: "transparency"}.get(data[25], "")
        return (deep + words).rstrip(", ")
    if kind == "jpeg":
        return {1: "grey", 4: "CMYK"}.get(_jpeg_components(data), "")
    return deep.rstrip(", ")


def _jpeg_components(data: bytes) -> int:
    """Number of colour planes in the frame header; 0 where none is found."""
    position = 2
    while position + 10 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[position + 9]
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0


# -- the same picture twice ----------------------------------------------------------------------------------------


def same_bytes(pictures: SplitImages) -> list[list[int]]:
    """Images of a split whose files are equal byte by byte, in groups."""
    groups: dict[bytes, list[int]] = {}
    for row, digest in enumerate(pictures.digest):
        if digest:
            groups.setdefault(digest, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def near_duplicates(splits: Mapping[Split, SplitImages], flat: float) -> list[Near]:
    """Pairs of images that look the same; not those of equal bytes, nor pictures of one colour (spread below `flat`).

    Of pictures with equal hashes each is compared with the next only, so a hundred copies make 99 pairs.
    """
    places = [
        (split, row)
        for split, held in splits.items()
        for row in range(len(held))
        if row not in held.fault and held.spread[row] >= flat
    ]
    hashes = np.array([splits[split].hash[row] for split, row in places], np.uint64)
    found = []
    for one, other in close_hashes(hashes):
        (split_a, a), (split_b, b) = places[one], places[other]
        left, right = splits[split_a], splits[split_b]
        if left.digest[a] == right.digest[b]:
            continue
        alike = _correlation(left.face[a], right.face[b])
        if alike > ALIKE:
            found.append(Near(places[one], places[other], int(left.hash[a] ^ right.hash[b]).bit_count(), alike))
    return found


def close_hashes(hashes: UInt64[np.ndarray, " I"], limit: int = DISTANCE) -> list[tuple[int, int]]:
    """Pairs (ascending) of hashes that differ in at most `limit` bits, without comparing all with all.

    Of equal ones only neighbours make a pair, and only the first stands for them before others.
    """
    values, inverse = np.unique(hashes, return_inverse=True)
    by_value = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[by_value], np.arange(len(values)))
    equal = inverse[by_value][1:] == inverse[by_value][:-1]
    pairs = {(int(a), int(b)) for a, b in zip(by_value[:-1][equal], by_value[1:][equal], strict=True)}
    first = by_value[starts] if len(values) else by_value
    for a, b in _in_a_band(values, limit):
        pairs |= {(int(min(x, y)), int(max(x, y))) for x, y in zip(first[a], first[b], strict=True)}
    return sorted(pairs)


def _in_a_band(values: np.ndarray, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for band in range(64 // BAND):
        key = (values >> np.uint64(band * BAND)) & np.uint64(2**BAND - 1)
        order = np.argsort(key, kind="stable")
        key, held = key[order], values[order]
        active, step = np.arange(len(order)), 0
        while len(active):
            step += 1
            active = active[active + step < len(order)]
            active = active[key[active] == key[active + step]]
            near = active[_ones(held[active] ^ held[active + step]) <= limit]
            if len(near):
                yield order[near], order[near + step]


def _ones(words: np.ndarray) -> np.ndarray:
    """Bits that are set in each 64-bit word: pairs, then fours, then bytes, then their sum in the top byte."""
    words = words - ((words >> np.uint64(1)) & np.uint64(0x5555555555555555))
    words = (words & np.uint64(0x3333333333333333)) + ((words >> np.uint64(2)) & np.uint64(0x3333333333333333))
    words = (words + (words >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    counts: np.ndarray = (words * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return counts


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def joined(pairs: Sequence[Near]) -> list[list[tuple[Split, int]]]:
    """Pairs as groups of pictures that hang together."""
    group: dict[tuple[Split, int], set[tuple[Split, int]]] = {}
    for pair in pairs:
        both = group.get(pair.first, {pair.first}) | group.get(pair.second, {pair.second})
        for place in both:
            group[place] = both
    distinct = {id(held): held for held in group.values()}
    return [sorted(held) for held in distinct.values()]


def across(pairs: Sequence[Near]) -> dict[tuple[Split, Split], list[Near]]:
    """Pairs whose images lie in different splits, by those."""
    order: tuple[Split, ...] = ("train", "val", "test")
    return {
        (one, other): found
        for one, other in combinations(order, 2)
        if (found := [pair for pair in pairs if {pair.first[0], pair.second[0]} == {one, other}])
    }
