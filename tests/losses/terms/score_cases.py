# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""One table of the terms on class scores, each with a scene: of every candidate, of matched ones, of queries."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from tests.losses.anchor_scenes import joined, pyramid, random_maps
from tests.losses.query_scenes import query_predictions
from tests.losses.scenes import CLASSES, generator, make_targets, random_predictions, random_targets

from boxwright.losses.assign import AnchorRatio
from boxwright.losses.terms import (
    ExclusiveScores,
    FocalScores,
    HardScores,
    QualityFocalScores,
    QueryScores,
    QueryVarifocalScores,
    SoftScores,
    VarifocalScores,
)
from boxwright.structures import Assignment, Predictions, Targets

WEIGHTS = (0.5, 1.0, 4.0)
Scene = tuple[Predictions, Targets, Assignment]

DENSE_TARGETS = make_targets([(0, 0, 30, 30), (0, 0, 60, 60)], [(0, 0, 30, 30)], labels=[[2, 0], [1]])
QUERY_TARGETS = make_targets(
    [(3, 2, 40, 50), (20, 10, 90, 60)], [(0, 0, 30, 30), (1, 1, 1, 2)], labels=[[2, 0], [0, 1]]
)
PYRAMID = pyramid()


@dataclasses.dataclass(frozen=True)
class Case:
    term: Any
    scene: Callable[[torch.dtype], Scene]

    def with_weights(self, vector: tuple[float, ...], mode: str) -> Any:
        return dataclasses.replace(self.term, class_weights=vector, weight_mode=mode)


def dense_pairs() -> Assignment:
    """Three pairs and an unused slot; their qualities are soft."""
    return Assignment(
        image=torch.tensor([0, 0, 1, 1]),
        anchor=torch.tensor([5, 9, 0, 0]),
        target=torch.tensor([0, 1, 0, 1]),
        valid=torch.tensor([True, True, True, False]),
        weight=torch.tensor([0.5, 1.0, 0.25, 0.0], dtype=torch.float64),
        normalizer=torch.tensor(4.0, dtype=torch.float64),
    )


def dense(dtype: torch.dtype, *, exclusive: bool = False) -> Scene:
    preds = random_predictions(generator(6), 2, (32, 64), (16, 32), dtype=dtype)
    return dataclasses.replace(preds, exclusive=exclusive), DENSE_TARGETS, dense_pairs()


def exclusive(dtype: torch.dtype) -> Scene:
    return dense(dtype, exclusive=True)


def matched(dtype: torch.dtype, *, exclusive: bool = False) -> Scene:
    maps = [part.to(dtype) for part in random_maps(generator(0), 2, PYRAMID)]
    preds = joined(maps, PYRAMID, table=False, exclusive=exclusive).final
    preds = dataclasses.replace(preds, logits=preds.logits.detach().clone().requires_grad_())
    targets = random_targets(generator(7), (5, 3))
    return preds, targets, AnchorRatio()(preds, targets)


def matched_exclusive(dtype: torch.dtype) -> Scene:
    return matched(dtype, exclusive=True)


def queries(dtype: torch.dtype) -> Scene:
    pairs = dataclasses.replace(
        dense_pairs(),
        anchor=torch.tensor([4, 0, 3, 2]),
        weight=torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64),
        normalizer=torch.tensor(3.0, dtype=torch.float64),
    )
    return query_predictions(generator(6), 2, 5, dtype=dtype), QUERY_TARGETS, pairs


CASES = {
    "bce": Case(SoftScores(), dense),
    "focal": Case(FocalScores(), dense),
    "focal hard": Case(FocalScores(target="hard"), dense),
    "focal unbalanced": Case(FocalScores(alpha=0.0, gamma=1.5), dense),
    "quality": Case(QualityFocalScores(), dense),
    "quality balanced": Case(QualityFocalScores(alpha=0.25), dense),
    "varifocal": Case(VarifocalScores(), dense),
    "exclusive": Case(SoftScores(), exclusive),
    "hard": Case(HardScores(), matched),
    "hard smooth": Case(HardScores(smoothing=0.2), matched),
    "hard with more positive": Case(HardScores(pos_weight=2.0), matched),
    "hard focal": Case(HardScores(modulation="focal"), matched),
    "hard quality focal": Case(HardScores(modulation="quality_focal"), matched),
    "exclusive pairs": Case(ExclusiveScores(), matched_exclusive),
    "exclusive pairs smooth": Case(ExclusiveScores(smoothing=0.2), matched_exclusive),
    "query varifocal": Case(QueryVarifocalScores(), queries),
    "query varifocal modern": Case(QueryVarifocalScores(alpha=0.25, gamma=1.5), queries),
    "query focal": Case(FocalScores(gamma=1.5, target="hard"), queries),
    "query bce": Case(QueryScores(), queries),
}

assert len(WEIGHTS) == CLASSES
