# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The front door of the inspector: a split, chosen images, two settings side by side, a look at a training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import boxwright as bw
from boxwright.api.inspect import every
from boxwright.drawn.synthetic import NAMES, draw_dataset
from boxwright.engine.logs import Listener
from boxwright.errors import ConfigError, DataError

QUICK = ["data.imgsz=64"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("inspected") / "scenes", train=6, val=5, imgsz=64, seed=3)


@pytest.fixture(scope="module")
def fresh(data):
    return bw.inspect_data("yolov8n", data, settings=QUICK, device="cpu")


def test_a_fresh_model_is_taken_apart_and_sums_to_the_loss(fresh):
    found = fresh.inspection

    assert len(found.images) == len(fresh.images) == 5
    assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image in fresh.images)
    paid = sum(float(found.terms[name].sum()) for name in ("objects", "background", "images"))
    assert paid == pytest.approx(found.total, rel=1e-6)
    assert found.names == NAMES
    assert fresh.against is None


def test_the_same_preset_starts_from_the_same_weights(data, fresh):
    again = bw.inspect_data("yolov8n", data, settings=QUICK, device="cpu")

    assert again.inspection.total == fresh.inspection.total
    assert np.array_equal(again.inspection.objects["loss"], fresh.inspection.objects["loss"])


def test_the_loss_is_that_of_a_direct_call(data, fresh):
    """One image, by hand: network, letterboxed pixels, labels, criterion."""
    from boxwright.datasets.dataset import read_split
    from boxwright.datasets.formats import open_dataset
    from boxwright.loading.loader import val_loader

    recipe = bw.recipe("yolov8n", data=data, settings=QUICK)
    torch.manual_seed(recipe.train.seed)
    network = recipe.model.build().fold(auxiliary=True)
    records = read_split(open_dataset(data), "val", recipe.data)
    batch = next(iter(val_loader(records, recipe.data, batch=8, workers=0, square=True)))
    with torch.no_grad():
        expected = recipe.criterion(network(batch.images.float() / 255), batch.targets).total.item()

    assert fresh.inspection.total == pytest.approx(expected, rel=1e-5)


def test_limit_split_and_images_choose(data):
    two = bw.inspect_data("yolov8n", data, split="train", limit=2, settings=QUICK, device="cpu").inspection
    assert len(two.images) == 2
    assert all("train" in path for path in two.paths)
    name = two.paths[1].rpartition("/")[2]
    one = bw.inspect_data("yolov8n", data, split="train", images=[name], settings=QUICK, device="cpu").inspection
    assert one.paths == (two.paths[1],)
    every_one = bw.inspect_data("yolov8n", data, split="train", limit=None, settings=QUICK, device="cpu").inspection
    assert len(every_one.images) == 6


def test_another_setting_stands_beside(data, fresh):
    found = bw.inspect_data(
        "yolov8n",
        data,
        settings=QUICK,
        against_settings={"criterion.rules.main.assigner.topk": 3},
        device="cpu",
    )

    assert found.inspection.total == fresh.inspection.total
    assert found.against.objects["positives"].max() <= 3 < found.inspection.objects["positives"].max()
    assert found.against.paths == found.inspection.paths


def test_class_weights_beside_change_what_a_class_pays(data, fresh):
    weighted = {"criterion.rules.main.terms.cls.term.class_weights": [3.0] + [1.0] * (len(fresh.inspection.names) - 1)}
    found = bw.inspect_data("yolov8n", data, settings=QUICK, against_settings=weighted, device="cpu")

    ours, theirs = found.inspection.objects, found.against.objects
    first = ours["label"] == 0
    assert first.any()
    assert (theirs["main/cls"][first] > ours["main/cls"][first]).all()
    assert np.array_equal(theirs["main/box"], ours["main/box"])


def test_a_listener_hears_every_batch(data):
    heard = []

    class Ear(Listener):
        def advance(self, done, values):
            heard.append(done)

    bw.inspect_data("yolov8n", data, limit=3, settings=QUICK, device="cpu", listener=Ear())
    assert heard[-1] == 3


