# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import subprocess
import sys

import pytest

from boxwright.config import from_yaml, override, to_yaml
from boxwright.errors import ConfigError
from boxwright.evaluation.config import EvaluationConfig


def test_survives_yaml():
    config = EvaluationConfig(conf=0.01, curve="legacy", batch=4)

    assert from_yaml(EvaluationConfig, to_yaml(config)) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("conf=1.5", "evaluation.conf: expected a number from 0 to 1, got 1.5"),
        ("iou=-1", "evaluation.iou: expected a number from 0 to 1"),
        ("max_det=0", "evaluation.max_det: expected at least 1, got 0"),
        ("batch=0", "evaluation.batch: expected at least 1, got 0"),
        ("curve=2024", "curve"),
    ],
)
def test_values_out_of_range_are_named(setting, message):
    with pytest.raises(ConfigError, match=message):
        override(EvaluationConfig(), [setting])


def test_needs_no_torch():
    code = "import sys, boxwright.evaluation.config; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
