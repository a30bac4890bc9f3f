# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Which device and number format a run computes in, how its cores are shared, and where its randomness starts."""

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from boxwright.engine.recipe import Precision
from boxwright.errors import ConfigError

_filling: Any = torch.utils.deterministic  # a module at first sight, an object with properties in truth

Resolved = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Choice:
    """A number format that was settled, and the sentence that says why."""

    value: Resolved
    reason: str


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this rank: `auto` takes CUDA if there is some; "cuda" alone takes the local rank's.

    Raises:
        ConfigError: the name is not a device, or this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError:
        raise ConfigError(f"train.device: expected auto, cpu, cuda, cuda:N or N, got {name!r}") from None
    if device.type != "cuda":
        return device
    index = local_rank if device.index is None else device.index
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError(f"train.device: {name!r} needs CUDA device {index}; this machine has {count}. Use device cpu")
    return torch.device("cuda", index)


def choose_precision(name: Precision, device: torch.device) -> Choice:
    """`auto` takes bf16 where the hardware computes in it, fp32 elsewhere; a named format is taken as named.

    Reads processor flags, measures nothing: the same machine always chooses the same, which resume relies on.

    Raises:
        ConfigError: fp16 on a CPU, where no scaler keeps small gradients alive and no kernel is fast.
    """
    if name == "fp16" and device.type != "cuda":
        raise ConfigError("train.precision: fp16 needs a CUDA device; use bf16 or fp32 on a CPU")
    if name != "auto":
        return Choice(name, f"precision {name} (as set)")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return (
            Choice("bf16", "precision auto: bf16, native on this GPU")
            if fast
            else Choice("fp16", "precision auto: fp16 with a gradient scaler, this GPU has no native bf16")
        )
    if device.type == "cpu" and cpu_has_bf16():
        return Choice("bf16", "precision auto: bf16, this CPU has bf16 instructions")
    return Choice("fp32", f"precision auto: fp32, no bf16 instructions on this {device.type}")


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 natively (AVX-512 BF16 or AMX): 2 to 3 times faster convolutions than fp32."""
    # Private names in torch; absent means unknown, and unknown means fp32.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context a forward pass runs in."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def gradient_scaler(precision: str) -> torch.amp.GradScaler:
    """Scales the loss in fp16 so that small gradients survive; does nothing in other formats."""
    return torch.amp.GradScaler("cuda", enabled=precision == "fp16")


def default_workers(device: torch.device, local_world: int = 1) -> int:
    """Loader processes of one rank when the recipe names none.

    On a GPU: the rank's share of the cores, at most 8. On a CPU the network itself keeps every core busy, so a second
    process only helps to overlap decoding with the single-threaded parts of a step: 1, or 0 on a single core.
    """
    cores = available_cores() // max(local_world, 1)
    if device.type == "cpu":
        return 1 if cores >= 2 else 0
    return max(1, min(8, cores - 1))


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seed_everything(seed: int, epoch: int, rank: int) -> None:
    """Starts every global generator from (seed, epoch, rank).

    Done at each epoch, so that a resumed epoch draws the same numbers without any saved generator state.
    """
    state = int(np.random.SeedSequence([seed % 2**63, epoch, rank]).generate_state(1, np.uint64)[0]) % 2**63
    random.seed(state)
    np.random.seed(state % 2**32)  # noqa: NPY002 - other people's code may use the global generator
    torch.manual_seed(state)


@contextmanager
def determinism(device: torch.device, enabled: bool) -> Iterator[None]:
    """Equal inputs give equal bits inside the block, where torch has such a kernel; the settings before are restored.

    Matters on CPU as well: a large `index_put` with accumulation adds with atomics from several threads otherwise.
    """
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, benchmark = _filling.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when it starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    _filling.fill_uninitialized_memory = False  # nobody reads memory they did not write
    torch.backends.cudnn.benchmark = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        _filling.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
