# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What every benchmark shares: interleaved medians in one process, the peak of allocations, one JSON line a result."""

import argparse
import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def warm_heap() -> bool:
    """Keep freed pages in the process, as they are inside a training process; otherwise page faults are timed.

    Returns:
        False where the C library has no `mallopt` (results then include page faults).
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        library.mallopt(mmap_max, 0)
        library.mallopt(top_pad, 64 << 20)
        return bool(library.mallopt(trim_threshold, 2**31 - 1))
    except (OSError, AttributeError):
        return False


def medians(
    variants: Mapping[str, Callable[[], Any]],
    repeats: int = 15,
    warmup: int = 3,
    burst: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each variant. Turns alternate, so a busy machine slows all variants alike.

    In a turn a variant runs `warmup` times untimed (with `burst` 1: in the first turn only), then `burst` times timed.
    Longer bursts suit variants with large blocks: the other one leaves free memory in pieces of its own sizes, and a
    large block would be faulted in anew each time, which does not happen inside one training process. `clock` may be
    `time.process_time`, for one thread on a machine that others keep busy: what waits for a core is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(-(-repeats // burst)):
        for name, run in variants.items():
            for _ in range(warmup if turn == 0 or burst > 1 else 0):
                run()
            for _ in range(burst):
                start = clock()
                run()
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def allocation_peak(run: Callable[[], Any]) -> int:
    """Largest number of bytes that torch held at once inside `run`, above what it held before, on the CPU."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def machine() -> dict[str, Any]:
    """The machine and the versions a result belongs to."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line.partition(":") for line in info.read_text().splitlines())
        cpu = next((value.strip() for key, _, value in lines if key.strip() == "model name"), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def record(name: str, row: Mapping[str, Any]) -> None:
    """Append one result, with the time and the machine, to `benchmarks/results/<name>.jsonl`."""
    RESULTS.mkdir(exist_ok=True)
    line = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **row, "machine": machine()}
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options every benchmark has: threads, repeats and whether to keep the result."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=1, help="threads torch may use")
    parser.add_argument("--repeats", type=int, default=15, help="timed rounds; the median counts")
    parser.add_argument("--no-record", action="store_true", help="print only")
    return parser
