# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import os
from pathlib import Path

import pytest
import torch

from boxwright.ops.scores import class_probabilities, score_limit

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parents[1] / "golden")
EXAMPLE = json.loads((FOLDER / "worked_example.json").read_text())["other_published_facts"]["softmax_vs_sigmoid"]
LOGITS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
OBJECTNESS = torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3


def test_published_numbers():
    logits = torch.tensor(EXAMPLE["logits"], dtype=torch.float64)
    sure = torch.full((2,), 50.0, dtype=torch.float64)  # an object for certain

    for name, exclusive in (("sigmoid", False), ("softmax", True)):
        got = class_probabilities(logits, exclusive, sure)
        assert torch.allclose(got, torch.tensor(EXAMPLE[name], dtype=torch.float64), atol=6e-5), name


def test_formulas():
    exp = LOGITS.exp()
    sure = 1 / (1 + (-OBJECTNESS).exp())[:, None]

    assert torch.allclose(class_probabilities(LOGITS, False), exp / (1 + exp))
    assert torch.allclose(class_probabilities(LOGITS, True), exp / (1 + exp.sum(dim=1, keepdim=True)))
    assert torch.allclose(class_probabilities(LOGITS, False, OBJECTNESS), sure * exp / (1 + exp))
    assert torch.allclose(class_probabilities(LOGITS, True, OBJECTNESS), sure * exp / exp.sum(dim=1, keepdim=True))


def test_one_exclusive_class_beside_background_is_a_sigmoid():
    assert torch.allclose(class_probabilities(LOGITS[:, :1], True), LOGITS[:, :1].sigmoid())


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("objectness", [None, OBJECTNESS])
def test_no_score_is_above_its_limit(exclusive, objectness):
    best = class_probabilities(LOGITS, exclusive, objectness).amax(dim=1)
    limit = score_limit(LOGITS, exclusive, objectness)

    assert (best <= limit + 1e-15).all()
    if not exclusive:
        assert torch.allclose(best, limit)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("exclusive", [False, True])
def test_half_precision_is_read_in_float32(dtype, exclusive):
    got = class_probabilities(torch.tensor([1e4, -1e4], dtype=dtype), exclusive)

    assert got.dtype == torch.float32
    assert got.tolist() == [1, 0]
