# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`from boxwright.losses import ...` gives everything that a user of the losses needs."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import boxwright.losses as losses
from boxwright.config import _members
from boxwright.losses import adapters, dense_recipes, query_recipes, recipes
from boxwright.losses.assign import Assigner
from boxwright.losses.terms import BuiltInTerm


def public_functions(module):
    return {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def test_every_name_is_what_it_says():
    for name in losses.__all__:
        value = getattr(losses, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__name__ == name
        else:
            assert get_args(value), name  # the words of a `Literal`


@pytest.mark.parametrize("union", [BuiltInTerm, Assigner], ids=["terms", "assigners"])
def test_every_built_in_part_can_be_imported(union):
    missing = {part.__name__ for part in _members(union)} - set(losses.__all__)
    assert not missing, f"add {', '.join(sorted(missing))} to the lists of boxwright/losses/__init__.py"


def test_every_adapter_and_complete_criterion_can_be_imported():
    names = set(adapters.__all__) | public_functions(recipes) | public_functions(dense_recipes)
    names |= public_functions(query_recipes)
    assert not names - set(losses.__all__)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(losses.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: f"{node.module}" for node in block.body for alias in node.names}
    homes = {name: f"boxwright.{home}" for home, names in losses._HOMES.items() for name in names}
    assert seen == homes


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'boxwright.losses' has no attribute 'nothing'"):
        losses.nothing  # noqa: B018


def test_importing_the_room_costs_nothing():
    code = "import sys, boxwright.losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
