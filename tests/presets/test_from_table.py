# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
from tests.models.tables import YOLO11, YOLOV5, YOLOV8, YOLOV10S

from boxwright.config import from_yaml, to_yaml
from boxwright.engine.recipe import Recipe
from boxwright.errors import ConfigError
from boxwright.losses.dense_recipes import end_to_end_detect, end_to_end_progressive
from boxwright.presets import preset


def written(tmp_path, text: str, name: str = "mine-n.yaml") -> str:
    file = tmp_path / name
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "name"), [(YOLOV8, "yolov8n"), (YOLO11, "yolo11n"), (YOLOV10S, "yolov10s"), (YOLOV5, "yolov5s")]
)
def test_a_table_trains_as_the_family_of_its_head(tmp_path, text, name):
    recipe = preset(written(tmp_path, text), num_classes=3)
    family = preset(name, num_classes=3)

    assert recipe.name == "mine-n"
    assert (recipe.criterion, recipe.data, recipe.train) == (family.criterion, family.data, family.train)
    assert recipe.num_classes == 3
    assert from_yaml(Recipe, to_yaml(recipe)) == recipe


def test_tasks_and_classes_come_from_the_table(tmp_path):
    segment = preset(written(tmp_path, YOLOV8.replace("Detect, [nc]", "Segment, [nc, 32, 256]")))
    oriented = preset(written(tmp_path, YOLOV8.replace("Detect, [nc]", "OBB, [15, 1]")))

    assert (segment.data.task, segment.num_classes) == ("segment", 80)
    assert "seg" in segment.criterion.rules["main"].terms
    assert (oriented.data.task, oriented.num_classes) == ("obb", 15)


def test_end_to_end_tables(tmp_path):
    assert preset(written(tmp_path, YOLO11 + "end2end: true\n")).criterion == end_to_end_detect()
    one_bin = preset(written(tmp_path, YOLO11 + "end2end: true\nreg_max: 1\n"))
    assert one_bin.criterion == end_to_end_progressive(num_bins=1)
    masks = YOLO11.replace("Detect, [nc]", "Segment, [nc, 32, 256]") + "end2end: true\n"
    with pytest.raises(ConfigError, match="end-to-end heads detect only, got a head for segment"):
        preset(written(tmp_path, masks))


def test_a_file_that_is_no_table(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read as a table of layers"):
        preset(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ConfigError, match=r"mine-n\.yaml: expected a mapping with the keys nc, backbone and head"):
        preset(written(tmp_path, "- 1\n"))
    with pytest.raises(ConfigError, match=r"mine-n\.yaml: rows\.0: there is no block 'Konv'; did you mean Conv"):
        preset(written(tmp_path, YOLOV8.replace("Conv", "Konv", 1)))
