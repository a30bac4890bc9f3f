# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a task is: one row of facts each, the way back from facts to a task, and no task's name compared elsewhere."""

import ast
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from boxwright.cli.demo import DemoTask
from boxwright.cli.options import TaskChoice
from boxwright.errors import ConfigError
from boxwright.vocabulary import TASK_NAMES, TASKS, task_with

SRC = Path(__file__).parents[1] / "src" / "boxwright"
FACTS = ("whole_image", "outlines", "keypoints", "oriented")


def facts_of(task):
    """The facts about labels and outputs that a task's row states, by name."""
    return {fact: True for fact in FACTS if getattr(TASKS[task], fact)}


def test_every_task_has_a_row_and_every_row_is_a_task():
    assert tuple(TASKS) == TASK_NAMES


@pytest.mark.parametrize("choices", [TaskChoice, DemoTask])
def test_the_command_line_offers_every_task(choices):
    assert tuple(choices) == TASK_NAMES


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_task_is_found_by_its_facts(task):
    assert task_with(**facts_of(task)) == task


def test_no_two_tasks_have_the_same_facts_or_suffix():
    assert max(Counter(frozenset(facts_of(task)) for task in TASK_NAMES).values()) == 1
    assert max(Counter(facts.suffix for facts in TASKS.values()).values()) == 1


def test_boxes_only_is_the_task_without_a_fact():
    assert [task for task in TASK_NAMES if TASKS[task].boxes_only] == [
        task for task in TASK_NAMES if not facts_of(task)
    ]
    assert sum(facts.boxes_only for facts in TASKS.values()) == 1


@pytest.mark.parametrize("pair", list(combinations(FACTS, 2)), ids="-".join)
def test_facts_that_no_task_joins_are_refused_by_name(pair):
    with pytest.raises(ConfigError, match=f"got {pair[0]}, {pair[1]} together"):
        task_with(**dict.fromkeys(pair, True))


# -- nobody compares a task's name ---------------------------------------------------------------------------------

# What a text is looked up or compared by, besides operators.
LOOKUPS = {"get", "pop", "setdefault", "index", "count", "startswith", "endswith", "eq", "__eq__", "getattr", "hasattr"}


def is_task(node):
    """A task's name as a text, or as the member of an enumeration of tasks."""
    if isinstance(node, ast.Constant):
        return node.value in TASK_NAMES
    return isinstance(node, ast.Attribute) and node.attr.isupper() and node.attr.lower() in TASK_NAMES


def all_tasks(nodes):
    """Nothing but names of tasks: among other words, `pose` and the rest may mean something else."""
    return bool(nodes) and all(isinstance(node, ast.Constant) and is_task(node) for node in nodes)


def asks_for_a_name(node):
    """Whether a piece of syntax lets something depend on which name a task has."""
    match node:
        case ast.Compare():
            return any(is_task(part) for side in (node.left, *node.comparators) for part in ast.walk(side))
        case ast.MatchOr():
            return all_tasks([part.value for part in node.patterns if isinstance(part, ast.MatchValue)])
        case ast.match_case(pattern=ast.MatchValue(value=value)):
            return is_task(value)
        case ast.Dict():
            return all_tasks([key for key in node.keys if key is not None])
        case ast.Set():
            return all_tasks(node.elts)
        case ast.Subscript(value=table, slice=key):
            return is_task(key) and not (isinstance(table, ast.Name) and table.id == "TASKS")
        case ast.Call(func=ast.Name(id="dict"), keywords=words) if words:
            return all(word.arg in TASK_NAMES for word in words)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in LOOKUPS and any(is_task(argument) for argument in node.args)
    return False


def name_questions(text):
    """The lines of a source file that compare the name of a task, or choose by it."""
    tree = ast.parse(text)
    lines = {node.lineno for node in ast.walk(tree) if hasattr(node, "lineno") and asks_for_a_name(node)}
    lines |= {
        case.pattern.lineno for case in ast.walk(tree) if isinstance(case, ast.match_case) and asks_for_a_name(case)
    }
    lines |= {node.lineno for node in tree.body if isinstance(node, ast.Assign) and is_task(node.value)}
    return sorted(lines)


def test_no_file_asks_for_the_name_of_a_task():
    files = [
        file for file in sorted(SRC.rglob("*.py")) if file.name != "vocabulary.py" and "datasets" not in file.parts
    ]
    assert len(files) > 200
    found = [f"{file.relative_to(SRC)}:{line}" for file in files for line in name_questions(file.read_text("utf-8"))]
    assert not found, "ask `vocabulary.TASKS[task]` for the fact instead:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "if task == 'pose': pass",
        "if 'obb' != config.task: pass",
        "oriented = task in ('obb', 'other')",
        "plain = task not in {'segment'}",
        "same = task is 'detect'",
        "some = task in frozenset(('pose', 'obb'))",
        "some = {'pose', 'obb'} & {task}",
        "one = task == TaskChoice.POSE",
        "match task:\n    case 'pose': pass",
        "match task:\n    case 'pose' | 'obb': pass",
        "match (task, 3):\n    case ('pose' | 'obb', 3): pass",
        "SUFFIXES = {'detect': '', 'segment': '-seg'}",
        "SUFFIXES = dict(detect='', segment='-seg')",
        "suffix = SUFFIXES['classify']",
        "suffix = table.get('obb')",
        "pose = getattr(module, 'pose')",
        "is_pose = task.startswith('pose')",
        "CLASSIFY = 'classify'",
    ],
)
def test_a_question_for_a_name_is_seen(text):
    assert name_questions(text), text


@pytest.mark.parametrize(
    "text",
    [
        "def draw(task='detect'): pass",
        "data = DataConfig(task='classify')",
        "job.refuse(('detect', 'segment'))",
        "suffix = TASKS['classify'].suffix",
        "gains = {'box': 7.5, 'pose': 12.0}",
        "match path:\n    case ['object', ('pose' | 'truncated') as name]: pass",
        "class Choice(StrEnum):\n    POSE = 'pose'",
    ],
)
def test_a_name_that_is_only_passed_on_is_no_question(text):
    assert not name_questions(text), text
