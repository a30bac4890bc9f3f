# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Denoising queries against `denoising.json` and `denoising_modern.json`, here or in the folder BOXWRIGHT_GOLDEN."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.golden.adapt_detr import denoising
from tests.golden.inputs import BUILDERS, crc

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent)
FILES = ("denoising", "denoising_modern")
RELATIVE = {torch.float64: 1e-6, torch.float32: 2e-4}


def _cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{name}-{case['name']}")
        for name in FILES
        for case in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", _cases())
def test_queries_mask_and_pairs(case, dtype):
    inputs, expected = BUILDERS[case["builder"]](case["params"]), case["expected"]
    assert {name: crc(inputs[name]) for name in case["inputs_crc32"]} == case["inputs_crc32"]

    made = denoising(case, inputs, dtype)

    assert made.labels.tolist() == expected["labels"]
    assert made.groups == expected["groups"]
    assert [made.labels.shape[1], made.blocked.shape[0] - made.labels.shape[1]] == expected["split"]
    assert list(made.box_logits.shape) == expected["box_shape"]
    flat, boxes = made.box_logits.double().flatten(), expected["boxes"]
    assert made.box_logits.dtype == dtype
    assert flat.norm().item() == pytest.approx(boxes["l2"], rel=RELATIVE[dtype])
    assert flat.sum().item() == pytest.approx(boxes["sum"], abs=RELATIVE[dtype] * boxes["l2"])
    for index, value in boxes["samples"]:
        assert flat[index].item() == pytest.approx(value, rel=RELATIVE[dtype], abs=1e-9), index
    assert made.blocked.sum().item() == expected["blocked_count"]
    assert crc(made.blocked.numpy().astype(np.int64)) == expected["blocked_crc32"]
    known = made.known
    positives = [known.anchor[known.image == image].tolist() for image in range(len(expected["positives"]))]
    assert positives == expected["positives"]
