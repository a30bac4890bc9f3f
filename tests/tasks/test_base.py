# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import pytest

from boxwright.errors import ConfigError
from boxwright.evaluation.config import EvaluationConfig
from boxwright.tasks import task_named
from boxwright.tasks.base import AnyEvaluator, Forward, SelectOptions, Task
from boxwright.vocabulary import TASK_NAMES, KeypointSpec, Vocabulary


def test_every_task_name_is_a_task_with_results_and_an_evaluator():
    for name in TASK_NAMES:
        task = task_named(name)
        assert isinstance(task, Task)
        assert task.name == name
        evaluator = task.evaluator(
            Vocabulary(task=name, names=("a",), keypoints=KeypointSpec(count=1)), EvaluationConfig()
        )
        assert isinstance(evaluator, AnyEvaluator)
        assert evaluator.result().fitness == 0


def test_an_unknown_task_is_named():
    with pytest.raises(ConfigError, match="expected one of detect, segment, pose, obb, classify, got 'count'"):
        task_named("count")


def test_the_usual_options_are_those_of_prediction():
    options = SelectOptions()
    assert (options.conf, options.iou, options.max_det, options.multi_label) == (0.25, 0.7, 300, False)


def test_anything_callable_that_knows_its_strides_and_classes_is_a_model():
    class Runtime:
        strides = (8, 16, 32)
        num_classes = 2

        def __call__(self, images):
            return images

    assert isinstance(Runtime(), Forward)
    assert not isinstance(object(), Forward)
