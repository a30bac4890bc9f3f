# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What the readers of datasets report while they read, by code: the part of the list of checks that they find.

Their words are those of `datasets.codes`. A code that is not listed there, as of a report of another version, is
reported all the same (`described`). Imports no torch.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from boxwright.auditor.scene import SHOWN, Audited, Check, Example, Finding, Hit
from boxwright.datasets import codes
from boxwright.datasets.codes import CODES, Code, Severity
from boxwright.datasets.sample import Problem, Split

# Codes that are no entry of this part: an audit says more exactly what cannot be read, and looks for classes itself.
_NOT_READ = (codes.CANNOT_READ, codes.CLASS_WITHOUT_OBJECTS)


def check_of(code: Code, find: Callable[[Audited], Iterable[Hit]] | None = None) -> Check:
    """The entry of a code in the list of checks, in the words of the catalogue of codes."""
    facts = CODES[code]
    return Check(
        code=code, group=facts.group, severity=facts.severity, what=facts.what, example=facts.example, fix=facts.fix,
        find=find,
    )  # fmt: skip


# The severity is the usual one; a finding has that of the reader's report.
READERS: tuple[Check, ...] = tuple(check_of(code) for code in CODES if code not in _NOT_READ)

BY_CODE: Mapping[str, Check] = {check.code: check for check in READERS}


def described(code: str) -> Check:
    """What is known about a code; a plain entry for one that is not listed."""
    return BY_CODE.get(code) or Check(
        code=code, group="labels", severity="warning", what=code.replace("_", " "), example="", fix="See the examples."
    )


def findings_of(problems: Iterable[tuple[Split | None, Problem]]) -> list[Finding]:
    """Problems joined by code and severity; one that several splits report alike is counted once."""
    places: dict[Problem, list[Split]] = {}
    for split, problem in problems:
        places.setdefault(problem, []).extend([] if split is None else [split])
    groups: dict[tuple[str, Severity, tuple[Split, ...]], list[Problem]] = defaultdict(list)
    for problem, splits in places.items():
        groups[problem.code, problem.severity, tuple(dict.fromkeys(splits))].append(problem)
    return [_finding(code, severity, splits, held) for (code, severity, splits), held in groups.items()]


def _finding(code: str, severity: Severity, splits: tuple[Split, ...], held: list[Problem]) -> Finding:
    check = described(code)
    shown = [Example(problem.file, problem.line, f"{problem.message}{_done(problem)}") for problem in held[:SHOWN]]
    return Finding(code, check.group, severity, splits, len(held), check.what, check.fix, tuple(shown))


def _done(problem: Problem) -> str:
    return "" if problem.action == "none" else f" ({problem.action})"
