# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Exclusive classes from the data.yaml to the score of a detection: one flag that nobody can contradict."""

from pathlib import Path

import pytest
import torch

import boxwright as bw
from boxwright.config import from_yaml
from boxwright.datasets.formats import open_dataset
from boxwright.engine.recipe import Recipe
from boxwright.engine.trainer import Trainer
from boxwright.errors import ConfigError
from boxwright.losses.criterion import Criterion
from boxwright.ops.scores import class_probabilities
from boxwright.structures import Outputs, Predictions
from boxwright.tasks.base import SelectOptions
from boxwright.tasks.postprocess import postprocess


@pytest.fixture
def exclusive_scenes(scenes: Path) -> Path:
    """The drawn scenes, whose data.yaml says that classes exclude one another."""
    path = scenes.with_name("exclusive.yaml")
    path.write_text(scenes.read_text() + "\nexclusive: true\n")
    return path


def test_a_dataset_tells_the_recipe(exclusive_scenes, scenes):
    assert open_dataset(exclusive_scenes).exclusive is True
    assert open_dataset(scenes).exclusive is None
    assert bw.recipe("yolov8n", data=exclusive_scenes).model.head.exclusive is True
    assert bw.recipe("yolov8n", data=scenes).model.head.exclusive is False


def test_training_and_prediction_agree(exclusive_scenes, tiny_recipe, tmp_path, monkeypatch):
    seen: list[bool] = []
    measure = Criterion.__call__

    def watch(self: Criterion, outputs: Outputs, *rest: object, **options: object) -> object:
        seen.append(outputs.final.exclusive)
        return measure(self, outputs, *rest, **options)

    monkeypatch.setattr(Criterion, "__call__", watch)
    settings = (f"data.source={exclusive_scenes}", "model.head.exclusive=true")

    result = Trainer(tiny_recipe(*settings, "train.epochs=1"), tmp_path / "run").fit()

    assert seen
    assert all(seen)
    assert from_yaml(Recipe, (result.folder / "recipe.yaml").read_text()).model.head.exclusive is True
    model = bw.load(result.folder)
    with torch.no_grad():
        preds = model.detector(torch.rand(1, 3, 64, 64)).final
    assert preds.exclusive
    scores = class_probabilities(preds.logits, preds.exclusive)
    assert (scores.sum(dim=-1) < 1).all()
    (kept,) = postprocess(preds, SelectOptions(conf=0.0, iou=1.0, max_det=5))
    assert torch.allclose(kept.scores, scores[0].amax(dim=1)[kept.anchors], rtol=1e-6)
    # A finished run resumes to itself: the flag came back with the recipe.
    again = Trainer(model.recipe, result.folder, resume=True).fit()
    assert again.best_epoch == result.best_epoch


@pytest.mark.parametrize(("says", "model"), [("true", "false"), ("false", "true")])
def test_a_model_that_disagrees_is_refused(scenes, tiny_recipe, tmp_path, says, model):
    path = scenes.with_name(f"says_{says}.yaml")
    path.write_text(scenes.read_text() + f"\nexclusive: {says}\n")
    recipe = tiny_recipe(f"data.source={path}", f"model.head.exclusive={model}")

    with pytest.raises(ConfigError, match=rf"model\.head\.exclusive: expected {says}, what .* got {model}"):
        Trainer(recipe, tmp_path / "run").fit()


@pytest.mark.parametrize("multi_label", [True, False])
def test_exclusive_scores_after_suppression(multi_label):
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(1, 6, 4, generator=generator) * 50
    preds = _predictions(raw, torch.randn(1, 6, 3, generator=generator) * 2)

    (kept,) = postprocess(preds, SelectOptions(conf=0.2, iou=1.0, multi_label=multi_label))

    exp = preds.logits[0].exp()
    share = exp / (1 + exp.sum(dim=1, keepdim=True))
    if not multi_label:
        share = torch.where(share == share.amax(dim=1, keepdim=True), share, torch.zeros_like(share))
    expected = share[share > 0.2].sort(descending=True).values
    assert torch.allclose(kept.scores, expected)
    assert torch.allclose(share[kept.anchors, kept.labels], kept.scores)


def test_objectness_multiplies_the_class_probability():
    generator = torch.Generator().manual_seed(0)
    raw, logits = torch.rand(1, 6, 4, generator=generator) * 50, torch.randn(1, 6, 3, generator=generator)
    objectness = torch.randn(1, 6, generator=generator)
    for exclusive in (False, True):
        preds = _predictions(raw, logits, exclusive=exclusive, objectness=objectness)

        (kept,) = postprocess(preds, SelectOptions(conf=0.0, iou=1.0))

        sure = objectness.sigmoid()[0, kept.anchors]
        of = logits.softmax(dim=-1) if exclusive else logits.sigmoid()
        assert torch.allclose(kept.scores, sure * of[0, kept.anchors, kept.labels])


def _predictions(
    raw: torch.Tensor, logits: torch.Tensor, *, exclusive: bool = True, objectness: torch.Tensor | None = None
) -> Predictions:
    """Boxes that are 1 px distances from cells far apart, so that suppression drops none."""
    from boxwright.ops.decode import Distance
    from boxwright.ops.grid import make_grid

    grid = make_grid([(1, 6)], [64])
    return Predictions(
        logits=logits,
        box_raw=raw / 100,
        decoder=Distance(num_bins=1),
        grid=grid,
        exclusive=exclusive,
        objectness=objectness,
    )


def test_a_setting_says_it_for_datasets_that_cannot(scenes):
    told = bw.recipe("yolov8n", data=scenes, settings=["data.exclusive=true"])
    assert told.model.head.exclusive is True
    assert told.data.exclusive is True
