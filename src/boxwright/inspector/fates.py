# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Why candidates became positives or not, as tables."""

from collections.abc import Sequence

import numpy as np
import torch

from boxwright.inspector.columns import class_columns, host, path_column, place_columns
from boxwright.inspector.part import ProbedPrediction
from boxwright.losses.assign.trace import FATES, Trace, code_of
from boxwright.structures import Targets
from boxwright.table import Table, join_tables

Traces = Sequence[tuple[ProbedPrediction, Trace]]


def candidate_table(traces: Traces, targets: Targets, names: Sequence[str], paths: Sequence[str], shown: int) -> Table:
    """One row per candidate of an object: its best `shown`, its positives, and those that another object has."""
    tables = [_candidates_of(part, trace, targets, names, paths, shown) for part, trace in traces]
    return join_tables(tables) if tables else Table({})


def fate_columns(traces: Traces, targets: Targets) -> dict[str, np.ndarray]:
    """How many candidates of each object met each fate, over all predictions: columns "fate/lost", ..."""
    image, slot = targets.valid.nonzero(as_tuple=True)
    batch, slots = targets.labels.shape
    counts = torch.zeros(batch * max(slots, 1), len(FATES), dtype=torch.int64, device=image.device)
    for _, trace in traces:
        place = (trace.image * slots + trace.slot) * len(FATES) + trace.fate
        counts += torch.bincount(place, minlength=counts.numel()).view_as(counts)
    rows = counts[: batch * slots].view(batch, slots, len(FATES))[image, slot]
    return {f"fate/{fate}": host(rows[:, code]) for code, fate in enumerate(FATES) if bool(rows[:, code].any())}


def _candidates_of(
    part: ProbedPrediction, trace: Trace, targets: Targets, names: Sequence[str], paths: Sequence[str], shown: int
) -> Table:
    told = (trace.rank < shown) | (trace.fate == code_of("positive")) | (trace.fate == code_of("lost"))
    rows = told.nonzero()[:, 0]
    image, slot, anchor = trace.image[rows], trace.slot[rows], trace.anchor[rows]
    return Table(
        {
            "part": np.full(len(rows), part.label),
            "image": host(image),
            "path": path_column(image, paths),
            "object": host(slot),
            **class_columns(targets.labels[image, slot], names),
            "candidate": host(anchor),
            **place_columns(part.preds, anchor),
            "score": host(trace.score[rows]),
            "overlap": host(trace.overlap[rows]),
            "metric": host(trace.metric[rows]),
            "rank": host(trace.rank[rows]),
            "fate": np.array(FATES)[host(trace.fate[rows])],
            "other": host(trace.other[rows]),
        }
    )
