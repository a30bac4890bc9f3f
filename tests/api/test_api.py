# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import boxwright as bw
from boxwright.config import replace
from boxwright.datasets.dataset import read_split
from boxwright.datasets.formats import open_dataset
from boxwright.datasets.images import read_image
from boxwright.drawn.synthetic import draw_dataset
from boxwright.engine.logs import Listener
from boxwright.errors import CheckpointError, ConfigError, DataError
from boxwright.loading.loader import val_loader
from boxwright.models.weights import read_metadata, read_state, save_weights

QUICK = {"imgsz": 64, "batch": 4, "workers": 0, "precision": "fp32", "plots": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("api") / "scenes", train=8, val=4, imgsz=64, seed=3)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run of one epoch; what it learns does not matter."""
    return bw.train("yolov8n", data=data, out=tmp_path_factory.mktemp("runs") / "one", epochs=1, **QUICK)


@pytest.fixture(scope="module")
def model(run):
    return run.model()


@pytest.fixture
def batch(model, data):
    records = read_split(open_dataset(data), "val", model.recipe.data)
    return next(iter(val_loader(records, model.recipe.data, batch=4, workers=0)))


# --- the package itself


def test_importing_the_package_imports_no_torch():
    code = "import sys, boxwright; assert boxwright.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists_and_is_listed():
    for name in bw.__all__:
        assert getattr(bw, name) is not None
        assert name in dir(bw)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        bw.tarin  # noqa: B018


def test_public_names_are_the_objects_of_their_rooms():
    from boxwright.losses.criterion import Criterion
    from boxwright.structures import Targets

    assert bw.Targets is Targets
    assert bw.Criterion is Criterion


# --- recipes and settings


def test_keywords_find_their_section_and_settings_take_whole_paths(data):
    found = bw.recipe(
        "yolov8n",
        data=data,
        epochs=3,
        imgsz=320,
        mosaic=0.5,
        conf=0.01,
        settings={"criterion.rules.main.assigner.topk": 13, "train.batch": 8},
    )
    assert (found.train.epochs, found.data.imgsz, found.augment.mosaic, found.evaluation.conf) == (3, 320, 0.5, 0.01)
    assert found.criterion.rules["main"].assigner.topk == 13
    assert found.train.batch == 8


def test_a_dataset_sets_the_number_of_classes(data):
    assert bw.recipe("yolov8n", data=data).model.head.num_classes == 4
    assert bw.recipe("yolov8n").model.head.num_classes == 80


def test_a_keyword_of_none_leaves_the_recipe_as_it_is():
    assert bw.recipe("yolov8n", epochs=None) == bw.recipe("yolov8n")


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"epocs": 3}, "epocs: unknown setting; did you mean 'epochs'?"),
        ({"epochs": "ten"}, "train.epochs: expected an integer, got 'ten'"),
        ({"settings": {"train.epocs": 3}}, "train.epocs: unknown key; did you mean 'epochs'?"),
        ({"settings": ["train.epochs"]}, "train.epochs: expected a setting of the form a.b.c=value"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(keywords, expected):
    with pytest.raises(ConfigError) as caught:
        bw.recipe("yolov8n", **keywords)
    assert str(caught.value) == expected


def test_an_unknown_preset_suggests_the_closest(data):
    with pytest.raises(ConfigError, match="yolo8m: unknown preset; did you mean yolov8m"):
        bw.train("yolo8m", data=data)


def test_a_missing_dataset_is_a_data_error():
    with pytest.raises(DataError, match="no such file or folder"):
        bw.train("yolov8n", data="nowhere.yaml")


# --- training


def test_a_run_knows_its_folder_its_metrics_and_its_model(run, model):
    assert {"recipe.yaml", "metrics.csv", "weights"} <= {path.name for path in run.folder.iterdir()}
    assert 0 <= run.metrics["box/ap50_95"] <= run.metrics["box/ap50"] <= 1
    assert run.best_epoch == 1
    assert run.evaluation.names == model.names
    assert model.path == run.folder / "weights" / "best.safetensors"
    assert model.epoch == 1


def test_without_out_a_new_folder_is_made_under_runs(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "yolov8n").mkdir(parents=True)
    (tmp_path / "runs" / "yolov8n" / "notes.txt").touch()
    assert str(bw.train("yolov8n", data=data, epochs=1, **QUICK).folder) == "runs/yolov8n-2"


def test_a_run_is_never_overwritten(run, data):
    with pytest.raises(ConfigError, match="holds a run already"):
        bw.train("yolov8n", data=data, out=run.folder, epochs=1, **QUICK)


def test_a_complete_recipe_can_be_trained(data, tmp_path):
    recipe = bw.recipe("yolov8n", data=data, epochs=1, **QUICK)
    recipe = replace(recipe, name="mine", augment=replace(recipe.augment, mosaic=0.0))
    heard = []

    class Ear(Listener):
        def metrics(self, row):
            heard.append(row["epoch"])

    run = bw.train(recipe, out=tmp_path / "mine", listener=Ear())
    assert heard == [1]
    assert run.model().recipe == recipe


def test_a_finished_epoch_can_be_resumed_with_more_epochs(run, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "copy")
    longer = bw.train(resume=folder, epochs=2)
    assert longer.folder == folder
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("name", ["model", "data", "out"])
def test_a_resumed_run_refuses_what_it_already_has(run, data, name):
    with pytest.raises(ConfigError, match=f"{name}: a resumed run keeps its own"):
        bw.train(resume=run.folder, **{name: str(data)})


# --- loading and predicting


def test_load_takes_a_file_or_a_run_folder(run, model):
    other = bw.load(run.folder / "weights" / "last.safetensors")
    assert other.names == model.names == ("circle", "square", "triangle", "cross")
    state = read_state(run.folder / "weights" / "best.safetensors")
    for name, tensor in model.detector.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert not model.detector.training


def test_load_names_what_it_expected(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such file or folder; expected a \.safetensors file or a run folder"):
        bw.load(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no weights/best\.safetensors"):
        bw.load(tmp_path)


def test_a_training_starts_from_the_weights_of_another_run(run, data, tmp_path):
    said = []
    heard = Listener()
    heard.message = lambda text, severity="info": said.append(text)
    start = read_state(run.folder / "weights" / "best.safetensors")
    again = bw.train(
        "yolov8n", data=data, out=tmp_path / "again", weights=run.folder, listener=heard, epochs=1, imgsz=64, batch=8,
        workers=0, lr0=0.0, warmup_epochs=0.0, freeze=[0],
    )  # fmt: skip

    name = next(name for name in start if name.endswith("conv.weight"))
    assert torch.equal(read_state(again.folder / "weights" / "last.safetensors")[name], start[name])
    assert any("best.safetensors: " in line for line in said)
    with pytest.raises(ConfigError, match="got both"):
        bw.train(weights=run.folder, resume=run.folder)


def test_load_refuses_weights_without_their_recipe(run, tmp_path):
    file = run.folder / "weights" / "best.safetensors"
    metadata = read_metadata(file)
    save_weights(tmp_path / "bare.safetensors", read_state(file), {"format": metadata["format"], "names": "[]"})
    with pytest.raises(CheckpointError, match="its metadata lack recipe, class_ids"):
        bw.load(tmp_path / "bare.safetensors")


def test_one_image_gives_detections_and_a_list_gives_a_list(model, data):
    files = sorted((data.parent / "images" / "val").iterdir())[:2]
    options = {"conf": 0.0, "max_det": 5, "precision": "fp32"}
    one = model(files[0], **options)
    assert isinstance(one, bw.Detections)
    assert one.path == str(files[0])
    assert one.image_size == (64, 64)
    many = model(files, **options)
    assert [found.path for found in many] == [str(file) for file in files]
    torch.testing.assert_close(many[0].boxes, one.boxes)
    array = model(read_image(files[0]), **options)
    torch.testing.assert_close(array.boxes, one.boxes)
    assert isinstance(model(str(data.parent / "images" / "val" / "*.jpg"), **options), list)


def test_detections_carry_the_names_and_ids_of_the_dataset(model, data):
    file = next((data.parent / "images" / "val").iterdir())
    rows = model(file, conf=0.0, max_det=3).to_dicts()
    assert len(rows) == 3
    assert all(row["name"] == model.names[row["label"]] and row["class_id"] == row["label"] for row in rows)
    assert json.loads(json.dumps(rows)) == rows


def test_an_unknown_option_of_prediction_suggests_the_closest(model):
    with pytest.raises(ConfigError, match="cnf: unknown option of prediction; did you mean 'conf'"):
        model(np.zeros((32, 32, 3), np.uint8), cnf=0.5)


def test_a_predictor_is_kept_until_options_or_weights_change(run):
    model = run.model()
    first = model.predictor(conf=0.5)
    assert model.predictor(conf=0.5) is first
    assert model.predictor(conf=0.4) is not first
    again = model.predictor(conf=0.4)
    with torch.no_grad():
        next(model.detector.parameters()).add_(1)
    assert model.predictor(conf=0.4) is not again


# --- validation and loss


def test_validation_repeats_what_training_measured(run, model):
    found = model.validate(workers=0)
    assert found.result.metrics == pytest.approx(run.metrics, abs=1e-6)
    assert set(found.losses) == {"main/box", "main/cls", "main/dfl"}


def test_validation_refuses_a_dataset_with_other_classes(model, tmp_path):
    other = draw_dataset(tmp_path / "scenes", train=1, val=1, imgsz=64, seed=0)
    other.write_text(other.read_text().replace("cross", "sun"))
    with pytest.raises(ConfigError, match=r"expected the 4 classes of .*circle, square, triangle, cross"):
        model.validate(other)


def test_the_loss_of_a_batch_is_the_sum_of_its_parts_and_has_gradients(model, batch):
    breakdown = bw.loss(model, batch)
    values = breakdown.scalars()
    total = values.pop("total")
    assert set(values) == {"main/box", "main/cls", "main/dfl"}
    assert total == pytest.approx(len(batch.indices) * sum(values.values()), rel=1e-5)
    assert breakdown.scale == len(batch.indices)
    weight = next(model.detector.parameters())
    (gradient,) = torch.autograd.grad(breakdown.total, weight)
    assert gradient.abs().sum() > 0


def test_the_loss_takes_outputs_that_were_computed_before(model, batch):
    with torch.no_grad():
        outputs = model.detector(batch.images.float() / 255)
        given = bw.loss(model, batch, outputs).scalars()
        own = bw.loss(model, batch).scalars()
    assert given == pytest.approx(own)


def test_the_loss_prepares_targets_only_once(model, batch):
    from boxwright.ops.grid import grid_for_image

    grid = grid_for_image(tuple(batch.images.shape[2:]), model.detector.strides)
    prepared = replace(batch, targets=model.criterion.prepare(batch.targets, grid))
    with torch.no_grad():
        assert bw.loss(model, prepared).scalars() == pytest.approx(bw.loss(model, batch).scalars())
