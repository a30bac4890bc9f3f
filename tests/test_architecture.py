# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The rooms and doors of the package, checked over its import graph; run by `make check`."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "boxwright"

# Which rooms a room may import, besides itself. A room is a package or a module directly below `boxwright`.
FOUNDATION = {"errors", "structures", "config", "vocabulary", "results", "faults"}
SIBLINGS = {"models", "losses", "data", "evaluation", "viz"}
BELOW_TASKS = FOUNDATION | SIBLINGS | {"ops"}
BELOW_ENGINE = BELOW_TASKS | {"tasks"}
DOORS = {
    "errors": set(),
    "structures": {"errors"},
    "config": {"errors"},
    "vocabulary": {"errors", "config"},
    "results": {"errors", "config", "vocabulary", "structures"},
    "faults": {"structures"},  # of a loss; engine and inspector both tell them
    "ops": FOUNDATION,
    **{room: FOUNDATION | {"ops"} for room in SIBLINGS},
    "tasks": BELOW_TASKS,
    "engine": BELOW_ENGINE | {"__init__"},  # the version, for the run folder
    "inspector": BELOW_ENGINE,
    "presets": BELOW_ENGINE | {"engine"},
    "api": BELOW_ENGINE | {"engine", "presets"},
    "api_inspect": BELOW_ENGINE | {"engine", "presets", "api", "inspector"},
    "api_audit": BELOW_ENGINE | {"engine", "presets", "api", "inspector"},
    "cli": BELOW_ENGINE | {"engine", "presets", "api", "api_inspect", "api_audit", "inspector", "__init__"},
    "__main__": {"cli"},
    "__init__": BELOW_ENGINE | {"engine", "presets", "api", "api_audit", "api_inspect", "inspector"},
}
# Data that several rooms share; it computes nothing.
SHARED_FILES = {"boxwright.datasets.sample": {"tasks", "evaluation"}}

NEVER_IMPORTED = {"ultralytics", "torchvision", "timm", "pickle", "requests", "urllib", "socket"}
NO_TORCH = (  # what `boxwright check` is made of
    "boxwright",
    "boxwright.config",
    "boxwright.errors",
    "boxwright.cli.app",
    "boxwright.data",
    "boxwright.datasets.checks",
    "boxwright.datasets.dataset",
    "boxwright.datasets.formats",
    "boxwright.datasets.images",
    "boxwright.datasets.sample",
    "boxwright.engine.logs",
    "boxwright.evaluation.config",
    "boxwright.ops.letterbox",
    "boxwright.presets",
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
    return parts[1] if len(parts) > 1 else "__init__"


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


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_lies_below_it(module):
    room = room_of(module)
    wrong = []
    for target in imports(MODULES[module]):
        if target.split(".")[0] != "boxwright" or room in SHARED_FILES.get(target, ()):
            continue
        other = room_of(target)
        if other != room and other not in DOORS[room]:
            wrong.append(target)
    assert not wrong, f"{module} lives in '{room}' and must not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_forbidden_is_imported(module):
    tops = {name.split(".")[0] for name in imports(MODULES[module])}
    assert not tops & NEVER_IMPORTED


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


@pytest.mark.parametrize("name", MODULES)
def test_every_file_has_its_licence_and_says_what_it_is(name):
    text = MODULES[name].read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[:2] == ["# SPDX-License-Identifier: Apache-2.0", "# SPDX-FileCopyrightText: The boxwright authors"]
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, f"{name} has no docstring"
    assert "todo" not in docstring.lower()
    assert "placeholder" not in docstring.lower()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_future_annotations_are_not_used(name):
    assert "__future__" not in imports(MODULES[name])


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
    from boxwright.losses.terms import Term
    from boxwright.models.backbones import BackboneConfig
    from boxwright.models.heads import HeadConfig
    from boxwright.models.necks import NeckConfig

    for union in (Assigner, Term, BackboneConfig, NeckConfig, HeadConfig):
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
