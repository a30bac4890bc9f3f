# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Class weights of a run: counted from its labels, said, written down, and the same after a resume."""

import numpy as np
import pytest
import yaml
from tests.engine.test_resume import Messages, assert_same_run

from boxwright.config import from_yaml
from boxwright.datasets.dataset import read_split
from boxwright.datasets.formats import open_dataset
from boxwright.engine.recipe import Recipe
from boxwright.engine.trainer import Trainer
from boxwright.errors import ConfigError
from boxwright.losses.balance import InverseFrequency

SETTING = "criterion.class_weights.kind=inverse"


@pytest.fixture(scope="module")
def weighted(tiny_recipe, tmp_path_factory):
    """(recipe, folder, messages) of two epochs with inverse class weights."""
    recipe, heard = tiny_recipe("train.epochs=2", SETTING), Messages()
    folder = tmp_path_factory.mktemp("weighted") / "run"
    Trainer(recipe, folder, listener=heard).fit()
    return recipe, folder, heard.texts


def counts_of(recipe):
    records = read_split(open_dataset(recipe.data.source), "train", recipe.data)
    labels = np.concatenate([record.instances.labels for record in records.records])
    return np.bincount(labels, minlength=recipe.model.head.num_classes).tolist()


def test_numbers_come_from_the_training_labels_and_are_written_down(weighted):
    recipe, folder, texts = weighted
    counts = counts_of(recipe)
    expected = InverseFrequency().of(counts)

    kept = from_yaml(Recipe, (folder / "recipe.yaml").read_text())

    assert kept.criterion.rules["main"].terms["cls"].term.class_weights == pytest.approx(expected)
    assert kept.criterion.class_weights == InverseFrequency()
    line = next(text for text in texts if text.startswith("class weights of main/cls"))
    assert all(f"{weight:.4g} ({count})" in line for weight, count in zip(expected, counts, strict=True))


def test_without_the_setting_nothing_is_said_or_written(tiny_recipe, tmp_path):
    heard = Messages()
    Trainer(tiny_recipe("train.epochs=1"), tmp_path / "run", listener=heard).fit()

    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert kept["criterion"]["rules"]["main"]["terms"]["cls"]["term"]["class_weights"] is None
    assert not any("class weights" in text for text in heard.texts)


@pytest.mark.parametrize("written", [False, True], ids=["the recipe as given", "the recipe of the folder"])
def test_a_resumed_run_has_the_same_weights(weighted, tmp_path, written):
    recipe, folder, _ = weighted
    Trainer(recipe, tmp_path / "run").fit(stop_after=1)

    again = from_yaml(Recipe, (tmp_path / "run" / "recipe.yaml").read_text()) if written else recipe
    Trainer(again, tmp_path / "run", resume=True).fit()

    assert_same_run(tmp_path / "run", folder)


def test_other_weights_are_refused_when_resuming(weighted, tiny_recipe):
    _, folder, _ = weighted
    other = tiny_recipe("train.epochs=2", "criterion.class_weights.kind=log")

    with pytest.raises(ConfigError, match=r"criterion.class_weights.kind: was 'inverse', now 'log'"):
        Trainer(other, folder, resume=True).fit()
