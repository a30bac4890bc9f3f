# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""data.yaml: what people write, and spec/datasets cases 55 to 61."""

import pytest

from boxwright.datasets.dataset import DataConfig, read_split
from boxwright.datasets.formats import open_dataset
from boxwright.errors import DataError

GOOD = "1 0.25 0.25 0.1 0.1\n"
SPLITS = "train: images/train\nval: images/val\n"


@pytest.fixture
def header(yolo):
    """Opens a dataset whose data.yaml holds a text."""
    yolo.write({"a.jpg": GOOD})

    def read(text):
        yolo.yaml.write_bytes(text if isinstance(text, bytes) else text.encode())
        return open_dataset(yolo.yaml)

    return read


@pytest.mark.parametrize(
    ("text", "names", "ids"),
    [
        pytest.param("names: [cat, dog]", ("cat", "dog"), (0, 1), id="list"),
        pytest.param("names:\n  0: cat\n  1: dog", ("cat", "dog"), (0, 1), id="dict"),
        pytest.param("names: {'1': dog, '0': cat}", ("cat", "dog"), (0, 1), id="text-keys"),
        pytest.param("names: {90: z, 7: b, 3: a}", ("a", "b", "z"), (3, 7, 90), id="gaps"),
        pytest.param("nc: 2", ("class_0", "class_1"), (0, 1), id="nc-only"),
        pytest.param("names: [cat, dog]\nnc: 2", ("cat", "dog"), (0, 1), id="nc-agrees"),
        pytest.param("names: [a b, \"it's\", 'x: y']", ("a b", "it's", "x: y"), (0, 1, 2), id="odd-text"),
    ],
)
def test_names_as_people_write_them(header, text, names, ids):
    result = header(SPLITS + text)

    assert (result.names, result.class_ids) == (names, ids)


def test_gaps_give_compact_labels_and_keep_the_ids(yolo):
    yolo.write({"a.jpg": "90 .5 .5 .2 .2\n3 .5 .5 .2 .2\n"}, val={"v.jpg": "3 .5 .5 .2 .2"}, names="{3: a, 90: z}")

    records = yolo.scan()

    assert records.records[0].instances.labels.tolist() == [1, 0]
    assert records.header.class_ids == (3, 90)
    assert [(p.code, p.severity) for p in records.header.problems] == [("class_ids_with_gaps", "note")]
    assert dict(records.report.per_class_counts) == {"a": 1, "z": 1}


