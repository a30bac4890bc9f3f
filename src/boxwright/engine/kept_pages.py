# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Keeps freed memory in the process, because a training step asks for the same sizes again and again."""

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
_LARGEST = (1 << 30, 32 * 2**20)  # older glibc refuses more than 32 MiB


@cache
def keep_pages() -> bool:
    """Tells glibc's allocator not to return large blocks to the system; says whether it did. Acts once per process.

    Without it every large tensor of a CPU step is mapped, faulted in page by page and unmapped again: a bf16 step of
    yolov8n at 320 px is 1.4 times slower. The price: memory stays at its peak until the process ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # another C library
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) == 1 for size in _LARGEST)
    return bool(kept and mallopt(_TRIM_THRESHOLD, 2**31 - 1) == 1)