def test_mistakes_are_named(data, tmp_path):
    with pytest.raises(ConfigError, match="say which dataset"):
        bw.inspect_data("yolov8n")
    with pytest.raises(ConfigError, match=r"no image of the val split ends with nothing\.png"):
        bw.inspect_data("yolov8n", data, images=["nothing.png"], settings=QUICK)
    with pytest.raises(DataError):
        bw.inspect_data("yolov8n", tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="topq"):
        bw.inspect_data("yolov8n", data, settings=["criterion.rules.main.assigner.topq=3"])
    with pytest.raises(ConfigError, match="limit: expected at least 1"):
        bw.inspect_data("yolov8n", data, limit=0)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """The same training with a look at every second epoch, and without."""
    folder, seen = tmp_path_factory.mktemp("runs"), []
    quick = {"imgsz": 64, "batch": 4, "workers": 0, "precision": "fp32", "plots": False, "epochs": 2, "seed": 5}
    look = every(2, 3, lambda where, inspected: seen.append((where, inspected)))
    with_look = bw.train("yolov8n", data=data, out=folder / "with", look_on=look, **quick)
    without = bw.train("yolov8n", data=data, out=folder / "without", **quick)
    return with_look, without, seen


def test_a_look_comes_when_it_is_due_and_sees_the_averaged_weights(runs):
    run, _, seen = runs

    assert [where for where, _ in seen] == [run.folder / "inspect" / "epoch-0002"]
    assert len(seen[0][1].images) == 3
    # Weights of the last epoch, evaluated as `inspect_data` does, pay the same.
    stored = bw.inspect_data(run.folder / "weights" / "last.safetensors", limit=3, device="cpu").inspection
    assert seen[0][1].inspection.total == pytest.approx(stored.total, rel=1e-4)


def test_a_look_changes_no_weight(runs):
    from safetensors.torch import load_file

    with_look, without, _ = runs
    ours, theirs = (load_file(run.folder / "weights" / "last.safetensors") for run in (with_look, without))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_exported_file_is_refused(runs):
    model = runs[0].model()
    exported = replace(model, detector=object(), path=model.path.with_suffix(".onnx"))

    with pytest.raises(ConfigError, match=r"best.onnx: an exported file has no loss to inspect; use the weights"):
        bw.inspect_data(exported)


@pytest.mark.parametrize("name", ["yolov8n", "yolov5n"])
def test_an_image_is_explained_to_the_total(data, name):
    image = next((data.parent / "images" / "val").iterdir())
    stages = list(bw.explain_image(name, image, data.parent / "labels" / "val" / f"{image.stem}.txt", imgsz=64))

    assert stages[0].title == "labels"
    assert stages[-1].title == "the loss"
    assert float(stages[-1].table["loss"].sum()) > 0
    assert len(stages) > 5


def test_explaining_names_a_wrong_row(data, tmp_path):
    image = next((data.parent / "images" / "val").iterdir())
    labels = tmp_path / "rows.txt"
    for row, reason in (
        ("1 0.5 half 0.2 0.2", "field 3: expected a number"),
        ("0 40 40 9 9", "centre x is 40, outside"),
    ):
        labels.write_text(f"0 0.5 0.5 0.2 0.2\n{row}\n")
        with pytest.raises(DataError, match=rf"rows.txt, line 2: expected class, centre x, y, width, height.*{reason}"):
            list(bw.explain_image("yolov8n", image, labels))
    with pytest.raises(DataError, match=r"missing.txt: cannot be read"):
        list(bw.explain_image("yolov8n", image, tmp_path / "missing.txt"))


def test_labels_to_explain_are_read_as_in_training(data, tmp_path):
    """A class written as 3.0, a row given twice, an outline: all are rows that training reads."""
    image = next((data.parent / "images" / "val").iterdir())
    labels = tmp_path / "rows.txt"
    labels.write_text("3.0 0.5 0.5 0.2 0.2\n3.0 0.5 0.5 0.2 0.2\n1 .1 .1 .4 .1 .4 .5 .1 .5\n")

    stages = list(bw.explain_image("yolov8n", image, labels, imgsz=64))

    assert [str(name) for name in stages[0].table["class"]] == ["3", "1"]
