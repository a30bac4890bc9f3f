# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Is everything that must not change equal in two checkouts, and (`--speed`) is the second one as fast?

    python benchmarks/compare_checkouts.py ed78df4 .
    python benchmarks/compare_checkouts.py --speed ed78df4 .

A checkout is a folder, or a commit of this repository, which is unpacked into a temporary folder. Each side runs in
processes of its own, on one thread, with its own package, and answers the same questions about the same small drawn
dataset. A row is `equal`, or `differs` with the first difference; the exit status is 1 if one differs.

`--speed` runs the second checkout's benchmarks on both packages in turn (A B B A ...), a process for each, and prints
medians and their ratio. It means something only on an otherwise idle machine.
"""

import argparse
import contextlib
import csv
import dataclasses
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import io
import json
import math
import os
import pkgutil
import re
import runpy
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import SMOKE, arguments

ROOT = Path(__file__).parents[1]
Answers = dict[str, str]  # question -> what one side answers
WIDTH = 110  # characters of the terminal that texts are wrapped for

COMMANDS = [
    [], ["train"], ["val"], ["predict"], ["export"], ["import"], ["inspect"], ["explain"], ["recipe"], ["check"],
    ["audit"], ["data"], ["data", "draw"], ["data", "convert"], ["data", "tile"], ["demo"], ["version"],
]  # fmt: skip
# What people type wrongly, in a folder that holds the datasets `shapes` and `broken`.
WRONG = [
    [],
    ["nosuch"],
    ["data"],
    ["train"],
    ["train", "yolov8n"],
    ["train", "yolov8n", "--data"],
    ["train", "yolov9000", "--data", "shapes"],
    ["train", "yolov8n", "--data", "missing"],
    ["train", "yolov8n", "--data", "broken"],
    ["train", "yolov8n-seg", "--data", "shapes"],
    ["train", "yolov8n", "--data", "shapes", "--epochs", "0"],
    ["train", "yolov8n", "--data", "shapes", "--epochs", "many"],
    ["train", "yolov8n", "--data", "shapes", "--imgsz", "8"],
    ["train", "yolov8n", "--data", "shapes", "--imgsz", "100"],
    ["train", "yolov8n", "--data", "shapes", "--batch", "0"],
    ["train", "yolov8n", "--data", "shapes", "--device", "abacus"],
    ["train", "yolov8n", "--data", "shapes", "--set", "train.nosuch=1"],
    ["train", "yolov8n", "--data", "shapes", "--set", "train.lr0=fast"],
    ["train", "yolov8n", "--data", "shapes", "--set", "train.lr0"],
    ["train", "yolov8n", "--data", "shapes", "--set", "criterion.rules.main.assigner.kind=nosuch"],
    ["train", "yolov8n", "--data", "shapes", "--set", "criterion.rules.main.assigner.topk=0"],
    ["train", "yolov8n", "--data", "shapes", "--set", "model.backbone.kind=nosuch"],
    ["train", "yolov8n", "--data", "shapes", "--weights", "missing.safetensors"],
    ["train", "--resume", "missing"],
    ["train", "--resume", "shapes"],
    ["train", "missing.yaml", "--data", "shapes"],
    ["val"],
    ["val", "missing.safetensors"],
    ["predict"],
    ["predict", "missing.jpg"],
    ["predict", "shapes", "--weights", "missing.safetensors"],
    ["export"],
    ["export", "missing.safetensors"],
    ["import"],
    ["import", "missing.pt"],
    ["import", "shapes/data.yaml"],
    ["inspect"],
    ["inspect", "missing"],
    ["explain"],
    ["explain", "yolov8n", "--image", "missing.jpg", "--labels", "missing.txt"],
    ["recipe"],
    ["recipe", "yolov8"],
    ["recipe", "yolov8n", "--nosuch"],
    ["check"],
    ["check", "missing"],
    ["check", "broken"],
    ["audit", "missing"],
    ["audit", "broken"],
    ["audit", "shapes", "--model", "nosuch"],
    ["data", "draw"],
    ["data", "draw", "shapes"],
    ["data", "draw", "new", "--task", "nosuch"],
    ["data", "convert", "shapes", "new", "--to", "nosuch"],
    ["data", "convert", "missing", "new", "--to", "coco"],
    ["data", "tile", "shapes", "new", "--size", "0", "--gap", "0"],
    ["demo", "--task", "nosuch"],
]
# Reports of datasets, with the files they write.
REPORTS = [
    ["check", "shapes"],
    ["audit", "shapes", "--out", "audit-shapes"],
    ["audit", "broken", "--out", "audit-broken", "--no-images"],
    ["data", "convert", "shapes", "shapes-coco", "--to", "coco"],
    ["data", "convert", "shapes", "shapes-voc", "--to", "voc"],
    ["check", "shapes-coco"],
]
TRAINED = ("yolov8n", "yolov5n", "rtdetr-r18")
RESUMED = "an old run resumed"
GOLDEN = "golden numbers"
FAILED = "no answer"
SIZES = ("epochs", "scenes", "side", "batch")  # options that say how much each side trains
TIMES = {"images/s", "seconds"}  # columns and keys that no two runs share
TEXTS = {".txt", ".yaml", ".yml", ".json", ".csv", ".xml", ".md"}
LABELS = {  # of the dataset `broken`: file below it -> text
    "data.yaml": "path: .\ntrain: images/train\nval: images/val\nnames: [circle, square]\n",
    "labels/train/000000.txt": "0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n",
    "labels/train/000001.txt": "0 0.5 0.5 0.2\n0 0.5 0.5 1.7 0.2\n1 0.4 0.4 0.2 0.2\n1 0.4 0.4 0.2 0.2\n",
    "labels/train/000002.txt": "zero 0.5 0.5 0.2 0.2\n0 nan 0.5 0.2 0.2\n0 0.5 0.5 0 0.2\n0, 0.5, 0.5, 0.1, 0.1\n",
    "labels/val/000000.txt": "0 0.9 0.9 0.4 0.4\n-1 0.5 0.5 0.2 0.2\n",
}


# ---------------------------------------------------------------------------------------------------------------------
# One side: everything below runs in a process that sees one checkout's package.


def run_command(words: Sequence[str], out: Path) -> int:
    """The exit status of one `boxwright` command in a fork of this process; what it prints goes to `out`."""
    from boxwright.cli.app import main

    child = os.fork()
    if child == 0:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["boxwright", *words]
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 70
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said(words: Sequence[str]) -> str:
    """Exit status and output of a command, without the places that differ between two checkouts."""
    out = Path("printed.txt").resolve()
    status = run_command(words, out)
    text = out.read_text(encoding="utf-8", errors="replace")
    package = str(Path(importlib.import_module("boxwright").__file__ or "").parent)
    text = text.replace(package, "<package>").replace(str(Path.cwd()), "<here>")
    return f"exit status {status}\n{text}"


def name_of(words: Sequence[str]) -> str:
    """A command as it is typed."""
    return " ".join(["boxwright", *words])


def files_below(folder: Path) -> Answers:
    """Text of every text file, digest of every other one."""
    answers = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            as_text = file.suffix in TEXTS
            answers[file.as_posix()] = (
                content.decode("utf-8", "replace").replace(str(Path.cwd()), "<here>")
                if as_text
                else hashlib.sha256(content).hexdigest()
            )
    return answers


def own_names(module: ModuleType) -> list[str]:
    """Public names that a module defines, itself or in a file below it, and its constants."""
    names = []
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None)
        inside = isinstance(home, str) and f"{home}.".startswith(f"{module.__name__}.")
        if not name.startswith("_") and not isinstance(value, ModuleType) and (inside or name.isupper()):
            names.append(name)
    return sorted(names)


def parameters(value: Any) -> str:
    """Names of what a callable takes; empty for anything else."""
    try:
        return f"({', '.join(inspect.signature(value).parameters)})"
    except (TypeError, ValueError):
        return ""


def public_names(_: argparse.Namespace) -> Answers:
    """What can be imported by name, and with which parameters it is called."""
    answers = {}
    for path in ("boxwright", "boxwright.losses"):
        module = importlib.import_module(path)
        listed = sorted(module.__all__)
        answers[f"{path}.__all__"] = "\n".join(name + parameters(getattr(module, name)) for name in listed)
    structures = importlib.import_module("boxwright.structures")
    answers["boxwright.structures"] = "\n".join(
        name + parameters(getattr(structures, name)) for name in own_names(structures)
    )
    return answers


def words_of(hint: Any) -> list[str]:
    """The words that a type allows, wherever in it."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(word) for word in typing.get_args(hint)]
    return [word for part in typing.get_args(hint) for word in words_of(part)]


