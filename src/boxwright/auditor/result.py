# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What an audit gives: findings, and tables of classes, weights and who can be learned."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.auditor.labels import SplitLabels
from boxwright.auditor.learnable import Learnable, by_class_and_size
from boxwright.auditor.scene import Finding
from boxwright.datasets.codes import Severity
from boxwright.datasets.sample import DatasetHeader, Report, Split
from boxwright.losses.balance import InverseFrequency, LogFrequency, PowerFrequency
from boxwright.table import Table, join_tables

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # worst first
RULES: dict[str, InverseFrequency | LogFrequency | PowerFrequency] = {
    "inverse": InverseFrequency(),
    "log": LogFrequency(),
    "power(0.5)": PowerFrequency(power=0.5),
    "power(1)": PowerFrequency(power=1.0),
}


@dataclass(frozen=True, slots=True)
class Audit:
    """A dataset looked over. Findings come worst first; an audit of a broken dataset has findings and little else."""

    source: Path
    header: DatasetHeader | None  # None where the dataset cannot be opened
    labels: Mapping[Split, SplitLabels]
    reports: Mapping[Split, Report]
    findings: tuple[Finding, ...]
    learnable: Mapping[Split, Learnable] = field(default_factory=dict)
    looked_at_pixels: bool = True
    errors: Table | None = None  # label errors ranked with a trained model's detections
    weights: str = ""  # of that model

    def of_severity(self, severity: Severity) -> tuple[Finding, ...]:
        """Findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def ok(self) -> bool:
        """No finding is an error."""
        return not self.of_severity("error")

    def __getitem__(self, code: str) -> tuple[Finding, ...]:
        """Findings of one code, one for each split it was found in."""
        return tuple(finding for finding in self.findings if finding.code == code)

    @property
    def classes(self) -> Table:
        """One row per class: objects of each split, and the weight that each rule gives for the train split."""
        if self.header is None:
            return Table({"class": np.array([], str)})
        columns: dict[str, Any] = {"class": np.array(self.header.names, str)}
        columns |= {split: labels.class_counts for split, labels in self.labels.items()}
        counted = self.labels.get("train") or next(iter(self.labels.values()), None)
        if counted is not None and counted.class_counts.sum():
            counts = counted.class_counts.tolist()
            columns |= {f"weight/{name}": np.array(rule.of(counts)) for name, rule in RULES.items()}
        return Table(columns)

    @property
    def candidates(self) -> Table:
        """Objects without or with few candidates, by split, class and size in the network input."""
        tables = [by_class_and_size(self.labels[split], found) for split, found in self.learnable.items()]
        return join_tables(tables) if tables else Table({"split": np.array([], str)})

    @property
    def remedies(self) -> Table:
        """What would help objects with too few candidates, measured."""
        rows = [
            {"split": split, "what": one.what, "setting": one.setting, "need": one.need, "helped": one.helped,
             "of": one.of, "lost_after": one.lost_after}
            for split, found in self.learnable.items() for one in found.remedies
        ]  # fmt: skip
        names = ("split", "what", "setting", "need", "helped", "of", "lost_after")
        return Table({name: [row[name] for row in rows] for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `audit.json` holds them."""
        header = self.header
        settings = [found.setting for found in self.learnable.values()]
        return {
            "format": "boxwright-audit/1",
            "source": str(self.source),
            "ok": self.ok,
            "counts": Counter(finding.severity for finding in self.findings),
            "dataset": None if header is None else {
                "format": header.format, "task": header.task, "names": list(header.names),
                "splits": {split: {"images": len(labels.images), "objects": len(labels)}
                           for split, labels in self.labels.items()},
            },
            "model": {"name": settings[0].model, "imgsz": settings[0].imgsz} if settings else None,
            "pixels": self.looked_at_pixels,
            "weights": self.weights or None,
            "findings": [asdict(finding) for finding in self.findings],
            "classes": [*self.classes.rows()],
            "candidates": [*self.candidates.rows()],
            "remedies": [*self.remedies.rows()],
            "label_errors": None if self.errors is None else [*self.errors.rows()],
        }  # fmt: skip


def worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Errors, warnings, notes; of each the larger counts first."""
    return tuple(sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.count)))
