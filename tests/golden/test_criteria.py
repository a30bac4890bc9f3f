# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Whole criteria against golden vectors, from this folder or from the one that BOXWRIGHT_GOLDEN names.

Every case of every file is collected: those of a criterion that we do not have yet are skipped by name, with reason.
Tolerances are the ones of spec/losses I.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.golden.adapters import ADAPTERS, Run
from tests.golden.inputs import BUILDERS, crc

from boxwright.structures import Assignment

FOLDER = Path(os.environ.get("BOXWRIGHT_GOLDEN") or Path(__file__).parent)
NOT_CRITERIA = {  # files of another form -> what reads them
    "architectures": "test_architectures.py",
    "terms": "test_terms.py",
    "denoising": "test_denoising.py",
    "denoising_modern": "test_denoising.py",
    "numeric": "tests of the functions it lists",
    "worked_example": "test_worked_example.py",
}
RELATIVE = {torch.float64: 1e-6, torch.float32: 2e-4}
GRADIENT = {torch.float64: 1e-6, torch.float32: 1e-3}  # of the tensor's gradient norm


def _cases() -> list[Any]:
    """One parameter per case, and one skipped parameter per file that has no cases of the common form."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        if path.stem in NOT_CRITERIA:
            continue
        cases = json.loads(path.read_text(encoding="utf-8")).get("cases", [{"name": "whole file"}])
        reason = f"{path.name}: no adapter yet in tests/golden/adapters.py"
        marks = [] if path.stem in ADAPTERS else [pytest.mark.skip(reason=reason)]
        found += [pytest.param(path.stem, case, id=f"{path.stem}-{case['name']}", marks=marks) for case in cases]
    return found


def _note(record_property: Any, criterion: str, kind: str, dtype: torch.dtype, error: float) -> None:
    """One number for the table that `conftest.py` prints at the end."""
    record_property("golden", [criterion, kind, str(dtype).removeprefix("torch."), error])


def _run(criterion: str, case: dict[str, Any], dtype: torch.dtype) -> Run:
    run = ADAPTERS[criterion](case, BUILDERS[case["builder"]](case["params"]), dtype)
    run.total.backward()
    return run


def test_the_folder_holds_every_file_that_has_an_adapter():
    assert set(ADAPTERS) <= {path.stem for path in FOLDER.glob("*.json")}, f"missing in {FOLDER}"


@pytest.mark.parametrize(("criterion", "case"), _cases())
def test_inputs_are_rebuilt_to_the_bit(criterion, case):
    inputs = BUILDERS[case["builder"]](case["params"])

    for name, expected in case["inputs_crc32"].items():
        value = inputs[name]
        assert ([crc(part) for part in value] if isinstance(value, list) else crc(value)) == expected, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("criterion", "case"), _cases())
def test_components_and_total(criterion, case, dtype, record_property):
    run, expected = _run(criterion, case, dtype), case["expected"]
    worst = 0.0

    assert set(run.components) == set(expected["components"])
    for name, value in {**expected["components"], "total": expected["total"]}.items():
        got = run.total if name == "total" else run.components[name]
        assert got.dtype == dtype, name
        assert got.item() == pytest.approx(value, rel=RELATIVE[dtype], abs=1e-12), name
        worst = max(worst, abs(got.item() - value) / max(abs(value), 1e-12 / RELATIVE[dtype]))
    _note(record_property, criterion, "value", dtype, worst)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("criterion", "case"), _cases())
def test_gradients(criterion, case, dtype, record_property):
    run = _run(criterion, case, dtype)
    worst = 0.0

    assert set(run.leaves) == set(case["grad_of_total"])
    for name, expected in case["grad_of_total"].items():
        gradient = run.leaves[name].grad
        assert gradient is not None, name
        flat, within = gradient.double().flatten(), GRADIENT[dtype] * expected["l2"]
        assert flat.norm().item() == pytest.approx(expected["l2"], abs=within), name
        # The sum of n rounding errors of one sign at most; far below the norm for these sizes.
        assert flat.sum().item() == pytest.approx(expected["sum"], abs=within), name
        for index, value in expected["samples"]:
            assert flat[index].item() == pytest.approx(value, abs=within), f"{name}[{index}]"
            worst = max(worst, abs(flat[index].item() - value) / (expected["l2"] or 1.0))
        worst = max(worst, abs(flat.norm().item() - expected["l2"]) / (expected["l2"] or 1.0))
    _note(record_property, criterion, "gradient", dtype, worst)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("criterion", "case"), _cases())
def test_assignment_records(criterion, case, dtype):
    run = _run(criterion, case, dtype)

    if "levels" in case["assignment"]:
        _check_levels(run, case["assignment"], dtype)
        return
    if "matches" in case["assignment"]:
        _check_matches(run, case["assignment"]["matches"])
        return
    for branch, images in case["assignment"].items():
        pairs = run.assignments[branch]
        for image, record in enumerate(images):
            got = _record(pairs, image)
            scored, every = got[got[:, 2] > 0], got
            assert len(every) == record["positives"] or not case["tie_free"]
            assert len(scored) == record["scored_positives"]
            assert scored[:12, :2].astype(int).tolist() == record["first_pairs"]
            assert crc(scored[:, :2].astype(np.int64)) == record["pairs_crc32"]
            assert crc(every[:, :2].astype(np.int64)) == record["all_pairs_crc32"] or not case["tie_free"]
            assert scored[:, 2].sum() == pytest.approx(record["score_sum"], rel=RELATIVE[dtype], abs=1e-12)


def _record(pairs: Assignment, image: int) -> np.ndarray:
    """Rows (anchor, slot, weight) of the image's pairs in anchor order."""
    mine = pairs.valid & (pairs.image == image)
    rows = torch.stack((pairs.anchor[mine].double(), pairs.target[mine].double(), pairs.weight[mine].double()), dim=1)
    return rows[rows[:, 0].argsort()].numpy()


def _check_levels(run: Run, record: dict[str, Any], dtype: torch.dtype) -> None:
    """Anchor-based criteria: rows in canonical order, their relative boxes, and objectness targets, by level."""
    for level, expected in zip(run.extra["levels"], record["levels"], strict=True):
        assert len(level["rows"]) == expected["rows"]
        assert level["rows"][:8].tolist() == expected["first_rows"]
        assert crc(level["rows"]) == expected["rows_crc32"]
        got = [*level["boxes"].sum(axis=0), level["objectness"].sum()]
        assert got == pytest.approx([*expected["box_sum"], expected["obj_target_sum"]], rel=RELATIVE[dtype], abs=1e-12)
        assert (level["objectness"] != 0).sum() == expected["obj_cells"]
    if "balance_after" in record:
        assert run.extra["balance_after"] == pytest.approx(record["balance_after"], rel=RELATIVE[dtype])


def _check_matches(run: Run, layers: list[dict[str, Any]]) -> None:
    """Set prediction: image, query and global target row of every pair, by layer."""
    assert len(run.extra["matches"]) == len(layers)
    for got, expected in zip(run.extra["matches"], layers, strict=True):
        assert len(got) == expected["count"]
        assert got[: len(expected["first"])].tolist() == expected["first"]
        assert crc(got) == expected["crc32"]