def plain(value: Any) -> str:
    """A default value, without the names of classes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return str({field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return str({str(key): plain(part) for key, part in value.items()})
    if isinstance(value, tuple | list):
        return str([plain(part) for part in value])
    return repr(value) if value is None or isinstance(value, str | bool | int | float) else f"<{type(value).__name__}>"


def keys_of(cls: type) -> str:
    """A line for each YAML key of a component: name, default, allowed words."""
    hints = typing.get_type_hints(cls)
    lines = []
    for field in (field for field in dataclasses.fields(cls) if field.init):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        shown = "required" if default is dataclasses.MISSING else plain(default)
        lines.append(f"{field.name} = {shown} {sorted(set(words_of(hints[field.name])))}")
    return "\n".join(lines)


def yaml_kinds(_: argparse.Namespace) -> Answers:
    """Every component that YAML names by its kind, with its keys."""
    package = importlib.import_module("boxwright")
    found: dict[str, set[str]] = {}
    for module_info in pkgutil.walk_packages(package.__path__, "boxwright."):
        if module_info.name.endswith("__main__"):
            continue
        module = importlib.import_module(module_info.name)
        for cls in vars(module).values():
            own = isinstance(cls, type) and cls.__module__ == module_info.name and dataclasses.is_dataclass(cls)
            kind = next((field for field in dataclasses.fields(cls) if field.name == "kind"), None) if own else None
            if kind is not None and isinstance(kind.default, str):
                found.setdefault(kind.default, set()).add(keys_of(cls))
    return {kind: "\n--\n".join(sorted(keys)) for kind, keys in sorted(found.items())}


def draw(size: argparse.Namespace) -> None:
    """The datasets `shapes` and `broken` in the current folder, where they do not stand."""
    if Path("shapes").exists():
        return
    words = ["data", "draw", "shapes", "--train", size.scenes, "--val", 4, "--imgsz", size.side]
    status = run_command([str(word) for word in words], Path("printed.txt").resolve())
    if status:
        raise SystemExit(Path("printed.txt").read_text(encoding="utf-8"))
    shutil.copytree("shapes/images", "broken/images")
    for name, text in LABELS.items():
        file = Path("broken", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def load_torch() -> None:
    """Import what most commands need, once for all that are forked after it."""
    importlib.import_module("boxwright.api")


def drawn(size: argparse.Namespace) -> Answers:
    """Labels and pictures of the dataset `shapes`."""
    draw(size)
    return files_below(Path("shapes"))


def help_texts(size: argparse.Namespace) -> Answers:
    """`--help` of every command."""
    return {name_of(words): said([*words, "--help"]) for words in COMMANDS[: 2 if size.smoke else None]}


def recipes(size: argparse.Namespace) -> Answers:
    """What `boxwright recipe` prints for every preset."""
    load_torch()
    names = list(importlib.import_module("boxwright.presets").PRESETS)
    return {name: said(["recipe", name]) for name in names[: 2 if size.smoke else None]}


def refusals(size: argparse.Namespace) -> Answers:
    """What is said to wrong commands."""
    draw(size)
    load_torch()
    return {name_of(words): said(words) for words in WRONG[: 3 if size.smoke else None]}


def reports(size: argparse.Namespace) -> Answers:
    """What is said about datasets, and the files that are written."""
    draw(size)
    load_torch()
    told = {name_of(words): said(words) for words in REPORTS[: 1 if size.smoke else None]}
    folders = ("audit-shapes", "audit-broken", "shapes-coco", "shapes-voc")
    return told | {name: text for folder in folders for name, text in files_below(Path(folder)).items()}


def settings(size: argparse.Namespace) -> dict[str, Any]:
    """What every training is asked for."""
    return {
        "data": "shapes", "epochs": size.epochs, "imgsz": size.side, "batch": size.batch,
        "settings": ["train.precision=fp32", "train.workers=0", "train.device=cpu", "train.seed=0"],
    }  # fmt: skip


def numbers_of(folder: Path) -> Answers:
    """`metrics.csv` by epoch and column, without times; a column that one side lacks is a difference."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        f"epoch {row['epoch']} {name}": value for row in rows for name, value in row.items() if name not in TIMES
    }  # fmt: skip


