# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The rooms and doors of the package, checked over its import graph; run by `make check`."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "boxwright"

# Which rooms a room may import, besides itself. A room is a package or a module directly below `boxwright`, or one that
# is named here.
FOUNDATION = {"errors", "structures", "config", "vocabulary", "results", "faults"}
STEP = FOUNDATION | {"ops", "kernels", "losses", "models"}
FILES = FOUNDATION | {"ops", "datasets", "loading"}
BELOW_TASKS = STEP | FILES | {"evaluation", "viz"}
BELOW_ENGINE = BELOW_TASKS | {"tasks"}
BELOW_PRESETS = BELOW_ENGINE | {"engine"}
LOOKING = {"inspector", "auditor", "reports", "table"}
DOORS = {
    "errors": set(),
    "version": set(),
    "structures": {"errors"},
    "config": {"errors"},
    "vocabulary": {"errors", "config"},
    "results": {"errors", "config", "vocabulary", "structures"},
    "faults": {"structures"},  # of a loss; engine and inspector both tell them
    "table": {"errors"},
    "ops": FOUNDATION,
    "kernels": FOUNDATION | {"ops"},
    "kernels.terms": FOUNDATION | {"ops", "kernels", "losses"},  # found by the name of the term, so nobody imports it
    "losses": FOUNDATION | {"ops", "kernels"},
    "kernels.assign": FOUNDATION | {"ops", "kernels", "losses"},  # the same for assigners
    "models": FOUNDATION | {"ops"},
    "datasets": FOUNDATION | {"ops"},
    "loading": FOUNDATION | {"ops", "datasets"},
    "drawn": FOUNDATION | {"datasets"},
    "evaluation": FOUNDATION | {"ops"},
    "viz": FOUNDATION | {"ops"},
    "tasks": STEP | {"evaluation"},
    "engine": BELOW_ENGINE | {"version"},  # the version, for the run folder
    "presets": BELOW_PRESETS,
    "export": BELOW_PRESETS | {"drawn", "version"},
    "foreign": BELOW_PRESETS | {"presets"},
    "inspector": BELOW_ENGINE | {"table"},
    "auditor": FILES | {"losses", "table"},
    "reports": BELOW_ENGINE | {"inspector", "auditor", "table"},
    "api": BELOW_PRESETS | LOOKING | {"presets", "export", "foreign"},
    "cli": BELOW_PRESETS | LOOKING | {"presets", "export", "foreign", "drawn", "api", "version"},
    "data": {"datasets", "loading", "drawn"},  # import paths of earlier documentation
    "__main__": {"cli"},
    "__init__": BELOW_PRESETS | LOOKING | {"presets", "api", "version"},
}

NEVER_IMPORTED = {"ultralytics", "torchvision", "timm", "pickle", "requests", "urllib", "socket"}
NO_TORCH = (  # what `boxwright check` is made of
    "boxwright",
    "boxwright.config",
    "boxwright.errors",
    "boxwright.cli.app",
    "boxwright.data.formats",
    "boxwright.datasets",
    "boxwright.datasets.checks",
    "boxwright.datasets.convert",
    "boxwright.datasets.dataset",
    "boxwright.datasets.formats",
    "boxwright.datasets.images",
    "boxwright.datasets.sample",
    "boxwright.datasets.tiles",
    "boxwright.drawn.synthetic",
    "boxwright.engine.logs",
    "boxwright.evaluation.config",
    "boxwright.ops.letterbox",
    "boxwright.presets",
    "boxwright.table",
    "boxwright.vocabulary",
)
ROOM_CARD = ("lives here", "may import", "never")


def modules():
    """Dotted name and file of every module of the package."""
    for file in sorted(SRC.rglob("*.py")):
        parts = file.relative_to(SRC.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


MODULES = dict(modules())


def room_of(module):
    parts = module.split(".")
    inner = ".".join(parts[1:3])  # a room inside a room
    return inner if inner in DOORS else parts[1] if len(parts) > 1 else "__init__"


@cache
def imports(file):
    """Every module a file imports, wherever in the file, with names resolved to modules of ours."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return frozenset(found)


def test_the_package_is_found():
    assert {"boxwright", "boxwright.structures", "boxwright.losses.criterion", "boxwright.cli.app"} <= set(MODULES)


def test_every_room_has_a_place_in_the_table():
    assert {room_of(name) for name in MODULES} <= set(DOORS)


def closed_doors(module, targets):
    """The modules among `targets` that the room of `module` may not import."""
    room = room_of(module)
    ours = (target for target in targets if target.split(".")[0] == "boxwright")
    return {target for target in ours if room_of(target) != room and room_of(target) not in DOORS[room]}


def test_a_room_imports_only_what_lies_below_it():
    wrong = {module: sorted(closed_doors(module, imports(file))) for module, file in MODULES.items()}
    lines = [f"{module} must not import {', '.join(targets)}" for module, targets in wrong.items() if targets]
    assert not lines, "\n".join(lines)


def test_the_meaning_of_a_term_needs_no_kernel():
    terms = {name: imports(file) for name, file in MODULES.items() if name.startswith("boxwright.losses.terms")}
    wrong = [name for name, found in terms.items() if any(target.startswith("boxwright.kernels") for target in found)]
    assert len(terms) > 10
    assert not wrong


def test_a_closed_door_is_seen():
    assert closed_doors("boxwright.losses.criterion", {"boxwright.models.network", "boxwright.ops.boxes", "torch"}) == {
        "boxwright.models.network"
    }


def circle(graph):
    """Some modules that import one another in a circle, in order; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_files_import_one_another_in_a_circle():
    """Under TYPE_CHECKING and inside functions too: whatever is read first can be understood first."""
    graph = {module: imports(file) & set(MODULES) for module, file in MODULES.items()}
    assert not circle(graph), " -> ".join(circle(graph))


def test_a_circle_is_seen():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}}
    assert set(circle(graph)) == {"b", "c"}
    assert not circle(graph | {"c": set()})


