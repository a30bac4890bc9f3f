# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Drawn scenes and made-up outputs, inspected: what the tests of reports and tables look at."""

from functools import cache

import numpy as np
import torch

from boxwright.drawn.synthetic import draw_scene
from boxwright.inspector.joined import join_inspections
from boxwright.inspector.probe import Inspection, inspect
from boxwright.losses import from_yolov8_maps
from boxwright.losses.assign.trace import FATES
from boxwright.losses.dense_recipes import yolov8_detect
from boxwright.structures import Targets
from boxwright.table import Table

SIZE = 128
NAMES = ("circle", "square", "<script>alert(1)</script>", "cross")  # one that must stay text
TINY = (61.0, 61.0, 63.0, 63.0)  # no centre of a cell lies inside: nobody learns from it


@cache
def scenes(count=6, seed=0):
    return tuple(draw_scene(SIZE, seed, "val", index) for index in range(count))


def targets_of(few):
    most = max(len(scene.instances.labels) for scene in few) + 1
    labels, boxes = torch.zeros(len(few), most, dtype=torch.int64), torch.zeros(len(few), most, 4)
    valid = torch.zeros(len(few), most, dtype=torch.bool)
    for row, scene in enumerate(few):
        count = len(scene.instances.labels)
        labels[row, :count] = torch.from_numpy(scene.instances.labels)
        boxes[row, :count] = torch.from_numpy(scene.instances.boxes)
        boxes[row, count] = torch.tensor(TINY)
        valid[row, : count + 1] = True
    return Targets(labels, boxes, valid)


def batch(few, seed=0, criterion=None, **options):
    generator = torch.Generator().manual_seed(seed)
    maps = [
        torch.randn(len(few), 64 + len(NAMES), SIZE // s, SIZE // s, generator=generator) * 0.7 for s in (8, 16, 32)
    ]
    outputs = from_yolov8_maps(maps, strides=(8, 16, 32), num_classes=len(NAMES), num_bins=16)
    paths = [f"images/{seed}-{row}.jpg" for row in range(len(few))]
    options = {"names": NAMES, "paths": paths, "worst": 20, **options}
    return inspect(outputs, targets_of(few), criterion or yolov8_detect(), **options)


@cache
def inspected(seed=0):
    """Six images in three batches, as one."""
    few = scenes()
    return join_inspections([batch(few[start : start + 2], seed=seed + start) for start in (0, 2, 4)])


def pictures(count=6):
    return [scene.image for scene in scenes(count)]


def many(images, per_image=7, candidates=60):
    """An inspection of a large split with made-up numbers, as `join_inspections` would give it."""
    rng = np.random.default_rng(0)
    size, count = 640.0, images * per_image
    image, slot = np.repeat(np.arange(images), per_image), np.tile(np.arange(per_image), images)
    corner, side = rng.uniform(0, size * 0.7, (count, 2)), rng.uniform(10, size * 0.3, (count, 2))
    loss = rng.gamma(2.0, 1.0, (3, count))
    label = rng.integers(0, len(NAMES), count)
    names = np.array(NAMES)
    boxes = {"x1": corner[:, 0], "y1": corner[:, 1], "x2": corner[:, 0] + side[:, 0], "y2": corner[:, 1] + side[:, 1]}
    sides = {"w": side[:, 0], "h": side[:, 1], "side": np.sqrt(side.prod(axis=1))}
    positives = rng.integers(0, 14, count)
    items = {name: loss[i] for i, name in enumerate(("main/box", "main/cls", "main/dfl"))}
    every = {"image": image, "object": slot, "label": label, "class": names[label]}
    objects = Table(
        {
            **every, "path": [f"{i}.jpg" for i in image], **boxes, **sides, "size": np.full(count, "medium"),
            "cells_s8": positives * 3, "positives_s8": positives, "positives": positives, "loss": loss.sum(axis=0),
            "gradient": rng.random(count), **items, "fate/positive": positives, "fate/lost": rng.integers(0, 3, count),
            "fate/outside_topk": np.full(count, candidates),
        }
    )  # fmt: skip
    which = np.repeat(np.arange(count), candidates)
    total = len(which)
    rank = np.tile(np.arange(candidates), count)
    fate = np.where(rank < positives[which], "positive", np.where(rank < 20, "outside_topk", "no_metric"))
    told = {
        "part": np.full(total, "main"), **{name: column[which] for name, column in every.items()},
        "candidate": rng.integers(0, 8400, total), "stride": np.full(total, 8),
        "x": rng.integers(0, 80, total) * 8.0 + 4,
        "y": rng.integers(0, 80, total) * 8.0 + 4, "score": rng.random(total), "overlap": rng.random(total),
    }  # fmt: skip
    more = {"metric": rng.random(total), "rank": rank, "fate": fate, "other": np.full(total, -1)}
    held = fate == "positive"
    pairs = Table(told).take(held)
    extra = ["found_x1", "found_y1", "found_x2", "found_y2", "loss", "gradient"]
    extra += [f"{what}_{s}" for what in ("found", "wanted") for s in ("left", "top", "right", "bottom")]
    pairs = pairs.with_columns({name: rng.random(len(pairs)) * 600 for name in extra})
    sums = {name: float(column.sum()) for name, column in items.items()}
    zero = [0.0] * len(sums)
    terms = Table(
        {
            "term": list(sums), "scope": ["pair"] * 3, "gain": [7.5, 0.5, 1.5], "normalizer": [1.0] * 3,
            "value": list(sums.values()), "loss": list(sums.values()), "objects": list(sums.values()),
            "background": zero, "images": zero, "gradient": [1.0] * 3, "pairs": [len(pairs)] * 3, "not_finite": [0] * 3,
        }
    )  # fmt: skip
    of_image = objects["loss"].reshape(images, per_image).sum(axis=1)
    shown = Table(
        {
            "image": np.arange(images), "path": [f"{i}.jpg" for i in range(images)],
            "objects": np.full(images, per_image), "loss": of_image, "loss_objects": of_image,
            "loss_background": np.zeros(images), "loss_images": np.zeros(images),
        }
    )  # fmt: skip
    assert set(np.unique(fate)) <= set(FATES)
    paths = tuple(f"{i}.jpg" for i in range(images))
    return Inspection(
        sum(sums.values()), 1.0, terms, objects, pairs, Table({**told, **more}), Table({}), shown, NAMES, paths,
        (int(size), int(size)),
    )  # fmt: skip
