# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Finds source that asks for the name of a task where it should ask `vocabulary.TASKS` for a fact."""

import ast
from collections.abc import Sequence

from boxwright.vocabulary import TASK_NAMES

# The others mean more: `pose` and `obb` are kinds of comparison, `pose` is also a loss term and a tag of VOC files.
OF_TASKS_ONLY = {"detect", "segment", "classify"}
# What a text is looked up or compared by, besides operators.
LOOKUPS = {"get", "pop", "setdefault", "index", "count", "startswith", "endswith", "eq", "__eq__", "getattr", "hasattr"}


def is_task(node: ast.AST) -> bool:
    """A task's name as a text, or as the member of an enumeration of tasks."""
    if isinstance(node, ast.Constant):
        return node.value in TASK_NAMES
    return isinstance(node, ast.Attribute) and node.attr.isupper() and node.attr.lower() in TASK_NAMES


def are_tasks(nodes: Sequence[ast.AST]) -> bool:
    """Alternatives that are about tasks: a name that means nothing else among them, or nothing but names of tasks."""
    words = [node.value if isinstance(node, ast.Constant) else None for node in nodes]
    return bool(OF_TASKS_ONLY & set(words)) or (bool(words) and set(words) <= set(TASK_NAMES))


def asks_for_a_name(node: ast.AST) -> bool:
    """Whether a piece of syntax lets something depend on which name a task has."""
    match node:
        case ast.Compare():
            return any(is_task(part) for side in (node.left, *node.comparators) for part in ast.walk(side))
        case ast.MatchOr():
            return are_tasks([part.value for part in node.patterns if isinstance(part, ast.MatchValue)])
        case ast.match_case(pattern=ast.MatchValue(value=value)):
            return is_task(value)
        case ast.Dict():
            return are_tasks([key for key in node.keys if key is not None])
        case ast.Set():
            return are_tasks(node.elts)
        case ast.Subscript(value=table, slice=key):
            return is_task(key) and not (isinstance(table, ast.Name) and table.id == "TASKS")
        case ast.Call(func=ast.Name(id="dict"), keywords=words) if words:
            return all(word.arg in TASK_NAMES for word in words)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in LOOKUPS and any(is_task(argument) for argument in node.args)
    return False


def name_questions(text: str) -> list[int]:
    """The lines of a source file that compare the name of a task, or choose by it."""
    tree = ast.parse(text)
    lines = {node.lineno for node in ast.walk(tree) if hasattr(node, "lineno") and asks_for_a_name(node)}
    lines |= {
        case.pattern.lineno for case in ast.walk(tree) if isinstance(case, ast.match_case) and asks_for_a_name(case)
    }
    lines |= {node.lineno for node in tree.body if isinstance(node, ast.Assign) and is_task(node.value)}
    return sorted(lines)