def state_of(value: Any, name: str = "state") -> Iterator[tuple[str, str]]:
    """Every value of a saved state by its path: digests of tensors, text of everything else."""
    import torch

    if isinstance(value, torch.Tensor):
        digest = hashlib.sha256(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        yield name, f"{value.dtype} {tuple(value.shape)} {digest}"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in TIMES:
                yield from state_of(part, f"{name}.{key}")
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from state_of(part, f"{name}[{index}]")
    else:
        yield name, repr(value)


def train(preset: str, size: argparse.Namespace) -> Answers:
    """Numbers of a whole run."""
    import boxwright

    draw(size)
    run = boxwright.train(preset, out=f"run-{preset}", **settings(size))
    return numbers_of(Path(run.folder))


def interrupt(size: argparse.Namespace) -> None:
    """Leaves the folder `stopped`: a run that Ctrl-C ends in its last epoch."""
    import boxwright
    from boxwright.engine.logs import Listener

    class Interrupts(Listener):
        name = ""

        def stage(self, name: str, total: int) -> None:
            self.name = name

        def advance(self, done: int, values: Mapping[str, float]) -> None:
            if self.name.startswith(f"train {size.epochs}/"):
                raise KeyboardInterrupt

    draw(size)
    with contextlib.suppress(KeyboardInterrupt):
        boxwright.train(TRAINED[0], out="stopped", listener=Interrupts(), **settings(size))
        raise RuntimeError("the run was to be interrupted, and ended")


def resume(size: argparse.Namespace) -> Answers:
    """Numbers and every saved value of the run `stopped`, finished here in a copy of it."""
    import torch

    import boxwright

    draw(size)
    shutil.copytree("stopped", "resumed")
    boxwright.train(resume="resumed")
    state = torch.load("resumed/state.pt", weights_only=True)
    return numbers_of(Path("resumed")) | dict(state_of(state))


# Row of the table -> what answers it; in this order, since the first ones need no torch and every command is a fork.
QUESTIONS: dict[str, Callable[[argparse.Namespace], Answers]] = {
    "a drawn dataset": drawn,
    "help of every command": help_texts,
    "recipe of every preset": recipes,
    "public names": public_names,
    "YAML kinds and keys": yaml_kinds,
    "exit status and text of wrong commands": refusals,
    "reports of datasets and what they write": reports,
    **{f"metrics of {preset}": partial(train, preset) for preset in TRAINED},
    RESUMED: resume,
}

# Where rooms lay before they had their names; `--speed` runs new benchmarks on an old package.
MOVED = {
    "boxwright.loading": "boxwright.data",
    "boxwright.datasets": "boxwright.data",
    "boxwright.drawn": "boxwright.data",
}


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of a room that has another name in this checkout; asked only after all others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module of the older name, if there is one."""
        old = self._old(fullname)
        return None if old is None else importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module itself, which then has two names."""
        old = self._old(spec.name)
        assert old is not None
        module = ModuleType(spec.name)
        module.__dict__.update({name: value for name, value in vars(importlib.import_module(old)).items()
                                if not name.startswith("__")})  # fmt: skip
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to be done."""

    @staticmethod
    def _old(fullname: str) -> str | None:
        for new, old in MOVED.items():
            if f"{fullname}.".startswith(f"{new}."):
                name = old + fullname.removeprefix(new)
                with contextlib.suppress(ImportError):
                    return name if importlib.util.find_spec(name) else None
        return None


def bench(script: str, words: Sequence[str]) -> None:
    """Runs a benchmark as the command line would."""
    sys.meta_path.append(OldNames())
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


def work(tasks: Sequence[str], size: argparse.Namespace) -> dict[str, Answers]:
    """What a process of one side is there for. A row that cannot be answered holds the error, under `FAILED`."""
    package = importlib.import_module("boxwright").__file__ or ""
    if not package.startswith(os.environ["PYTHONPATH"]):
        raise SystemExit(f"{package} is not the package of this side, {os.environ['PYTHONPATH']}")
    if tasks[0] == "bench":
        bench(tasks[1], tasks[2:])
        return {}
    answers: dict[str, Answers] = {}
    for row in tasks:
        try:
            if row == "interrupt":
                interrupt(size)
            else:
                answers[row] = QUESTIONS[row](size)
        except Exception:
            answers[row] = {FAILED: traceback.format_exc().strip().splitlines()[-1]}
    return answers


# ---------------------------------------------------------------------------------------------------------------------
# Both sides.


@dataclasses.dataclass(frozen=True)
class Side:
    """A checkout, and the folder where it works. Folders of two sides have names of one length: texts wrap alike."""

    checkout: Path
    folder: Path

    @property
    def package(self) -> Path:
        """Where its modules are found."""
        return self.checkout / "src"

    def environment(self) -> dict[str, str]:
        """Of its processes: one thread, its own package and cache, texts without colour."""
        return {
            **os.environ, "PYTHONPATH": str(self.package), "BOXWRIGHT_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb",
        }  # fmt: skip

    def ask(self, size: argparse.Namespace, *task: str) -> dict[str, Answers]:
        """The answers of a process of this side.

        Raises:
            SystemExit: it failed; with what it printed.
        """
        answers = self.folder / "answers.json"
        answers.unlink(missing_ok=True)
        words = [sys.executable, str(Path(__file__).resolve()), *as_words(size), "--work", str(answers), *task]
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not answers.exists():
            raise SystemExit(f"{self.checkout}: {' '.join(task)} failed:\n{done.stdout}")
        return dict(json.loads(answers.read_text(encoding="utf-8")))

    def golden(self) -> Answers:
        """How its golden tests end, and the numbers they hold."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/golden"],
            cwd=self.checkout, env=self.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        last = done.stdout.strip().splitlines()[-1:] or [done.stderr]
        return {"the golden tests": re.sub(r" in [\d.]+s.*", "", last[0])} | self.vectors()

    def vectors(self) -> Answers:
        """Digests of the golden numbers."""
        files = sorted((self.checkout / "tests" / "golden").glob("*.json"))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def as_words(size: argparse.Namespace) -> list[str]:
    """The options of a process of one side."""
    sizes = [word for key in SIZES for word in (f"--{key}", str(getattr(size, key)))]
    return [*sizes, "--smoke"] if size.smoke else sizes


