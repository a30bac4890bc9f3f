# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Writes the list of checks into docs/audit.md, from the list that `boxwright audit` runs.

The list stands between two marks; the text around it is written by hand.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from boxwright.auditor.checks import CHECKS
from boxwright.auditor.scene import GROUPS, Check

PAGE = Path(__file__).parent / "audit.md"
BEGIN, END = "<!-- Checks: made by docs/build_audit.py, `make docs` -->", "<!-- End of checks -->"
TITLES = {
    "config": "The description of the dataset",
    "files": "Files",
    "images": "Images",
    "labels": "Labels",
    "splits": "Splits against each other",
    "balance": "How often classes occur",
    "learning": "What can be learned",
}
ORDER = ("error", "warning", "note")


def listing(checks: Sequence[Check] = CHECKS) -> str:
    """One table for each group: code, usual severity, what it is, an example, what to do."""
    parts = []
    for group in GROUPS:
        rows = sorted((check for check in checks if check.group == group), key=lambda one: ORDER.index(one.severity))
        parts += [f"### {TITLES[group]}", "", "| code | usually | what | example | fix |", "|---|---|---|---|---|"]
        parts += [
            f"| `{check.code}` | {check.severity} | {_cell(check.what)} | {_cell(check.example)} | {_cell(check.fix)} |"
            for check in rows
        ]
        parts.append("")
    return "\n".join(parts)


def page(text: str) -> str:
    """The page with its list made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{listing()}\n{END}{after}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text.replace("|", "\\|")


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the page, or with --check says whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 where the page is old")
    options = parser.parse_args(arguments)
    text = PAGE.read_text(encoding="utf-8")
    made = page(text)
    if options.check:
        raise SystemExit(int(made != text))
    PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
