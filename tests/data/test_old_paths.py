# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The import paths that earlier documentation showed lead to the same functions."""

import subprocess
import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("old", "home", "name"),
    [
        ("synthetic", "drawn.synthetic", "draw_dataset"),
        ("dataset", "datasets.dataset", "read_split"),
        ("formats", "datasets.formats", "open_dataset"),
        ("loader", "loading.loader", "val_loader"),
    ],
)
def test_an_old_path_gives_the_function_itself(old, home, name):
    found = getattr(import_module(f"boxwright.data.{old}"), name)
    assert found is getattr(import_module(f"boxwright.{home}"), name)


def test_the_package_loads_nothing_until_a_module_is_asked_for():
    code = "import sys, boxwright.data; sys.exit(any(name.startswith('boxwright.dat') and name != 'boxwright.data' "
    code += "for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
