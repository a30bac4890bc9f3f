# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a task is: one row of facts each, the way back from facts to a task, and no task's name compared elsewhere."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from tests.house.task_names import name_questions

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


def test_no_file_asks_for_the_name_of_a_task():
    files = [file for file in sorted(SRC.rglob("*.py")) if file.name != "vocabulary.py"]
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
        "match task:\n    case 'segment' | 'other': pass",
        "match (task, 3):\n    case ('pose' | 'obb', 3): pass",
        "SUFFIXES = {'detect': '', 'segment': '-seg'}",
        "gains = {'box': 1.0, 'segment': 7.5}",
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
