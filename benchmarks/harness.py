# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What every benchmark shares: its arguments and its smoke form, interleaved medians, the peak of allocations, results.

A smoke run (`--smoke`) walks the same code with the smallest sizes and one round. It shows that a benchmark still runs;
its numbers mean nothing, so it keeps none unless `--results` names a folder. `tests/test_benchmarks.py` runs every one.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
REPEATS = 15
SMOKE = "smoke run: smallest sizes, one round; no number here is a measurement"


@dataclass(frozen=True)
class Bench:
    """One call of a benchmark: its arguments, and where its lines go."""

    name: str  # of the file of results
    options: argparse.Namespace
    heap: str | None = None  # "warm" or "cold" where time is measured

    @property
    def smoke(self) -> bool:
        """Whether sizes are to be the smallest."""
        return bool(self.options.smoke)

    def medians(
        self,
        variants: Mapping[str, Callable[[], Any]],
        *,
        repeats: int | None = None,
        warmup: int = 3,
        burst: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> dict[str, float]:
        """Median seconds of each variant, see `medians`; in a smoke run each is called once."""
        if self.smoke:
            return medians(variants, repeats=1, warmup=0)
        return medians(variants, repeats or self.options.repeats, warmup, burst, clock)

    def show(self, row: str, facts: Mapping[str, Any]) -> None:
        """Print one row of the table: its name, then what was found."""
        print("  ".join([row, *(f"{key} {value}" for key, value in facts.items())]), flush=True)

    def leave_out(self, row: str, why: str) -> None:
        """Print that a row, or a column of all rows, is missing here, and why."""
        print(f"{row}  left out: {why}", flush=True)

    def keep(self, facts: Mapping[str, Any]) -> None:
        """Append one result, with the time and the machine, to `<name>.jsonl` in the folder of results.

        That is `benchmarks/results`; a smoke run has none but the one that `--results` names.
        """
        folder = self.options.results or (None if self.smoke else RESULTS)
        if folder is None or self.options.no_record:
            return
        folder.mkdir(parents=True, exist_ok=True)
        mark = {"smoke": True} if self.smoke else {}
        heap = {} if self.heap is None else {"heap": self.heap}
        line = {"when": datetime.now(UTC).isoformat(timespec="seconds"), **mark, **facts, **heap, "machine": machine()}
        with (folder / f"{self.name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def arguments(description: str | None, *, timed: bool = True, kept: bool = True) -> argparse.ArgumentParser:
    """A parser with the options every benchmark has.

    Args:
        description: the benchmark's docstring.
        timed: whether it measures time in this process: threads and repeats are then options.
        kept: whether it keeps results.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(results=None, no_record=False)
    parser.add_argument("--smoke", action="store_true", help="smallest sizes, one round: does it run? Keeps nothing")
    parser.add_argument("--list", action="store_true", help="print the names of the table's rows, measure nothing")
    if timed:
        parser.add_argument("--threads", type=int, default=1, help="threads torch may use")
        parser.add_argument("--repeats", type=int, default=REPEATS, help="timed rounds; the median counts")
    if kept:
        parser.add_argument("--no-record", action="store_true", help="print only")
        parser.add_argument("--results", type=Path, metavar="FOLDER", help="where results go, also of a smoke run")
    return parser


def start(name: str, parser: argparse.ArgumentParser, rows: Sequence[str]) -> Bench:
    """Read the arguments, set up the process, and print what the rows below belong to.

    Args:
        name: of the file of results.
        parser: from `arguments`, with the benchmark's own options.
        rows: names of all rows of the table, which `--list` prints.
    """
    options = parser.parse_args()
    if options.list:
        print("\n".join(rows))
        raise SystemExit(0)
    if options.smoke:
        print(SMOKE)
    if not hasattr(options, "threads"):
        return Bench(name, options)
    import torch

    torch.set_num_threads(options.threads)
    bench = Bench(name, options, "warm" if warm_heap() else "cold")
    print(machine(), f"heap {bench.heap}", flush=True)
    return bench


def absent(package: str) -> str | None:
    """Why a peer is left out, or None where it is installed."""
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{package} is not installed (`make bench-peer`)"


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
    repeats: int = REPEATS,
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
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
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