def first_difference(old: Answers, new: Answers) -> str | None:
    """Where two answers part, and how many do; None if they are equal."""
    apart = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not apart:
        return None
    key = apart[0]
    count = f" (and {len(apart) - 1} more of {len(old)})" if len(apart) > 1 else ""
    if key not in old or key not in new:
        return f"{key}: only in the {'new' if key in new else 'old'} checkout{count}"
    lines = [old[key].splitlines(), new[key].splitlines()]
    for number in range(max(map(len, lines))):
        left, right = (side[number] if number < len(side) else None for side in lines)
        if left != right:
            return f"{key}, line {number + 1}: {left!r} -> {right!r}{count}"
    return f"{key}: the ends of lines{count}"


def show(row: str, verdict: str) -> None:
    """Print one row of the table."""
    print(f"{row}  {verdict}", flush=True)


def compared(row: str, old: Answers, new: Answers) -> bool:
    """Print whether the answers of a row are equal; True if they are."""
    errors = [f"{name} checkout: {side.get(FAILED, 'nothing')}" for name, side in (("old", old), ("new", new))
              if FAILED in side or not side]  # fmt: skip
    difference = f"no answer, {'; '.join(errors)}" if errors else first_difference(old, new)
    show(row, f"equal ({len(old)} answers)" if difference is None else f"differs: {difference}")
    return difference is None


