# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a reader of the package feels, as numbers: how far the heart is from the door, and where a fact has two homes.

`make house` prints them. `bounds.json` holds the value that each has reached, which it may not exceed again
(`test_house.py`); `python -m tests.house --lower` takes a better value over, and never a worse one.
"""

import ast
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from docs import citations
from tests.house.task_names import name_questions

import boxwright

SRC = Path(boxwright.__file__).parent
BOUNDS = Path(__file__).with_name("bounds.json")
README = Path(__file__).parents[2] / "README.md"
ASSETS = {".html", ".js", ".css"}
# Where tasks are described: these files may ask which task it is.
ABOUT_TASKS = ("vocabulary.py",)
SIDE = 64  # px, of the image that the step is followed with


@dataclass(frozen=True)
class Measure:
    """One number, what it should become, and what makes it up.

    `before` is the value at commit ed78df4, counted by the same rule but for the reading order, which had six files.
    `lines` list what was counted, for a person. The size of the package has no bound: it follows what that can do.
    """

    name: str
    value: int
    before: int
    aim: int
    lines: tuple[str, ...] = ()
    bounded: bool = True


def sources(src: Path = SRC) -> dict[str, str]:
    """Text of every Python file, by its path below the package."""
    return {file.relative_to(src).as_posix(): file.read_text(encoding="utf-8") for file in sorted(src.rglob("*.py"))}


def count_of_lines(text: str) -> int:
    """Lines of a file, as `wc -l` counts those of a file that ends in a newline."""
    return len(text.splitlines())


def reading_order() -> list[str]:
    """Files below the package that the README links, in its order: those that hold the training step."""
    return re.findall(r"\]\(src/boxwright/([\w/]+\.py)\)", README.read_text(encoding="utf-8"))


def reading_lines(src: Path = SRC) -> tuple[str, ...]:
    """Lines of each file of the reading order, as `lines path`."""
    return tuple(f"{count_of_lines((src / name).read_text(encoding='utf-8')):5d} {name}" for name in reading_order())


def package_lines(src: Path = SRC) -> int:
    """Lines of Python and of the report page's assets."""
    assets = (file for file in src.rglob("*") if file.suffix in ASSETS)
    return sum(map(count_of_lines, [*sources(src).values(), *(file.read_text(encoding="utf-8") for file in assets)]))


def task_comparisons(texts: Mapping[str, str]) -> dict[str, list[int]]:
    """Lines that compare a task's name, by file; files about tasks left out."""
    found = {name: name_questions(text) for name, text in texts.items() if not name.startswith(ABOUT_TASKS)}
    return {name: lines for name, lines in found.items() if lines}


