# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The pages on models, tasks, data, import and export: what they show exists and works."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from boxwright.datasets.formats import FORMATS, open_dataset
from boxwright.datasets.formats.yolo_rows import RowRules, parse_row
from boxwright.datasets.policy import DataConfig
from boxwright.presets import PRESETS, preset
from boxwright.vocabulary import TASK_NAMES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ("models", "tasks", "data", "import", "export")
LARGEST_PICTURE = 60_000  # bytes


def page(name):
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_models", DOCS / "build_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call(tmp_path, monkeypatch):
    from boxwright.cli.app import app

    monkeypatch.chdir(tmp_path)

    def run(line):
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        return result.output

    return run


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_and_the_readme_links_the_page(name):
    for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", page(name)):
        assert (DOCS / link).is_file(), link
    for anchor in re.findall(r"\]\(#([^)]+)\)", page(name)):
        headings = re.findall(r"^#+ (.*)$", page(name), re.MULTILINE)
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings], anchor
    assert f"](docs/{name}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_task_has_its_small_picture():
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page("tasks"))
    assert shown == [f"images/{task}.jpg" for task in TASK_NAMES]
    for link in shown:
        assert (DOCS / link).stat().st_size < LARGEST_PICTURE


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_pictures_are_those_that_are_drawn(builder, task):
    committed = cv2.cvtColor(cv2.imread(str(DOCS / "images" / f"{task}.jpg")), cv2.COLOR_BGR2RGB)
    drawn = builder.picture(task)
    assert drawn.shape == committed.shape
    assert np.abs(drawn.astype(float) - committed).mean() < 8  # what JPEG takes


@pytest.mark.parametrize("name", PAGES)
def test_every_command_and_option_exists(name):
    import typer

    from boxwright.cli.app import app

    for block in blocks(name, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            command = typer.main.get_command(app)
            for word in words[1:]:
                command = getattr(command, "commands", {}).get(word, command)
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line


def test_the_table_of_sizes_names_every_detector_and_its_numbers_are_computed(builder):
    text = page("models").partition(builder.BEGIN)[2].partition(builder.END)[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", text, re.MULTILINE))
    assert set(rows) == {name for name in PRESETS if not name.endswith(("-seg", "-pose", "-obb", "-cls"))}
    assert rows["yolov5-shufflenetv2"] == builder.cell("yolov5-shufflenetv2"), "run `make docs`"
    assert rows["yolov8n"].split(" | ")[-1] == builder.cell("yolov8n-cls")


@pytest.mark.slow
def test_all_sizes_are_those_that_are_built(builder):
    assert builder.filled(page("models")) == page("models"), "run `make docs`"


def test_the_number_of_parameters_is_that_of_the_published_model(builder):
    golden = json.loads((ROOT / "tests" / "golden" / "architectures.json").read_text())["models"]["yolov8n/detect"]
    bins = 16 * 8400 * 4  # the fixed projection, which is no convolution here
    assert builder.counts("yolov8n") == (golden["params"], golden["macs_conv_linear"] - bins)


def test_the_table_of_layers_is_a_model(tmp_path):
    (tmp_path / "mine-n.yaml").write_text(blocks("models", "yaml")[0])
    recipe = preset(str(tmp_path / "mine-n.yaml"), num_classes=3)
    assert recipe.model.build().strides == (8, 16)
    assert recipe.num_classes == 3


def test_the_kinds_of_parts_are_those_there_are():
    from boxwright.config import _members
    from boxwright.models.backbones import BackboneConfig
    from boxwright.models.heads import HeadConfig
    from boxwright.models.necks import NeckConfig

    for name, union in (("backbone", BackboneConfig), ("neck", NeckConfig), ("head", HeadConfig)):
        row = re.search(rf"^\| `model\.{name}\.kind` \| (.*) \|$", page("models"), re.MULTILINE)[1]
        kinds = {member.__dataclass_fields__["kind"].default for member in _members(union)}
        assert set(re.findall(r"`(\w+)`", row)) == kinds


def test_every_format_has_its_part():
    headings = " ".join(re.findall(r"^## (.*)$", page("data"), re.MULTILINE)).lower().replace(" ", "")
    for form in FORMATS:
        assert {"voc": "pascalvoc", "folder": "classfolders"}.get(form.name, form.name) in headings


def test_the_example_of_a_data_yaml_is_read(tmp_path):
    first, keypoints, attributes = blocks("data", "yaml")
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text(first + keypoints + attributes)
    header = open_dataset(tmp_path / "data.yaml")
    assert (header.names, header.exclusive, header.task) == (("cat", "dog"), True, "pose")
    assert header.keypoints.flip == tuple(yaml.safe_load(keypoints)["flip_idx"])
    assert [spec.name for spec in header.attributes] == ["colour", "marks"]
    rules = RowRules({0: 0, 1: 1}, header.names, None, DataConfig(), header.attributes)
    row = re.search(r"`(1 0\.5[^`]*)` is a blue object with a dot", page("data"))[1]
    found = parse_row(row.encode(), (100, 100), rules).item.attributes
    assert header.attributes[0].values[found["colour"]] == "blue"
    assert found["marks"] == (1.0, 0.0)


def test_the_example_of_a_coco_file_is_read(tmp_path, call):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "annotations" / "instances_train.json").write_text(blocks("data", "json")[0])
    cv2.imwrite(str(tmp_path / "train" / "0001.jpg"), np.zeros((480, 640, 3), np.uint8))
    assert "0 errors" in call("boxwright check .")
    header = open_dataset(tmp_path)
    assert (header.format, header.task, header.attributes[0].values) == ("coco", "segment", ("red", "green"))


def test_the_lines_on_conversion_run_and_lose_what_the_page_says(call):
    for line in blocks("data", "sh")[0].splitlines():
        command = line.partition("#")[0].strip()
        text = call(command + (" --train 4 --val 2 --imgsz 64" if "draw" in command else ""))
        assert "lost: nothing that was read" in text or " convert " not in command
    assert re.search(r"lost in voc: outlines: \d+", call("boxwright data convert shapes shapes-voc --to voc"))
