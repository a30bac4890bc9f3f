# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Set prediction and attributes: golden cases to runs of our criteria and of our denoising queries."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tests.golden.common import Run, targets_from_rows
from torch import Tensor

from boxwright.losses.assign.known import Known
from boxwright.losses.criterion import Criterion, Rule, Weighted
from boxwright.losses.query_recipes import rtdetr as rtdetr_recipe
from boxwright.losses.query_recipes import set_prediction_components
from boxwright.losses.terms.attributes import Attribute
from boxwright.ops.decode import Normalized
from boxwright.ops.denoising import Denoising, DenoisingQueries, Noise
from boxwright.structures import Assignment, Outputs, Predictions, Targets


def rtdetr(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    config = case["config"]
    known = {"nc", "gains", "class_term", "dn_groups", "interleaved", "vfl"}
    assert set(config) <= known, f"options without a counterpart: {set(config) - known}"
    leaves = {
        name: torch.from_numpy(inputs[name]).to(dtype).requires_grad_()
        for name in ("boxes", "logits", "dn_boxes", "dn_logits")
        if name in inputs
    }
    size = tuple(case["params"]["imgsz"])
    targets = targets_from_rows(inputs, leaves["boxes"].shape[1], size, dtype)
    criterion = rtdetr_recipe(
        gains=config.get("gains"), class_term=config.get("class_term", "varifocal"), **config.get("vfl", {})
    )
    layers = _layers(leaves["boxes"], leaves["logits"], "decoder", size, first=-1)
    layers[0] = replace(layers[0], role="encoder", layer=0)
    denoising = []
    if config.get("dn_groups") and "dn_boxes" in inputs:
        pairs = _denoising_pairs(targets, config, size, leaves["dn_boxes"].shape[2])
        denoising = _layers(leaves["dn_boxes"], leaves["dn_logits"], "denoise", size, known=pairs)
    loss = criterion(Outputs(layers[-1], (*layers[:-1], *denoising)), criterion.prepare(targets, None))
    return Run(
        components=set_prediction_components(loss),
        total=loss.total,
        leaves=leaves,
        assignments={},
        extra={"matches": [_global_rows(loss.assignments[layer.label], inputs["batch_idx"]) for layer in layers]},
    )


def attributes(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Run:
    assert not case["config"], f"options without a counterpart: {set(case['config'])}"
    names = list(case["params"]["attributes"])
    leaves = {f"logits_{name}": torch.from_numpy(inputs[f"logits_{name}"]).to(dtype).requires_grad_() for name in names}
    batch, queries = next(iter(leaves.values())).shape[:2]
    slot, counts = _slots(inputs["batch_idx"], batch)
    labels = {name: torch.full((batch, max(counts)), -1, dtype=torch.int64) for name in names}
    for name, of in labels.items():
        of[torch.from_numpy(inputs["batch_idx"]), slot] = torch.from_numpy(inputs[f"labels_{name}"])
    targets = Targets(
        labels=torch.zeros(batch, max(counts), dtype=torch.int64),
        boxes=torch.zeros(batch, max(counts), 4, dtype=dtype),
        valid=torch.arange(max(counts)) < torch.tensor(counts)[:, None],
        attributes=labels,
    )
    weight = torch.ones(len(inputs["match_image"]), dtype=dtype)
    pairs = Assignment(
        image=torch.from_numpy(inputs["match_image"]),
        anchor=torch.from_numpy(inputs["match_query"]),
        target=slot[torch.from_numpy(inputs["match_row"])],
        valid=weight > 0,
        weight=weight,
        normalizer=weight.sum().clamp(min=1),
    )
    preds = Predictions(
        logits=torch.zeros(batch, queries, 1, dtype=dtype),
        box_raw=torch.zeros(batch, queries, 4, dtype=dtype),
        decoder=Normalized(),
        role="decoder",
        input_size=tuple(case["params"]["imgsz"]),
        attribute_logits={name: leaves[f"logits_{name}"] for name in names},
        known=pairs,
    )
    terms = {name: Weighted(term=Attribute(name=name)) for name in names}
    criterion = Criterion(rules={"decoder": Rule(assigner=Known(), terms=terms)}, batch_scale=False)
    loss = criterion(Outputs(preds), targets)
    components = {name.removeprefix("decoder/"): value for name, value in loss.components.items()}
    return Run(components, loss.total, leaves, assignments={})


def denoising(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> DenoisingQueries:
    config = case["config"]
    known = {"nc", "num_dn", "queries", "label_noise", "box_noise", "interleaved"}
    assert set(config) <= known, f"options without a counterpart: {set(config) - known}"
    size, batch = tuple(case["params"]["imgsz"]), int(inputs["batch"])
    targets = targets_from_rows(inputs, batch, size, dtype)
    by_image = torch.from_numpy(np.argsort(inputs["batch_idx"], kind="stable"))

    def noise(name: str) -> Tensor:
        """Rows block * N + global row to (blocks, N) in the order image, slot."""
        values = torch.from_numpy(inputs[name])
        return values.view(-1, len(by_image), *values.shape[1:])[:, by_image]

    return Denoising(
        budget=config["num_dn"],
        label_noise=config["label_noise"],
        box_noise=config["box_noise"],
        layout="interleaved" if config.get("interleaved") else "blocked",
        crowded="all",
    ).from_noise(
        targets,
        Noise(
            flip=noise("flip_u").to(dtype),
            label=noise("new_label"),
            sign=2 * noise("sign01").to(dtype) - 1,
            reach=noise("magnitude").to(dtype),
        ),
        size,
        config["nc"],
        config["queries"],
    )


def _layers(
    boxes: Tensor,
    logits: Tensor,
    role: str,
    size: tuple[int, int],
    first: int = 0,
    known: Assignment | None = None,
) -> list[Predictions]:
    """Stacks (layers, B, Q, n) as one `Predictions` each, numbered from `first`."""
    return [
        Predictions(z, box, Normalized(), role=role, layer=first + index, input_size=size, known=known)
        for index, (box, z) in enumerate(zip(boxes, logits, strict=True))
    ]


def _denoising_pairs(targets: Targets, config: dict[str, Any], size: tuple[int, int], queries: int) -> Assignment:
    """The pairs that our own builder gives queries of that layout."""
    most = int(targets.valid.sum(dim=1).max())
    layout = "interleaved" if config.get("interleaved") else "blocked"
    made = Denoising(budget=config["dn_groups"] * most, layout=layout)(
        targets, size, config["nc"], 0, torch.Generator().manual_seed(0)
    )
    assert made.labels.shape[1] == queries
    return made.known


def _slots(batch_idx: np.ndarray, batch: int) -> tuple[Tensor, list[int]]:
    """Slot of every global row, and rows of every image."""
    slot, counts = torch.zeros(len(batch_idx), dtype=torch.int64), [0] * batch
    for row, image in enumerate(batch_idx.tolist()):
        slot[row], counts[image] = counts[image], counts[image] + 1
    return slot, counts


def _global_rows(pairs: Assignment, batch_idx: np.ndarray) -> np.ndarray:
    """(image, query, global target row) of every pair."""
    rows = [
        (image, query, np.nonzero(batch_idx == image)[0][slot])
        for image, query, slot in zip(pairs.image.tolist(), pairs.anchor.tolist(), pairs.target.tolist(), strict=True)
    ]
    return np.asarray(rows, dtype=np.int64).reshape(-1, 3)
