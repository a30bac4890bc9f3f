# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What readers report, joined to findings in the words of the catalogue of codes."""

from boxwright.auditor.readers import READERS, described, findings_of
from boxwright.datasets import codes
from boxwright.datasets.codes import CODES
from boxwright.datasets.sample import Problem


def test_every_code_of_the_readers_is_in_the_list_of_checks_in_its_words():
    said = {check.code: (check.group, check.severity, check.what, check.example, check.fix) for check in READERS}
    facts = {code: (row.group, row.severity, row.what, row.example, row.fix) for code, row in CODES.items()}
    assert said == {code: row for code, row in facts.items() if code in said}
    assert set(facts) - set(said) == {codes.CANNOT_READ, codes.CLASS_WITHOUT_OBJECTS}


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