def classes_defined_twice(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Files of every class name that more than one `class` statement has."""
    homes: dict[str, list[str]] = defaultdict(list)
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    return {name: files for name, files in sorted(homes.items()) if len(files) > 1}


def file_names_used_twice(files: Iterable[str]) -> dict[str, list[str]]:
    """Files of every name that stands in more than one folder.

    Not counted: `__init__.py`; commands, called after what they command; kernels, called as what they make faster; old
    paths that lead elsewhere.
    """
    homes: dict[str, list[str]] = defaultdict(list)
    for file in files:
        room, _, _ = file.partition("/")
        if room not in ("cli", "kernels", "data") and not file.endswith("__init__.py"):
            homes[file.rpartition("/")[2]].append(file)
    return {name: places for name, places in sorted(homes.items()) if len(places) > 1}


def import_graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Files that each file imports, wherever the statement stands: in functions and under TYPE_CHECKING too."""
    modules = {"boxwright." + name.removesuffix(".py").replace("/", "."): name for name in texts}
    modules = {module.removesuffix(".__init__"): name for module, name in modules.items()}
    graph: dict[str, set[str]] = {}
    for name, text in texts.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}": node.module for alias in node.names}
                imported |= {path if path in modules else str(module) for path, module in inner.items()}
        graph[name] = {modules[path] for path in imported if path in modules} - {name}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that can all reach one another."""

    def reached_from(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for node in graph[ahead.pop()] - seen:
                seen.add(node)
                ahead.append(node)
        return seen

    reached = {node: reached_from(node) for node in graph}
    groups = {
        frozenset(other for other in reached[node] if node in reached[other]) for node in graph if node in reached[node]
    }
    return sorted(sorted(group) for group in groups)


def lost_citations(src: Path = SRC) -> list[str]:
    """Lines whose citation leads to no heading of a page in the repository, as `file:line`."""
    found = []
    for file in sorted(file for file in src.rglob("*") if file.suffix in {".py", *ASSETS}):
        for first, text in citations.prose(file):
            lost = [place.start for place in citations.understood(text) if not followed(place)]
            lost += [start for start, _, _ in citations.strays(text)]
            found += [f"{file.relative_to(src)}:{first + text.count(chr(10), 0, start)}" for start in sorted(lost)]
    return list(dict.fromkeys(found))


def followed(place: citations.Place) -> bool:
    """Whether a citation leads somewhere."""
    return place.name in citations.places(place.book)


Entered = tuple[str, CodeType, bool]  # file below the package, code, whether a watched value came in


class Walk:
    """The package's functions in the order in which control enters them, while `follow` runs something.

    Attributes:
        entered: one entry for each function that was entered.
        from_body: how many of them with a watched value were called by the first function itself.
    """

    def __init__(self, src: Path = SRC) -> None:
        self.entered: list[Entered] = []
        self.from_body = 0
        self._src = f"{src}/"
        self._depth = 0

    def follow(self, run: Callable[[], Any], watched: Callable[[Iterable[Any]], bool] = lambda values: False) -> "Walk":
        """Calls `run` and records it; `watched` says of the arguments of a function whether they hold what is sought.

        Hand-written gradients are entered by the backward pass on the same thread, so they are recorded too.
        """
        asking = False

        def hook(frame: FrameType, event: str, _: object) -> None:
            nonlocal asking
            code = frame.f_code
            if asking or event not in ("call", "return") or not code.co_filename.startswith(self._src):
                return
            if event == "return":
                self._depth -= 1
                return
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            asking = True
            carries = watched(frame.f_locals.get(name) for name in names)
            asking = False
            self.entered.append((code.co_filename.removeprefix(self._src), code, carries))
            self.from_body += carries and self._depth == 1
            self._depth += 1

        before = sys.getprofile()
        sys.setprofile(hook)
        try:
            run()
        finally:
            sys.setprofile(before)
        return self

    @property
    def files(self) -> Counter[str]:
        """How often each file was entered."""
        return Counter(file for file, _, _ in self.entered)

    @property
    def changes(self) -> int:
        """How often the next function lies in another file than the one before."""
        names = [file for file, _, _ in self.entered]
        return sum(first != second for first, second in pairwise(names))

    @property
    def carriers(self) -> list[str]:
        """Functions that a watched value came into, once each, in the order of the first visit."""
        return list(dict.fromkeys(f"{file}: {code.co_qualname}" for file, code, carries in self.entered if carries))


def tensors_in(value: Any) -> Iterator[Any]:
    """Every tensor of a value, through dataclasses, tuples and lists."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name, None))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)


def drawn_step() -> tuple[Any, Any, Any]:
    """Criterion of yolov8n, outputs with gradients of fresh weights, and prepared targets: two images of 64 px."""
    import torch

    from boxwright.presets import preset
    from boxwright.structures import Targets

    torch.manual_seed(0)
    recipe = preset("yolov8n", num_classes=4)
    model: Any = recipe.model.build().train()
    boxes = [[[4, 4, 30, 30], [20, 10, 60, 50], [33, 33, 61, 62]], [[1, 1, 40, 60], [0, 0, 0, 0], [0, 0, 0, 0]]]
    valid = torch.tensor([[True, True, True], [True, False, False]])
    targets = Targets(torch.tensor([[0, 1, 2], [3, 0, 0]]), torch.tensor(boxes, dtype=torch.float32), valid)
    criterion: Any = recipe.criterion
    targets = criterion.prepare(targets, model.grid((SIDE, SIDE)))
    return criterion, model(torch.rand(2, 3, SIDE, SIDE)), targets


