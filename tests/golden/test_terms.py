# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Elementary terms against `terms.json` and overlaps against `numeric.json`, here or in the folder BOXWRIGHT_GOLDEN.

Every entry is collected: those of a term that we do not have yet are skipped by name.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.golden.inputs import BUILDERS, crc
from torch import Tensor

from boxwright.losses.functional import (
    bce_with_logits,
    blurred_bce,
    cross_entropy,
    distribution_focal,
    focal,
    quality_focal,
    varifocal,
)
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.ops.overlap import paired_overlap
from boxwright.ops.probiou import paired_probiou

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent)
Inputs = dict[str, Tensor]


def _overlap(name: str, box_format: str) -> Callable[[Tensor, Inputs], Tensor]:
    def run(a: Tensor, inputs: Inputs) -> Tensor:
        b = inputs["b"] if box_format == "cxcywh" else cxcywh_to_xyxy(inputs["b"])
        return paired_overlap(a, b, name, box_format)

    return run


TERMS: dict[str, Callable[[Tensor, Inputs], Tensor]] = {
    **{f"centre_{name}": _overlap(name, "cxcywh") for name in ("iou", "giou", "diou", "ciou")},
    **{f"corner_{name}": _overlap(name, "xyxy") for name in ("iou", "giou", "diou", "ciou")},
    "prob_iou": lambda a, inputs: paired_probiou(a, torch.cat((inputs["b"], inputs["theta"][:, 1:]), dim=1)),
    "bce_soft": lambda z, inputs: bce_with_logits(z, inputs["soft"]),
    "bce_pos_weight_2": lambda z, inputs: bce_with_logits(z, inputs["hard"], 2.0),
    "cross_entropy": lambda z, inputs: cross_entropy(z, inputs["index"].long()),
    "cross_entropy_smoothing_0.1": lambda z, inputs: cross_entropy(z, inputs["index"].long(), smoothing=0.1),
    "varifocal_rowmean_sum": lambda z, inputs: (
        varifocal(z, inputs["hard"] * inputs["quality"][:, None], inputs["hard"]).mean(dim=0).sum()
    ),
    "focal_rowmean_sum": lambda z, inputs: focal(z, inputs["hard"]).mean(dim=0).sum(),
    "v5_focal_hard": lambda z, inputs: focal(z, inputs["hard"]),
    "v5_focal_soft": lambda z, inputs: focal(z, inputs["soft"]),
    "v5_quality_focal_soft": lambda z, inputs: quality_focal(z, inputs["soft"]),
    "v5_blurred_mean_soft": lambda z, inputs: blurred_bce(z, inputs["soft"]).mean(),
    "dfl_four_sides": lambda z, inputs: distribution_focal(z[:4].flatten(), inputs["dfl_target"]),
}


def _entries() -> list[Any]:
    path = FOLDER / "terms.json"
    if not path.exists():
        return [pytest.param(None, "", marks=pytest.mark.skip(reason=f"no terms.json in {FOLDER}"))]
    found = []
    for case in json.loads(path.read_text(encoding="utf-8"))["cases"]:
        for name in case["grad"]:
            marks = [] if name in TERMS else [pytest.mark.skip(reason=f"terms.json: no function yet for {name}")]
            found.append(pytest.param(case, name, id=f"{case['name']}-{name}", marks=marks))
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("case", "name"), _entries())
def test_term(case, name, dtype):
    arrays = BUILDERS[case["builder"]](case["params"])
    assert {key: crc(arrays[key]) for key in case["inputs_crc32"]} == case["inputs_crc32"]
    inputs = {key: torch.from_numpy(np.asarray(value)).to(dtype) for key, value in arrays.items()}
    inputs["dfl_target"] = torch.tensor(case["expected"].get("dfl_target", [0.0] * 4), dtype=dtype)
    first = inputs["a"] if "a" in inputs else inputs["logits"]
    if name == "prob_iou":
        first = torch.cat((first, inputs["theta"][:, :1]), dim=1)
    leaf = (cxcywh_to_xyxy(first) if name.startswith("corner_") else first).clone().requires_grad_()

    values = TERMS[name](leaf, inputs)
    values.sum().backward()

    # float32 noise: 1 - iou loses digits of a number near 1, and golden boxes are hundreds of pixels apart.
    relative = 1e-9 if dtype == torch.float64 else 2e-4
    _compare(values, case["expected"][name], relative)
    rows = np.asarray(case["grad"][name]).size  # the distribution reads the first four rows of logits only
    assert leaf.grad.flatten()[rows:].eq(0).all()
    _compare(leaf.grad.flatten()[:rows], case["grad"][name], relative if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_overlap_of_numeric(name):
    path = FOLDER / "numeric.json"
    if not path.exists():
        path = Path(__file__).parent / "numeric.json"
    table = json.loads(path.read_text(encoding="utf-8"))["iou_xyxy"]

    got = paired_overlap(torch.tensor(table["a"]), torch.tensor(table["b"]), name)

    assert got.tolist() == pytest.approx(table[name], abs=1e-6)


def _compare(got: Tensor | None, expected: list[float], relative: float) -> None:
    assert got is not None
    wanted = np.asarray(expected, dtype=np.float64).ravel()
    finite = wanted[np.isfinite(wanted)]
    scale = max(float(np.abs(finite).max(initial=0.0)), 1e-6)
    np.testing.assert_allclose(
        got.detach().double().numpy().ravel(), wanted, rtol=relative, atol=relative * scale * 1e-2
    )