def test_the_rooms_lie_in_layers():
    assert not circle(DOORS), " -> ".join(circle(DOORS))


def test_nothing_forbidden_is_imported():
    tops = {module: {name.split(".")[0] for name in imports(file)} for module, file in MODULES.items()}
    wrong = [f"{module}: {', '.join(sorted(names & NEVER_IMPORTED))}" for module, names in tops.items()
             if names & NEVER_IMPORTED]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_the_import_rule_sees_a_wrong_import(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("def late():\n    from boxwright.losses import criterion\n    import boxwright.engine.trainer\n")
    assert imports(file) == {"boxwright.losses.criterion", "boxwright.engine.trainer"}


@pytest.mark.parametrize(
    "name", [name for name, file in MODULES.items() if file.name == "__init__.py" and name != "boxwright"]
)
def test_every_package_opens_with_its_room_card(name):
    if name.count(".") > 1:
        return  # a room inside a room: the docstring below is enough
    card = (ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8"))) or "").lower()
    missing = [part for part in ROOM_CARD if part not in card]
    assert not missing, f"{name}: the room card does not say what {', '.join(missing)}"


LICENCE = ["# SPDX-License-Identifier: Apache-2.0", "# SPDX-FileCopyrightText: The boxwright authors"]


def heading_faults(text):
    """What is wrong with the first lines of a file."""
    docstring = (ast.get_docstring(ast.parse(text)) or "").lower()
    if text.splitlines()[:2] != LICENCE:
        yield "no licence in its first two lines"
    if not docstring:
        yield "no docstring"
    yield from (f"its docstring says {word!r}" for word in ("todo", "placeholder") if word in docstring)


def test_every_file_has_its_licence_and_says_what_it_is():
    faults = {name: list(heading_faults(file.read_text(encoding="utf-8"))) for name, file in MODULES.items()}
    lines = [f"{name}: {', '.join(found)}" for name, found in faults.items() if found]
    assert not lines, "\n".join(lines)


def test_a_missing_heading_is_seen():
    assert list(heading_faults("x = 1\n")) == ["no licence in its first two lines", "no docstring"]
    assert list(heading_faults("\n".join([*LICENCE, '"""A TODO."""']))) == ["its docstring says 'todo'"]


def test_future_annotations_are_not_used():
    assert not [name for name, file in MODULES.items() if "__future__" in imports(file)]


def test_nothing_is_left_unwritten():
    """Protocols and abstract methods say `...`; a NotImplementedError is a stub."""
    stubs = [name for name, file in MODULES.items() if "NotImplementedError" in file.read_text(encoding="utf-8")]
    assert not stubs


@pytest.mark.parametrize("module", NO_TORCH)
def test_a_module_of_the_light_side_loads_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def has_test(name):
    return any((ROOT / "tests").rglob(name))


def members(union):
    """The classes of a union, or the class itself where the list has one member so far."""
    from boxwright.config import _members

    return _members(union)


def listed():
    from boxwright.losses.assign import Assigner
    from boxwright.losses.terms import BuiltInTerm
    from boxwright.models.backbones import BackboneConfig
    from boxwright.models.heads import HeadConfig
    from boxwright.models.necks import NeckConfig

    for union in (Assigner, BuiltInTerm, BackboneConfig, NeckConfig, HeadConfig):
        yield from members(union)


def test_every_listed_component_has_a_test_of_its_file():
    missing = [part.__name__ for part in listed() if not has_test(f"test_{part.__module__.rpartition('.')[2]}.py")]
    assert not missing


def test_every_listed_component_says_what_it_is_and_where_it_comes_from():
    for part in listed():
        module = sys.modules[part.__module__]
        assert part.__doc__, part
        assert not part.__doc__.startswith(f"{part.__name__}("), f"{part.__name__} has only the generated docstring"
        assert "Source:" in part.__doc__ or "Source:" in (module.__doc__ or ""), f"{part.__name__} names no source"


def test_every_format_has_a_test():
    from boxwright.datasets.formats import FORMATS

    names = [getattr(reader, "name", getattr(reader, "__name__", "")).rpartition(".")[2] for reader in FORMATS]
    assert names
    assert all(has_test(f"test_*{name}.py") for name in names), names


def test_every_preset_has_a_test_of_its_family():
    from boxwright.presets import PRESETS

    families = {build.args[0] for build in PRESETS.values()}  # the file in `presets/`
    missing = [family for family in sorted(families) if not has_test(f"test_{family}.py")]
    assert not missing
