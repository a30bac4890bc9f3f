# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Every code that readers of datasets report is explained, and no other."""

import ast
import re
from pathlib import Path

import boxwright
from boxwright.auditor.readers import READERS, described, findings_of
from boxwright.datasets.sample import Problem

DATA = Path(boxwright.__file__).parent / "datasets"
FILES = [
    *(DATA / "formats").glob("*.py"),
    *(DATA / name for name in ("images.py", "image_header.py", "dataset.py", "checks.py")),
]
SAYING = {"Problem", "say", "_say", "remark", "Remark", "mend", "_mend", "EntryError", "RowError", "_ObjectError",
          "OrientedError", "XmlError", "HeaderError", "_dropped"}  # fmt: skip
NOT_CODES = {"none", "error", "warning", "note", "clipped", "swapped", "decoded", "ignored", "cannot_read"}
OURS = {"path_not_found", "cannot_open", "split_unreadable"}  # made by `run.py` of errors that readers raise


def said():
    """Codes that are written out where something is reported."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in SAYING:
                    texts = (one.value for one in node.args if isinstance(one, ast.Constant))
                    yield from (t for t in texts if isinstance(t, str) and re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", t))


def test_every_code_is_explained():
    codes = set(said()) - NOT_CODES
    assert len(codes) > 50
    missing = codes - {check.code for check in READERS} - {"class_without_objects"}
    assert not missing


def test_every_explained_code_is_reported_somewhere():
    text = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    unknown = {check.code for check in READERS if f'"{check.code}"' not in text} - OURS
    assert not unknown


def test_a_code_nobody_knows_is_reported_all_the_same():
    problem = Problem("a.txt", 3, "brand_new", "what is this", "none", "error")
    (finding,) = findings_of([("train", problem)])
    assert (finding.code, finding.severity, finding.message) == ("brand_new", "error", "brand new")
    assert str(finding.examples[0]) == "a.txt, line 3: what is this"
    assert described("zero_area").what == "A box has no area"


def test_what_two_splits_report_alike_counts_once():
    twice, once = (Problem(name, 1, "zero_area", "flat", "row dropped") for name in ("a.txt", "b.txt"))
    findings = findings_of([("train", twice), ("val", twice), ("val", once)])
    assert {(finding.splits, finding.count) for finding in findings} == {(("train", "val"), 1), (("val",), 1)}
    assert str(findings[0].examples[0]) == "a.txt, line 1: flat (row dropped)"
