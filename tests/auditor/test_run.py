# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The audit of whole datasets: broken ones, real ones, what is written, and the command."""

import hashlib
import json
import os
from collections import Counter

import cv2
import numpy as np
import pytest
from rich.console import Console
from tests.auditor.builders import labels_of, photograph
from typer.testing import CliRunner

from boxwright.auditor.errors_ranked import FoundBoxes, errors_of_image, ranked
from boxwright.auditor.learnable import CellRule, Setting
from boxwright.auditor.result import Audit
from boxwright.auditor.run import audit_dataset
from boxwright.errors import DataError
from boxwright.reports.audit_files import write_audit
from boxwright.reports.audit_text import summary
from boxwright.reports.gallery import crop

SETTING = Setting(CellRule(strides=(8, 16, 32)), model="yolov8n")
BROKEN = {
    "a": "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n",  # twice
    "b": "7 0.5 0.5 0.2 0.2\n",  # no such class
    "c": "0 0.5 0.5 0 0.2\n1 1.5 0.5 0.2 0.2\n",  # flat, outside
    "d": "1 0.5 nan 0.2 0.2\n",
    "e": "",
    "f": None,
}


def dataset(root, train=BROKEN, val=None, yaml="names: [cat, dog]\n"):
    """A YOLO dataset of drawn pictures."""
    for split, files in (("train", train), ("val", {"v": "0 0.4 0.4 0.3 0.3\n"} if val is None else val)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for place, (name, text) in enumerate(files.items()):
            cv2.imwrite(str(root / "images" / split / f"{name}.png"), photograph(place + 100 * (split == "val")))
            if text is not None:
                (root / "labels" / split / f"{name}.txt").write_text(text)
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\n{yaml}")
    return root / "data.yaml"


def state(root):
    """Every file's bytes and time."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def codes(audit):
    return Counter({code: sum(one.count for one in audit[code]) for code in {one.code for one in audit.findings}})


def printed(audit):
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(summary(audit))
    return " ".join(console.export_text().split())


def test_a_broken_dataset_is_told_and_not_touched(tmp_path):
    root = tmp_path / "set"
    source = dataset(root)
    (root / "images" / "train" / "g.jpg").write_bytes(b"<html>not found</html>")
    (root / "labels" / "train" / "orphan.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (root / "images" / "val" / "copy.png").write_bytes((root / "images" / "train" / "a.png").read_bytes())
    before = state(root)

    audit = audit_dataset(source, SETTING)

    assert state(root) == before
    found = codes(audit)
    wanted = ("duplicate_row", "zero_area", "coord_out_of_range", "not_finite", "not_an_image", "orphan_label",
              "splits_share_content", "labels_missing", "images_empty", "class_rare")  # fmt: skip
    assert {code: found[code] for code in wanted if not found[code]} == {}
    assert found["class_out_of_range"] == 1
    assert not audit.ok
    severities = [finding.severity for finding in audit.findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    text = printed(audit)
    assert "labels/train/c.txt, line 1" in text
    assert "no errors" not in text


@pytest.mark.parametrize(
    ("yaml", "code"),
    [
        ("nc: 3\nnames: [cat, dog]\n", "cannot_open"),
        ("names: [cat\n", "cannot_open"),
        ("names: [cat, cat]\n", "duplicate_name"),
    ],
)
def test_a_wrong_description_is_a_finding(tmp_path, yaml, code):
    audit = audit_dataset(dataset(tmp_path / "set", yaml=yaml), SETTING)
    assert code in codes(audit)
    assert printed(audit)
    json.dumps(audit.to_dict(), allow_nan=False)


def test_a_path_to_nothing_is_a_finding(tmp_path):
    audit = audit_dataset(tmp_path / "nowhere", SETTING)
    assert codes(audit) == {"path_not_found": 1}
    assert audit.header is None
    assert not audit.ok
    assert "There is nothing at this path" in printed(audit)
    assert audit.to_dict()["dataset"] is None


def test_a_missing_split_folder_is_a_finding(tmp_path):
    source = dataset(tmp_path / "set")
    source.write_text("train: images/train\nval: images/elsewhere\nnames: [cat, dog]\n")
    audit = audit_dataset(source, SETTING)
    assert not audit.ok
    assert any("elsewhere" in str(example) for finding in audit.findings for example in finding.examples)


def test_tables_and_weights(tmp_path):
    rows = "".join(f"0 0.{k}5 0.5 0.05 0.05\n" for k in range(9))
    audit = audit_dataset(dataset(tmp_path / "set", {"a": rows + "1 0.5 0.2 0.2 0.2\n"}), SETTING, pixels=False)
    classes = audit.classes
    assert classes["train"].tolist() == [9, 1]
    assert classes["weight/inverse"].tolist() == pytest.approx([10 / 18, 10 / 2])
    assert classes["weight/power(1)"].tolist() == pytest.approx([0.2, 1.8])
    whole = next(audit.candidates.rows())
    assert (whole["split"], whole["objects"]) == ("train", 10)
    assert not audit.looked_at_pixels
    assert "pixels were not looked at" in printed(audit)


def test_rows_of_outlines_among_boxes(tmp_path):
    rows = "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3\n"
    (finding,) = audit_dataset(dataset(tmp_path / "set", {"a": rows}), SETTING)["outline_rows"]
    assert (finding.severity, finding.count, finding.splits) == ("warning", 1, ("train",))
    said = audit_dataset(dataset(tmp_path / "other", {"a": rows}, yaml="names: [cat, dog]\ntask: segment\n"), SETTING)
    assert not said["outline_rows"]


def test_only_some_splits(tmp_path):
    audit = audit_dataset(dataset(tmp_path / "set"), SETTING, splits=["train"])
    assert [*audit.labels] == ["train"]
    assert not audit["split_missing"]


def suspicious(root):
    image = root / "a.png"
    cv2.imwrite(str(image), photograph(0))
    labels = labels_of([(0, 0, 10, 10, 60, 60)], size=(120, 160))
    object.__setattr__(labels, "images", (image,))
    found = FoundBoxes(np.array([[12.0, 10, 60, 60], [90, 60, 150, 110]]), np.array([0.9, 0.8]), np.array([1, 0]))
    return ranked(errors_of_image(labels, 0, found))


def test_what_is_written(tmp_path):
    audit = audit_dataset(dataset(tmp_path / "set"), SETTING)
    audit = Audit(audit.source, audit.header, audit.labels, audit.reports, audit.findings, audit.learnable,
                  errors=suspicious(tmp_path), weights="best.safetensors")  # fmt: skip
    files = write_audit(tmp_path / "out", audit, ("json",))
    assert {file.name for file in files} == {"audit.json", "label_errors.html", "classes.json", "candidates.json",
                                             "remedies.json", "label_errors.json"}  # fmt: skip
    held = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert held["format"] == "boxwright-audit/1"
    assert held["dataset"]["splits"]["train"]["images"] == 6
    assert [one["kind"] for one in held["label_errors"]] == ["swapped", "overlooked"]
    page = (tmp_path / "out" / "label_errors.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "swapped: labelled cat, the model says dog (0.90)" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "swapped 1" in printed(audit)


def test_nothing_is_written_into_the_dataset(tmp_path):
    audit = audit_dataset(dataset(tmp_path / "set"), SETTING, pixels=False)
    before = state(tmp_path / "set")
    with pytest.raises(DataError, match="never written to"):
        write_audit(tmp_path / "set" / "report", audit)
    assert state(tmp_path / "set") == before


def test_a_crop_shows_both_boxes(tmp_path):
    row = next(suspicious(tmp_path).rows())
    picture = crop(np.zeros((120, 160, 3), np.uint8), row)
    assert max(picture.shape) == 280
    assert (picture == (230, 97, 0)).all(axis=2).any()
    assert (picture == 255).all(axis=2).any()


def run(*arguments):
    from boxwright.cli.app import app

    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def test_the_command_and_its_exit_status(tmp_path):
    rows = "0 0.5 0.5 0.4 0.4\n1 0.2 0.2 0.3 0.3\n0 0.8 0.8 0.3 0.3\n"
    val = {"v": "0 0.5 0.4 0.4 0.4\n1 0.3 0.2 0.3 0.3\n"}
    good = dataset(tmp_path / "good", {f"t{k}": rows for k in range(20)}, val)
    first = run(good, "--no-images", "--out", tmp_path / "out")
    assert first.exit_code == 0, first.output
    assert "identical_labels" in first.output
    assert (tmp_path / "out" / "audit.json").exists()
    strict = run(good, "--no-images", "--strict")
    assert strict.exit_code == 1
    assert "warnings of 1 kind" in strict.output
    broken = run(tmp_path / "nowhere")
    assert broken.exit_code == 1
    assert "path_not_found" in broken.output
    assert broken.exception is None or isinstance(broken.exception, SystemExit)


def test_blood_cells(shared_data):
    audit = audit_dataset(shared_data("bccd"), SETTING)
    found = codes(audit)
    assert found["zero_area"] == 2
    assert found["labelled_twice"] == 7
    assert found["class_imbalance"] == 2
    (leak,) = audit["near_leak"]
    assert "BloodImage_00038.jpg: like BloodImage_00037.jpg of val" in str(leak.examples[0])
    assert audit.ok
    assert not found["labelled_as_two_classes"] + found["image_near_copies"] + found["boxes_misread"]


def test_photographs(shared_data):
    audit = audit_dataset(shared_data("coco-mini") / "object_detection", SETTING)
    assert audit.ok
    assert not {"near_leak", "labelled_twice", "boxes_misread", "boxes_unscaled"} & set(codes(audit))
