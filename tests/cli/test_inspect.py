# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""`boxwright inspect` and `boxwright explain` as a person types them."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

import boxwright as bw
from boxwright.cli import console
from boxwright.cli.inspect import _blocks, _print
from boxwright.drawn.synthetic import draw_dataset
from boxwright.inspector.explain import Stage
from boxwright.models.weights import read_metadata, read_state, save_weights
from boxwright.table import Table

QUICK = ("--set", "data.imgsz=64", "--device", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return draw_dataset(tmp_path_factory.mktemp("cli") / "scenes", train=4, val=4, imgsz=64, seed=3)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run of one epoch; what it learns does not matter."""
    quick = {"imgsz": 64, "batch": 4, "workers": 0, "precision": "fp32", "plots": False}
    return bw.train("yolov8n", data=data, out=tmp_path_factory.mktemp("runs") / "one", epochs=1, **quick)


def test_a_preset_is_inspected_and_everything_is_written(call, data, tmp_path):
    status, output = call("inspect", "--model", "yolov8n", "--data", data, "--limit", 2, "--out", "seen", *QUICK)

    assert status == 0
    for title in ("what the loss is made of", "by class", "by size", "by level", "objects that cost most"):
        assert title in output
    folder = tmp_path / "seen"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    rows = json.loads((folder / "tables" / "objects.json").read_text())
    terms = json.loads((folder / "tables" / "terms.json").read_text())
    shares = json.loads((folder / "tables" / "shares.json").read_text())
    assert sum(row["loss"] for row in rows) == pytest.approx(sum(row["objects"] for row in terms), rel=1e-6)
    assert sum(row["loss"] for row in shares) == pytest.approx(sum(row["objects"] for row in terms), rel=1e-6)
    assert len(list((folder / "overlays").glob("*.png"))) >= 2


def test_another_setting_is_put_beside(call, data, tmp_path):
    words = ("--against-set", "criterion.rules.main.assigner.topk=3")
    status, output = call("inspect", "--model", "yolov8n", "--data", data, "--limit", 2, "--out", "s", *words, *QUICK)

    assert status == 0
    assert "loss by term, yolov8n minus yolov8n with topk=3" in output
    assert "loss by class" in output
    assert '"against"' in (tmp_path / "s" / "report.html").read_text(encoding="utf-8")


def test_an_image_that_is_not_there_is_named(call, data):
    status, output = call("inspect", "--model", "yolov8n", "--data", data, "--image", "zebra.jpg", *QUICK)

    assert status == 1
    assert "no image of the val split ends with zebra.jpg" in output


def test_weights_are_put_beside_weights(call, run, tmp_path):
    other = tmp_path / "other.safetensors"
    shutil.copyfile(run.weights, other)
    state = {
        name: tensor * 1.5 if name.endswith("conv.weight") else tensor for name, tensor in read_state(other).items()
    }
    save_weights(other, state, read_metadata(run.weights))
    words = ("--weights", run.weights, "--against", other, "--limit", 2, "--out", "seen", "--device", "cpu")
    status, output = call("inspect", *words)

    assert status == 0
    compared = output.partition("loss by term, one minus other")[2]
    ours, theirs, change = map(float, re.search(r"main/cls +(\S+) +(\S+) +(\S+)", compared).groups())
    assert ours - theirs == pytest.approx(change, abs=0.01)
    assert change != 0


def test_a_training_writes_a_report_every_n_epochs_and_learns_the_same(call, data, tmp_path):
    words = ("train", "yolov8n", "--data", data, "--epochs", 2, "--imgsz", 64, "--batch", 4, "--workers", 0)
    quick = ("--set", "train.precision=fp32", "--set", "evaluation.plots=false", "--device", "cpu", "--seed", 1)
    assert call(*words, *quick, "--out", "looked", "--inspect-every", 1)[0] == 0
    assert call(*words, *quick, "--out", "blind")[0] == 0

    reports = sorted(path.parent.name for path in (tmp_path / "looked" / "inspect").glob("*/report.html"))
    assert reports == ["epoch-0001", "epoch-0002"]
    assert not (tmp_path / "blind" / "inspect").exists()
    ours, theirs = (read_state(tmp_path / name / "weights" / "last.safetensors") for name in ("looked", "blind"))
    assert all(np.array_equal(ours[name].numpy(), theirs[name].numpy()) for name in theirs)
    texts = [(tmp_path / name / "metrics.csv").read_text(encoding="utf-8") for name in ("looked", "blind")]
    tables = [list(csv.DictReader(text.splitlines())) for text in texts]
    timed = [name for name in tables[0][0] if "second" in name or name.endswith("/s") or "time" in name]
    for ours_row, theirs_row in zip(*tables, strict=True):
        assert {k: v for k, v in ours_row.items() if k not in timed} == {
            k: v for k, v in theirs_row.items() if k not in timed
        }


@pytest.mark.parametrize("family", ["yolov5", "yolov8"])
def test_a_loss_is_explained_step_by_step(call, data, family):
    image = next((data.parent / "images" / "val").iterdir())
    labels = data.parent / "labels" / "val" / f"{image.stem}.txt"
    status, output = call("explain", family, "--image", image, "--labels", labels, "--imgsz", 64)

    assert status == 0
    assert output.lstrip().startswith("1. labels")
    assert "what each object pays" in output
    assert re.search(r"the total, [\d.]+, is training's", output)


@pytest.mark.slow
def test_a_set_prediction_loss_is_explained(call, data):
    image = next((data.parent / "images" / "val").iterdir())
    labels = data.parent / "labels" / "val" / f"{image.stem}.txt"
    status, output = call("explain", "rtdetr", "--image", image, "--labels", labels, "--imgsz", 64)

    assert status == 0
    assert "what every object costs each query" in output


def test_explaining_asks_for_label_rows(call, data, tmp_path):
    image = next((data.parent / "images" / "val").iterdir())
    (tmp_path / "wrong.txt").write_text("0 0.5 0.5\n")
    status, output = call("explain", "yolov8", "--image", image, "--labels", "wrong.txt")

    assert status == 1
    assert "wrong.txt, line 1: expected class" in output


def test_a_wide_table_is_printed_in_blocks_that_fit():
    words = {"object": ["0", "1"], **{f"a long name {i}": ["0.1234", "0.5678"] for i in range(9)}}

    blocks = _blocks(words, 60)

    assert [block[0] for block in blocks] == ["object"] * 3
    assert [name for block in blocks for name in block[1:]] == list(words)[1:]
    assert all(sum(len(name) + 3 for name in block) <= 60 for block in blocks)
    assert _blocks(words, 1000) == [list(words)]


def test_values_stand_under_their_own_names(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console.out.cache_clear()
    columns = {"part": ["main"], "object": [7], "fate": ["lost"], "metric": [0.25], "a_longer_name": [3]}

    _print(Stage("title", "sentence", Table(columns)), None)

    console.out.cache_clear()
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip() and "─" not in line]
    shown = [dict(zip(lines[i], lines[i + 1], strict=True)) for i in range(0, len(lines), 2)]
    assert len(shown) == 2
    assert {**shown[0], **shown[1]} == {
        "part": "main", "object": "7", "fate": "lost", "metric": "0.2500", "a_longer_name": "3",
    }  # fmt: skip
