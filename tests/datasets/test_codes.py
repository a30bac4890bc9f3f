# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Codes of findings: one constant each, explained, and reported somewhere."""

import ast
from pathlib import Path

import boxwright
from boxwright.datasets import codes
from boxwright.datasets.codes import CODES

SRC = Path(boxwright.__file__).parent
CONSTANTS = {name: value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}


def test_a_constant_is_called_as_its_code():
    assert len(CONSTANTS) == len(CODES) > 90
    assert {name: CODES[value].code for name, value in CONSTANTS.items()} == {name: name.lower() for name in CONSTANTS}


def test_every_code_says_what_it_means_with_an_example_and_what_to_do():
    for facts in CODES.values():
        assert min(map(len, (facts.what, facts.example, facts.fix))) > 2, facts


def test_every_code_is_reported_somewhere():
    used = {
        node.attr
        for file in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr.isupper() and getattr(node.value, "id", "") == "codes"
    }
    assert set(CONSTANTS) - used == set()
    assert used - set(CONSTANTS) == set()