REFUSED = [
    pytest.param("names: !!python/object/apply:os.system [echo]", "unsupported tag", id="case55-python-tag"),
    pytest.param("names: !include other.yaml", "unsupported tag", id="case55-own-tag"),
    pytest.param("names: [cat]\nnames: [dog]", "line 4: duplicate key 'names'", id="duplicate-key"),
    pytest.param("names: &a [x]\nb: [" + "*a, " * 60 + "*a]", "more than 50 aliases", id="case56-many-aliases"),
    pytest.param(
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 6)}]\n" for i in range(1, 9))
        + "names: [cat]",
        "expand without measure",
        id="case56-alias-bomb",
    ),
    pytest.param("names: &a [*a]", "aliases contain themselves", id="case56-recursion"),
    pytest.param("names: " + "[" * 30 + "]" * 30, "nested more than 20", id="deep"),
    pytest.param("# " + "x" * 2**20, "a dataset description has at most", id="case56-size"),
    pytest.param("names: [cat, dog]\nnc: 3", "line 4: nc: expected 2, the number of names, got 3", id="case58-nc"),
    pytest.param("names: {0: cat, -1: dog}", "names.-1: the class id is negative", id="case58-negative-key"),
    pytest.param("names: {0: cat, 00: dog}", "names.00: class id 0 is given twice", id="case58-duplicate-key"),
    pytest.param("names: {a: cat}", "names.a: the class id is not a whole number", id="case58-text-key"),
    pytest.param(
        "names: cat", "names: expected a list or a mapping of ids to names, got the text 'cat'", id="case58-text"
    ),
    pytest.param("names: []", "names: empty", id="no-names"),
    pytest.param("names: [cat, [dog]]", "names.1: expected a name, got a list", id="nested-names"),
    pytest.param("names: [cat, '']", "names.1: the name is empty", id="empty-name"),
    pytest.param("nc: 0", "nc: expected a whole number from 1", id="nc-zero"),
    pytest.param("nc: 99999999999", "nc: expected a whole number from 1", id="nc-huge"),
    pytest.param("", "names: missing", id="no-names-at-all"),
    pytest.param("names: [cat", "not valid YAML", id="broken"),
    pytest.param(b"names: [caf\xe9]", "line 3: byte 0xe9 is not UTF-8", id="latin1"),
    pytest.param("names: [cat]\nkpt_shape: [17, 4]", "kpt_shape: expected", id="kpt-shape"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_wrong_descriptions_are_refused_with_key_and_line(header, text, words):
    text = SPLITS.encode() + text if isinstance(text, bytes) else SPLITS + text

    with pytest.raises(DataError) as caught:
        header(text)

    assert words in str(caught.value)
    assert "data.yaml" in str(caught.value)


def test_not_a_mapping_is_refused(header):
    with pytest.raises(DataError, match="expected a mapping"):
        header("- a\n- b\n")


def test_case57_download_is_never_run(yolo, tmp_path):
    marker = tmp_path / "ran"
    code = f"|\n  import pathlib\n  pathlib.Path({str(marker)!r}).write_text('x')\n"
    header = open_dataset(yolo.write({"a.jpg": GOOD}, extra=f"download: {code}").yaml)

    read_split(header, "train", DataConfig())

    assert not marker.exists()
    assert [(p.code, p.severity) for p in header.problems] == [("download_ignored", "note")]
    yolo.yaml.write_text("train: images/nothing\nval: images/val\nnames: [a]\ndownload: touch ran\n")
    with pytest.raises(DataError, match=r"there is no .*nothing; the file's 'download: 'touch ran'' is never run"):
        open_dataset(yolo.yaml)
    assert not marker.exists()


def test_case59_booleans_and_numbers_as_names_keep_their_text(header):
    result = header(SPLITS + "names: [no, on, 007, 1e3, 'yes']")

    assert result.names == ("no", "on", "007", "1e3", "yes")
    # YAML 1.1 reads 1e3 as text and 007 as an integer.
    assert [(p.code, p.line, p.severity) for p in result.problems] == [("name_not_text", 3, "warning")] * 3
    assert "names.0: YAML reads no as bool; kept as the text 'no'" in result.problems[0].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("train: images/train", "val: missing; name the folder", id="case61-absent"),
        pytest.param("train: images/train\nval:", "val: missing; name the folder", id="case61-empty"),
        pytest.param("val: images/val", "train: missing", id="no-train"),
        pytest.param("train: images/nope\nval: images/val", "line 1: train: there is no", id="train-absent"),
        pytest.param("train: https://x.y/z.zip\nval: images/val", "nothing is downloaded", id="address"),
        pytest.param("train: {a: b}\nval: images/val", "train: expected a folder, a text file", id="mapping"),
        pytest.param(
            "train: data.yaml\nval: images/val", "train: expected a folder of images or a .txt", id="other-file"
        ),
    ],
)
def test_missing_splits_are_explained(header, text, words):
    with pytest.raises(DataError) as caught:
        header(text + "\nnames: [cat, dog]\n")

    assert words in str(caught.value)


def test_validation_is_accepted_for_val_and_null_for_test(header, yolo):
    result = header("train: images/train\nvalidation: images/val\ntest:\nnames: [cat, dog]")

    assert dict(result.splits) == {"train": (yolo.root / "images/train",), "val": (yolo.root / "images/val",)}


def test_path_is_looked_up_beside_the_file_then_in_the_datasets_folder(header, yolo, monkeypatch):
    text = "path: {}\n" + SPLITS + "names: [cat, dog]"
    assert header(text.format(".")).root == yolo.root
    assert header(text.format("../set")).root == yolo.root
    assert header(text.format(yolo.root)).root == yolo.root
    nested = yolo.root / "nested"
    nested.mkdir()
    yolo.yaml = nested / "data.yaml"
    with pytest.raises(DataError, match=r"path: there is no folder .*nested/set"):
        header(text.format("set"))
    monkeypatch.setenv("BOXWRIGHT_DATASETS", str(yolo.root.parent))
    assert header(text.format("set")).root == yolo.root


def test_a_path_of_another_machine_falls_back_to_the_files_folder_and_says_so(header, yolo):
    result = header("path: /nowhere/on/this/machine\n" + SPLITS + "names: [cat, dog]")

    assert result.root == yolo.root
    assert [(p.code, p.line, p.severity) for p in result.problems] == [("path_missing", 1, "warning")]


def test_parent_prefix_of_labelling_services_is_understood_and_said(header, yolo):
    result = header("train: ../images/train\nval: ../images/val\nnames: [cat, dog]")

    assert result.splits["train"] == (yolo.root / "images/train",)
    assert [p.code for p in result.problems] == ["path_missing", "path_missing"]


def test_other_keys_are_ignored_aloud_where_they_matter(header):
    result = header(SPLITS + "names: [cat, dog, cat]\nchannels: 1\nminival: images/val\nlicense: MIT\n")

    assert [(p.code, p.severity) for p in result.problems] == [
        ("duplicate_name", "warning"),
        ("channels_ignored", "warning"),
        ("split_ignored", "note"),
    ]