def rows() -> list[str]:
    """Names of the table's rows."""
    return [*QUESTIONS, GOLDEN]


def compare(old: Side, new: Side, size: argparse.Namespace, only: Sequence[str]) -> bool:
    """Print the table; True if all is equal."""
    wanted = [row for row in rows() if not only or any(word in row for word in only)]
    left_out = {f"metrics of {preset}" for preset in TRAINED[1:]} if size.smoke else set()
    asked = [row for row in QUESTIONS if row in wanted and row not in left_out]
    answers = [old.ask(size, *(["interrupt"] if RESUMED in asked else []), *asked)] if asked else [{}]
    if (old.folder / "stopped").exists():
        shutil.copytree(old.folder / "stopped", new.folder / "stopped")
    answers.append(new.ask(size, *asked) if asked else {})
    equal = True
    for row in wanted:
        if row in left_out:
            show(row, "left out: a smoke run trains one model")
        elif row == GOLDEN:
            equal &= compared(row, *(side.vectors() if size.smoke else side.golden() for side in (old, new)))
        else:
            equal &= compared(row, *(found[row] for found in answers))
    return equal


BENCHMARKS = {"bench_criteria": ["--no-peer"], "bench_train_step": [], "bench_loader": []}
LIMIT = 1.03  # slower by more than this is marked


