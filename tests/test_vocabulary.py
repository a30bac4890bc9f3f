# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a task is: one row of facts each, and the way back from facts to a task."""

from collections import Counter
from itertools import combinations

import pytest

from boxwright.errors import ConfigError
from boxwright.vocabulary import TASK_NAMES, TASKS, task_with

FACTS = ("whole_image", "outlines", "keypoints", "oriented")


def facts_of(task):
    """The facts about labels and outputs that a task's row states, by name."""
    return {fact: True for fact in FACTS if getattr(TASKS[task], fact)}


def test_every_task_has_a_row_and_every_row_is_a_task():
    assert tuple(TASKS) == TASK_NAMES


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