def test_utf8_with_bom_is_read(header):
    assert header(b"\xef\xbb\xbf" + (SPLITS + "names: [größe]").encode()).names == ("größe",)


def test_real_coco_mini(shared_data):
    detect = open_dataset(shared_data("coco-mini") / "object_detection" / "config.yaml")
    segment = open_dataset(shared_data("coco-mini") / "instance_segmentation" / "config.yaml")

    for header, counts in ((detect, (156, 158)), (segment, (155, 159))):
        for split, count in zip(("train", "val"), counts, strict=True):
            records = read_split(header, split, DataConfig())
            assert len(records.records) == 24
            assert sum(len(record.instances) for record in records.records) == count
            assert records.report.rows == count
            assert [p for p in records.report.problems if p.severity != "note"] == []
    assert detect.names == segment.names  # the second counts from 1 and has gaps
    assert (segment.class_ids[0], segment.class_ids[-1], len(segment.class_ids)) == (1, 90, 80)


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("exclusive:", None), ("exclusive: true", True), ("exclusive: False", False)]
)
def test_exclusive_classes(header, text, expected):
    assert header(f"{SPLITS}names: [a, b]\n{text}\n").exclusive is expected


@pytest.mark.parametrize("value", ["1", "'true'", "maybe", "[true]"])
def test_exclusive_that_is_not_true_or_false_is_named(header, value):
    with pytest.raises(DataError, match=r"line 4: exclusive: expected true .* or false, got"):
        header(f"{SPLITS}names: [a, b]\nexclusive: {value}\n")


POSE = "names: [cat]\nkpt_shape: [3, 3]\n"


def test_keypoints_with_names_pairs_and_skeleton(header):
    result = header(SPLITS + POSE + "flip_idx: [0, 2, 1]\nkpt_names: [nose, a, b]\nskeleton: [[0, 1], [0, 2]]\n")

    points = result.keypoints
    assert (points.count, points.dims, points.names) == (3, 3, ("nose", "a", "b"))
    assert (points.flip, points.skeleton) == ((0, 2, 1), ((0, 1), (0, 2)))
    assert result.task == "pose"


def test_case34_without_flip_idx_pairs_come_from_the_names_or_are_unknown(header):
    assert header(SPLITS + POSE).keypoints.flip is None
    assert header(SPLITS + POSE + "kpt_names: {0: [nose, left_eye, right_eye]}").keypoints.flip == (0, 2, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(POSE + "flip_idx: [0, 1]", "line 5: flip_idx: expected 3 indices", id="case34-length"),
        pytest.param(
            POSE + "flip_idx: [1, 2, 0]", "flip_idx: expected an order of 0 to 2 that undoes", id="case34-cycle"
        ),
        pytest.param(POSE + "flip_idx: [0, 1, 1]", "flip_idx: expected an order of 0 to 2", id="case34-twice"),
        pytest.param(POSE + "flip_idx: [0, x, 1]", "flip_idx: expected a list of indices", id="case34-words"),
        pytest.param(POSE + "kpt_names: [nose]", "kpt_names: expected 3 names", id="few-names"),
        pytest.param(POSE + "kpt_names: {0: [a, b, c], 1: [a, b, d]}", "same list of names", id="differing-names"),
        pytest.param(POSE + "skeleton: [[0, 3]]", "skeleton: expected indices from 0 to 2", id="skeleton-range"),
        pytest.param(POSE + "skeleton: [0, 1]", "skeleton: expected a list of indices", id="skeleton-form"),
        pytest.param("names: [cat]\nflip_idx: [0]", "flip_idx: given without kpt_shape", id="no-shape"),
        pytest.param("names: [cat]\ntask: detection", "task: expected one of detect, segment", id="task"),
        pytest.param("names: [cat]\ntask: classify", "name a folder with train/<class name>", id="task-classify"),
        pytest.param("names: [cat]\nattributes: [red]", "line 4: attributes: expected a mapping", id="attributes-list"),
        pytest.param(
            "names: [cat]\nattributes: {colour: [red]}", "attributes.colour: expected at least 2", id="one-value"
        ),
    ],
)
def test_wrong_label_descriptions_are_refused_with_key_and_line(header, text, words):
    with pytest.raises(DataError, match=words):
        header(SPLITS + text)


def test_attributes_and_task(header):
    text = "names: [cat]\ntask: obb\nattributes: {colour: [red, 2], marks: {values: [dot], multi_label: true}}\n"

    result = header(SPLITS + text)

    assert result.task == "obb"
    assert [(spec.name, spec.values, spec.multi_label) for spec in result.attributes] == [
        ("colour", ("red", "2"), False),
        ("marks", ("dot",), True),
    ]