def milliseconds(file: Path) -> dict[str, float]:
    """Rows of our side in a file of results: name -> ms."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        if "images_per_second" in result:
            found["an image"] = 1000 / result["images_per_second"]["ours"]
        elif "question" in result:
            found[result["question"]] = result["ours_ms"]
        else:
            found |= {key.removesuffix("_ms"): value for key, value in result.items() if key.endswith("_ms")}
    found.pop("peer", None)
    return found


def in_turn(sides: Sequence[Side], rounds: int) -> list[Side]:
    """A B B A A B ...: what slows the machine down for a while slows both sides."""
    return [side for turn in range(rounds) for side in (sides if turn % 2 == 0 else sides[::-1])]


def measure(old: Side, new: Side, size: argparse.Namespace, rounds: int) -> bool:
    """Print medians of both sides and their ratio; True if no row is slower than the limit."""
    fast_enough = True
    for name, options in BENCHMARKS.items():
        seen: dict[Side, dict[str, list[float]]] = {old: {}, new: {}}
        for turn, side in enumerate(in_turn((old, new), rounds)):
            results = side.folder / f"results-{name}-{turn}"
            script = str(new.checkout / "benchmarks" / f"{name}.py")
            smoke = ["--smoke"] if size.smoke else []
            side.ask(size, "bench", script, *options, *smoke, "--results", str(results))
            (file,) = results.glob("*.jsonl")
            for row, value in milliseconds(file).items():
                seen[side].setdefault(row, []).append(value)
        for row in seen[old]:
            before, after = (statistics.median(seen[side][row]) for side in (old, new))
            ratio = after / before if before else math.nan
            fast_enough &= ratio <= LIMIT
            slow = "" if ratio <= LIMIT else f"  SLOWER than {LIMIT}"
            show(f"{name}: {row}", f"old ms {before:.2f}  new ms {after:.2f}  ratio {ratio:.3f}{slow}")
    return fast_enough


def checkout_of(place: str, folder: Path) -> Path:
    """The folder of a checkout: `place` itself, or the commit of that name, unpacked into `folder`."""
    if Path(place, "src", "boxwright").is_dir():
        return Path(place).resolve()
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", place], capture_output=True, check=False)
    if packed.returncode:
        raise SystemExit(f"{place}: neither a folder with src/boxwright nor a commit: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def parser() -> argparse.ArgumentParser:
    """The command line, with what processes of one side are told."""
    found = arguments(__doc__, timed=False, kept=False)
    found.add_argument("checkouts", nargs="*", metavar="OLD NEW", help="folders or commits; a smoke run needs none")
    found.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only rows with one of these words")
    found.add_argument("--speed", action="store_true", help="time benchmarks instead of comparing answers")
    found.add_argument("--rounds", type=int, default=4, help="runs of each side with --speed; the median counts")
    found.add_argument("--epochs", type=int, default=3, help="of the trainings")
    found.add_argument("--scenes", type=int, default=24, help="that are trained on")
    found.add_argument("--side", type=int, default=160, help="of the scenes, px")
    found.add_argument("--batch", type=int, default=8, help="images in a step")
    return found


def size_of(options: argparse.Namespace) -> argparse.Namespace:
    """How much work each side has."""
    smallest = {"epochs": 2, "scenes": 4, "side": 64, "batch": 2}
    sizes = smallest if options.smoke else {key: getattr(options, key) for key in SIZES}
    return argparse.Namespace(**sizes, smoke=options.smoke)


def main(words: Iterable[str] | None = None) -> int:
    """Compares two checkouts; the exit status."""
    # What a process of one side is to do stands last, and may hold options of a benchmark.
    given = list(sys.argv[1:] if words is None else words)
    task = given[given.index("--work") + 1 :] if "--work" in given else []
    options = parser().parse_args(given[: given.index("--work")] if task else given)
    if task:
        answers = work(task[1:], size_of(options))
        Path(task[0]).write_text(json.dumps(answers), encoding="utf-8")
        return 0
    if options.list:
        print("\n".join(rows()))
        return 0
    places = options.checkouts or ([str(ROOT)] * 2 if options.smoke else [])
    if len(places) != 2:
        raise SystemExit("expected two checkouts, OLD and NEW")
    if options.smoke:
        print(SMOKE, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        sides = []
        for name, place in zip(("old", "new"), places, strict=True):
            folder = Path(scratch, name)
            folder.mkdir()
            sides.append(Side(checkout_of(place, Path(scratch, f"{name}-checkout")), folder))
        size = size_of(options)
        if options.speed:
            fast_enough = measure(*sides, size, 1 if options.smoke else options.rounds)
            return int(not fast_enough and not options.smoke)
        return int(not compare(*sides, size, options.only))


if __name__ == "__main__":
    sys.exit(main())
