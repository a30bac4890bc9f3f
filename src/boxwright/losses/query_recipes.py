# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Complete criteria of set prediction by name, and the published names of their values.

Every function returns a plain `Criterion`: print it, write it as YAML, replace any part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from boxwright.losses.assign.hungarian import Hungarian
from boxwright.losses.assign.known import Known
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.terms.attributes import Attribute
from boxwright.losses.terms.query_box import BoxL1, QueryOverlap
from boxwright.losses.terms.query_scores import QueryScores, QueryVarifocalScores
from boxwright.losses.terms.scores import FocalScores
from boxwright.structures import LossBreakdown

RTDETR_GAINS = {"class": 1.0, "bbox": 5.0, "giou": 2.0}


def rtdetr(
    *,
    gains: Mapping[str, float] | None = None,
    class_term: Literal["varifocal", "focal", "bce"] = "varifocal",
    alpha: float = 0.75,
    gamma: float = 2.0,
    detach_weight: bool = False,
    matching: Hungarian | None = None,
    attributes: Sequence[Attribute] = (),
) -> Criterion:
    """RT-DETR: every layer (encoder proposals, decoder, denoising) pays class, L1 and GIoU costs of its own pairs.

    Args:
        gains: of the terms class, bbox, giou, and of attributes by their name (1 unless given).
        class_term: varifocal, focal or plain binary cross-entropy; all three with sigmoid scores.
        alpha: of the varifocal background; the focal term has 0.25.
        gamma: of the varifocal background; the focal term has 1.5.
        detach_weight: whether the varifocal weight is a constant for differentiation, as in the paper.
        matching: of the layers that know no pairs.
        attributes: terms on attribute heads; encoder and denoising layers without such a head cost nothing.

    Source: RT-DETR, Zhao et al. 2023, arXiv:2304.08069; spec/losses E.9.
    """
    term = {
        "varifocal": QueryVarifocalScores(alpha=alpha, gamma=gamma, detach_weight=detach_weight),
        "focal": FocalScores(gamma=1.5, alpha=0.25, target="hard"),
        "bce": QueryScores(),
    }[class_term]
    gain = RTDETR_GAINS | {attribute.name: 1.0 for attribute in attributes} | dict(gains or {})
    base: dict[str, Any] = {"class": term, "bbox": BoxL1(), "giou": QueryOverlap()}

    def rule(assigner: Hungarian | Known, extra: Sequence[Attribute]) -> Rule:
        terms = base | {attribute.name: attribute for attribute in extra}
        return Rule(assigner=assigner, terms={name: Weighted(term=of, gain=gain[name]) for name, of in terms.items()})

    matched, lenient = matching or Hungarian(), [replace(attribute, missing="skip") for attribute in attributes]
    rules = {
        "encoder": rule(matched, lenient),
        "decoder": rule(matched, attributes),
        "denoise": rule(Known(), lenient),
    }
    return Criterion(rules=rules, batch_scale=False)


def rtdetr_modern(
    *,
    gains: Mapping[str, float] | None = None,
    matching: Hungarian | None = None,
    attributes: Sequence[Attribute] = (),
) -> Criterion:
    """RT-DETR as published since 2025: the varifocal background has the constants of focal loss, 0.25 and 1.5.

    Arguments as in `rtdetr`. Its denoising queries are interleaved and limited (`ops.denoising.Denoising`, by default).

    Source: spec/losses F.9.
    """
    return rtdetr(gains=gains, alpha=0.25, gamma=1.5, matching=matching, attributes=attributes)


def set_prediction_components(
    loss: LossBreakdown, names: Sequence[str] = ("class", "bbox", "giou")
) -> dict[str, Tensor]:
    """The gain-weighted values by their published names: of 3 terms 12 of them, 0 where there is no such layer.

    `class` is the output layer, `class_aux` the sum of all other layers, `class_dn` the last denoising layer and
    `class_aux_dn` the sum of the others. Other terms of the loss (attributes) get the same four. Their sum is the total
    of a single process.
    """
    final = loss.items[-1].name.rpartition("/")[0]
    denoising = [label for label in loss.assignments if _layer(label) is not None]
    last = max(denoising, key=lambda label: _layer(label) or 0, default=None)
    zero = loss.items[-1].contributions.new_zeros(())
    every = dict.fromkeys((*names, *(item.name.rpartition("/")[2] for item in loss.items)))
    sums = {f"{name}{suffix}": zero for suffix in ("", "_aux", "_dn", "_aux_dn") for name in every}
    for path, value in loss.components.items():
        label, _, name = path.rpartition("/")
        place = "" if label in (final, last) else "_aux"
        key = f"{name}{place}_dn" if label in denoising else name + place
        sums[key] = sums[key] + value
    return sums


def _layer(label: str) -> int | None:
    """Layer of a label of denoising queries, None for other roles."""
    role = label.rstrip("0123456789")
    return int(label[len(role) :] or 0) if role == "denoise" else None