def loss_walk() -> Walk:
    """One yolov8 detect loss and its backward pass."""
    criterion, outputs, targets = drawn_step()
    return Walk().follow(lambda: criterion(outputs, targets).total.backward())


def assigner_walk() -> Walk:
    """One call of yolov8's assigner; watched are the targets and everything that shares memory with one of them."""
    criterion, outputs, targets = drawn_step()
    (rule,) = criterion.rules.values()
    ours = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(targets) if tensor.numel()}

    def hold_targets(values: Iterable[Any]) -> bool:
        return any(
            tensor.numel() and tensor.untyped_storage().data_ptr() in ours
            for value in values
            for tensor in tensors_in(value)
        )

    return Walk().follow(lambda: rule.assigner(outputs.final, targets), hold_targets)


def measured() -> list[Measure]:
    """Every measure of the package as it stands."""
    texts = sources()
    loss, assigner = loss_walk(), assigner_walk()
    reading = reading_lines()
    tasks, twice = task_comparisons(texts), classes_defined_twice(texts)
    groups, lost = circles(import_graph(texts)), lost_citations()
    visits = tuple(f"{count:4d} {name}" for name, count in sorted(loss.files.items()))
    carriers = tuple(assigner.carriers)
    lines = sum(int(line.split()[0]) for line in reading)
    asking = tuple(f"{name}: lines {', '.join(map(str, numbers))}" for name, numbers in tasks.items())
    homes = tuple(f"{name}: {', '.join(files)}" for name, files in twice.items())
    namesakes = file_names_used_twice(texts)
    folders = tuple(f"{name}: {', '.join(files)}" for name, files in namesakes.items())
    return [
        Measure("lines until the training step is known", lines, 1662, 750, reading),
        Measure("files that one yolov8 detect loss enters", len(loss.files), 23, 16, visits),
        Measure("changes of file in one yolov8 detect loss", loss.changes, 124, 70),
        Measure("functions that the targets of TaskAligned come into", len(carriers), 19, 14, carriers),
        Measure("returns from them to the body of TaskAligned", assigner.from_body, 9, 6),
        Measure("files that compare a task's name", len(tasks), 34, 0, asking),
        Measure("import circles at file level", len(groups), 3, 0, tuple(" <-> ".join(group) for group in groups)),
        Measure("class names defined twice", len(twice), 15, 0, homes),
        Measure("file names used twice", len(namesakes), 25, 0, folders),
        Measure("lines that cite a document nobody can open", len(lost), 134, 0, tuple(lost)),
        Measure("lines of Python and assets", package_lines(), 44310, 41700, bounded=False),
    ]


def bounds() -> dict[str, int]:
    """The value that each measure has reached."""
    return dict(json.loads(BOUNDS.read_text(encoding="utf-8")))


def lowered(limits: Mapping[str, int], now: Sequence[Measure]) -> dict[str, int]:
    """Bounds after these measurements: the better of the two values, never a worse one."""
    return {one.name: min(one.value, limits.get(one.name, one.value)) for one in now if one.bounded}


def over(limits: Mapping[str, int], now: Sequence[Measure]) -> list[str]:
    """A message for each measure that is worse than its bound, with what was counted."""
    worse = [one for one in now if one.bounded and one.value > limits.get(one.name, one.value)]
    return ["\n  ".join((f"{one.name}: {one.value}, was {limits[one.name]}", *one.lines)) for one in worse]


def table(limits: Mapping[str, int], now: Sequence[Measure]) -> str:
    """The measures beside their bounds and aims, as text."""
    rows = [("measure", "before", "bound", "today", "aim")]
    rows += [(one.name, str(one.before), str(limits.get(one.name, "-")), str(one.value), str(one.aim)) for one in now]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    return "\n".join(lines)
