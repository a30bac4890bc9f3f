# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Small scenes for the tests of set prediction: layers of queries, some of them near an object."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from tests.losses.scenes import CLASSES, SIZE, random_targets
from torch import Tensor

from boxwright.ops.decode import Normalized
from boxwright.ops.denoising import Denoising
from boxwright.structures import Outputs, Predictions, Targets

LOC, ACTION = 4, 3  # classes of the attributes


def query_predictions(
    source: torch.Generator,
    batch: int,
    queries: int,
    *,
    role: str = "decoder",
    layer: int = 0,
    dtype: torch.dtype = torch.float64,
    attributes: bool = False,
    **fields: Any,
) -> Predictions:
    """One layer of random queries; leaves that carry gradients."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    boxes = (normal(batch, queries, 4) * 0.6 + torch.tensor([0.0, 0.0, -1.0, -1.0])).sigmoid()
    if attributes:
        made = {"loc": normal(batch, queries, LOC), "action": normal(batch, queries, ACTION)}
        fields["attribute_logits"] = {name: of.to(dtype).requires_grad_() for name, of in made.items()}
    return Predictions(
        (normal(batch, queries, CLASSES) - 1).to(dtype).requires_grad_(),
        boxes.to(dtype).requires_grad_(),
        Normalized(),
        role=role,
        layer=layer,
        input_size=SIZE,
        **fields,
    )


def layers(
    source: torch.Generator,
    targets: Targets,
    queries: int = 9,
    *,
    decoder: int = 3,
    denoising: Denoising | None = None,
    attributes: bool = False,
) -> Outputs:
    """Encoder proposals, decoder layers and, if asked for, as many denoising layers."""
    batch = targets.labels.shape[0]
    options = {"dtype": torch.float64, "attributes": attributes}
    auxiliary = [query_predictions(source, batch, queries, role="encoder", **options)]
    auxiliary += [query_predictions(source, batch, queries, layer=index, **options) for index in range(decoder)]
    final = auxiliary.pop()
    if denoising is not None:
        made = denoising(targets, SIZE, CLASSES, queries, torch.Generator().manual_seed(0))
        count = made.labels.shape[1]
        for index in range(decoder):
            given = {"role": "denoise", "layer": index, "known": made.known, **options}
            auxiliary.append(query_predictions(source, batch, count, **given))
    return Outputs(final, tuple(auxiliary))


def labelled_targets(source: torch.Generator, counts: Sequence[int]) -> Targets:
    """Random targets with the attributes "loc" (one of several, a third unknown) and "action" (several labels)."""
    targets = random_targets(source, counts)
    shape = tuple(targets.labels.shape)
    loc = torch.randint(-1, LOC, shape, generator=source)
    loc = torch.where(torch.rand(shape, generator=source) < 0.3, -1, loc)
    action = torch.randint(-1, 2, (*shape, ACTION), generator=source).double()
    return dataclasses.replace(targets, attributes={"loc": loc, "action": action})


def leaves_of(outputs: Outputs) -> list[Tensor]:
    """Every tensor that gets a gradient, layer by layer."""
    found = []
    for preds in (*outputs.auxiliary, outputs.final):
        found += [preds.logits, preds.box_raw, *(preds.attribute_logits or {}).values()]
    return found


def fresh(outputs: Outputs, images: Any = slice(None)) -> Outputs:
    """A copy with leaves of its own, of some images in some order. Known pairs follow."""

    def copied(tensor: Tensor) -> Tensor:
        return tensor.detach()[images].clone().requires_grad_()

    def one(preds: Predictions) -> Predictions:
        known = preds.known
        if known is not None:
            order = torch.arange(preds.logits.shape[0])[images]
            place = torch.full((preds.logits.shape[0],), -1).index_copy(0, order, torch.arange(len(order)))
            mine = place[known.image] >= 0
            parts = {name: getattr(known, name)[mine] for name in ("image", "anchor", "target", "valid", "weight")}
            known = dataclasses.replace(known, **parts, normalizer=parts["weight"].sum().clamp(min=1))
            known = dataclasses.replace(known, image=place[known.image])
        attributes = {name: copied(of) for name, of in (preds.attribute_logits or {}).items()} or None
        return dataclasses.replace(
            preds,
            logits=copied(preds.logits),
            box_raw=copied(preds.box_raw),
            attribute_logits=attributes,
            known=known,
        )

    return Outputs(one(outputs.final), tuple(map(one, outputs.auxiliary)))


def part_of(targets: Targets, images: Any) -> Targets:
    """The labels of some images."""
    attributes = {name: of[images] for name, of in (targets.attributes or {}).items()} or None
    return Targets(targets.labels[images], targets.boxes[images], targets.valid[images], attributes=attributes)
