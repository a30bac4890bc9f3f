# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from boxwright.config import replace
from boxwright.errors import CheckpointError
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.detector import Detector, DetectorConfig
from boxwright.models.heads.anchor_based import AnchorBasedConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.heads.branches import MaskConfig
from boxwright.models.heads.query import QueryConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.models.weights import load_weights, read_metadata, read_state, replace_atomically, save_weights

METADATA = {"recipe": "name: tiny\n", "names": '["cat", "Dog"]', "class_ids": "[3, 7]", "epoch": "4", "metrics": "{}"}


def built(num_classes: int = 2, seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return DetectorConfig(
        backbone=CSPConfig(widths=(4, 4, 4, 8, 8), depths=(1, 1, 1, 1)),
        neck=PANConfig(widths=(64, 8, 8)),  # 64 wide classes at every count below
        head=AnchorFreeConfig(num_classes=num_classes),
    ).build()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_round_trip_is_exact_and_keeps_metadata(tmp_path):
    model = built().to(memory_format=torch.channels_last)
    path = tmp_path / "weights" / "last.safetensors"
    save_weights(path, model.state_dict(), METADATA)

    assert same(read_state(path), model.state_dict())
    assert read_metadata(path) == {"format": "boxwright/1", **METADATA}
    other = built(seed=1)
    assert not same(other.state_dict(), model.state_dict())
    report = load_weights(other, path)
    assert report.complete
    assert len(report.matched) == len(model.state_dict())
    assert same(other.state_dict(), model.state_dict())
    assert [item.name for item in path.parent.iterdir()] == ["last.safetensors"]


def test_half_precision_files_load_into_float32(tmp_path):
    model, other = built(), built(seed=1)
    save_weights(tmp_path / "w.safetensors", model.half().state_dict(), METADATA)
    load_weights(other, tmp_path / "w.safetensors")

    assert other.backbone.layers[0].conv.weight.dtype == torch.float32
    torch.testing.assert_close(other.backbone.layers[0].conv.weight, model.backbone.layers[0].conv.weight.float())


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.safetensors: no such file"):
        read_state(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_file_cut_short(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    save_weights(path, built().state_dict(), METADATA)
    path.write_bytes(path.read_bytes()[:keep])

    for read in (read_state, read_metadata):
        with pytest.raises(
            CheckpointError, match=r"w.safetensors: not a whole safetensors file .* damaged or cut short"
        ):
            read(path)


def test_a_pickle_is_named_and_not_opened(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1)}, path)

    with pytest.raises(CheckpointError, match=r"model.pt: this is a pickle .* boxwright reads safetensors only"):
        read_state(path)


def test_metadata_of_other_projects_and_newer_formats(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="expected a checkpoint of format boxwright/1, got none"):
        read_metadata(path)
    save_file({"a": torch.zeros(1)}, path, {"format": "boxwright/2"})
    with pytest.raises(CheckpointError, match="got boxwright/2; update boxwright"):
        read_metadata(path)


def test_strict_load_is_all_or_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    state = dict(built(num_classes=2).state_dict())
    del state["backbone.layers.0.conv.weight"]
    state["extra"] = torch.zeros(1)
    save_weights(path, state, METADATA)
    model = built(num_classes=3, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path)

    text = str(caught.value)
    total = len(before)
    assert f"{total - 7} of {total} tensors loaded" in text
    assert "1 not in the file: backbone.layers.0.conv.weight" in text
    assert "1 not in the model: extra" in text
    assert "head.class_branches.0.2.weight (file 2x64x1x1, model 3x64x1x1)" in text
    assert "and 1 more" in text
    assert text.endswith("nothing was loaded")
    assert same(model.state_dict(), before)


def test_transfer_takes_what_fits_and_reports_the_rest(tmp_path):
    path = tmp_path / "w.safetensors"
    source, model = built(num_classes=2), built(num_classes=3, seed=1)
    save_weights(path, source.state_dict(), METADATA)
    fresh = model.head.class_branches[0][2].weight.clone()

    report = load_weights(model, path, strict=False)

    assert {name for name, _, _ in report.mismatched} == set(model.class_rows)
    assert not report.missing
    assert not report.unexpected
    assert not report.complete
    assert torch.equal(model.backbone.layers[0].conv.weight, source.backbone.layers[0].conv.weight)
    assert torch.equal(model.head.class_branches[0][2].weight, fresh)


def test_transfer_moves_class_rows_by_name(tmp_path):
    path = tmp_path / "w.safetensors"
    source, model = built(num_classes=2), built(num_classes=3, seed=1)
    save_weights(path, source.state_dict(), METADATA)  # cat, Dog
    fresh = model.head.class_branches[1][2].weight.clone()

    report = load_weights(model, path, strict=False, names=["dog ", "bird", "cat"])

    rows, old = model.head.class_branches[1][2].weight, source.head.class_branches[1][2].weight
    assert torch.equal(rows[0], old[1])
    assert torch.equal(rows[1], fresh[1])
    assert torch.equal(rows[2], old[0])
    assert set(report.remapped) == set(model.class_rows)
    assert not report.mismatched
    assert "6 class rows copied by name" in report.summary(most=0)


def test_equal_counts_of_other_classes_do_not_inherit_rows(tmp_path):
    path = tmp_path / "w.safetensors"
    source, model = built(num_classes=2), built(num_classes=2, seed=1)
    save_weights(path, source.state_dict(), METADATA)
    fresh = model.head.class_branches[0][2].weight.clone()

    load_weights(model, path, strict=False, names=["car", "cat"])

    assert torch.equal(model.head.class_branches[0][2].weight[0], fresh[0])
    assert torch.equal(model.head.class_branches[0][2].weight[1], source.head.class_branches[0][2].weight[0])


@pytest.mark.parametrize("names", ["not json", json.dumps({"0": "cat"})])
def test_unreadable_names_leave_the_class_rows_alone(tmp_path, names):
    path = tmp_path / "w.safetensors"
    save_weights(path, built(num_classes=2).state_dict(), {"names": names})
    report = load_weights(built(num_classes=3), path, strict=False, names=["a", "b", "c"])

    assert not report.remapped
    assert len(report.mismatched) == 6


def test_nothing_in_common(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="no tensor fits the model"):
        load_weights(nn.Linear(1, 1), path, strict=False)


def test_an_error_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.ones(3)}, {})

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot be written .*No space left.* untouched"):
        save_weights(path, {"a": torch.zeros(3)}, {})

    assert read_state(path)["a"].tolist() == [1, 1, 1]
    assert [item.name for item in tmp_path.iterdir()] == ["w.safetensors"]


def test_data_reaches_the_disk_before_the_name_and_the_folder_after(tmp_path, monkeypatch):
    calls = []
    real = os.fsync
    path = tmp_path / "w.safetensors"

    def spy(descriptor: int) -> None:
        calls.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    save_weights(path, {"a": torch.ones(3)}, {})

    assert calls == [(".w.safetensors.tmp", False), (tmp_path.name, True)]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from boxwright.models.weights import replace_atomically
    with replace_atomically(Path(sys.argv[1])) as temporary:
        temporary.write_text("half of the new")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_between_write_and_rename(tmp_path):
    path = tmp_path / "state"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(path)], check=False)

    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["state"]  # the leftover was overwritten


def test_a_weights_file_has_the_permissions_of_any_new_file(tmp_path):
    other = tmp_path / "other"
    other.write_text("")

    save_weights(tmp_path / "w.safetensors", {"x": torch.zeros(2)}, {})

    assert (tmp_path / "w.safetensors").stat().st_mode == other.stat().st_mode


def anchor_model(num_classes: int, first: float = 10.0, masks: MaskConfig | None = None) -> Detector:
    anchors = tuple(((side, side), (2 * side, side)) for side in (first, 40.0, 160.0))
    return DetectorConfig(
        backbone=CSPConfig(widths=(4, 4, 4, 4, 4)),
        neck=PANConfig(widths=(4, 4, 4)),
        head=AnchorBasedConfig(num_classes=num_classes, anchors=anchors, masks=masks),
    ).build()


@pytest.mark.parametrize("masks", [None, MaskConfig(count=2, hidden=4, upsample="nearest")])
def test_rows_of_anchors_follow_the_class_of_their_name(tmp_path, masks):
    coefs = 0 if masks is None else 2
    source, model = anchor_model(2, masks=masks), anchor_model(3, masks=masks)
    file = tmp_path / "anchors.safetensors"
    save_weights(file, source.state_dict(), {"names": json.dumps(["cat", "dog"])})
    before = model.head.level_convs[0].bias.detach().clone().view(2, 8 + coefs)

    report = load_weights(model, file, strict=False, names=["dog", "fox", "cat"])

    given = source.head.level_convs[0].bias.view(2, 7 + coefs)
    taken = model.head.level_convs[0].bias.view(2, 8 + coefs)
    assert torch.equal(taken[:, :5], given[:, :5])
    assert torch.equal(taken[:, [5, 7]], given[:, [6, 5]])
    assert torch.equal(taken[:, 6], before[:, 6])  # no fox in the file
    assert torch.equal(taken[:, 8:], given[:, 7:])
    assert set(report.remapped) == set(model.class_rows)


def test_anchors_are_the_configs_and_never_the_files(tmp_path):
    source, model = anchor_model(2, first=12.0), anchor_model(2)
    file = tmp_path / "anchors.safetensors"
    save_weights(file, source.state_dict(), {})

    with pytest.raises(CheckpointError, match=r"head.anchors is \[\[\[1.5, 1.5\].*the model's config gives \[\[\[1.25"):
        load_weights(model, file)
    load_weights(model, file, strict=False)

    assert model.head.anchors[0, 0].tolist() == [1.25, 1.25]
    assert torch.equal(model.head.level_convs[0].bias, source.head.level_convs[0].bias)


TINY = {"backbone": CSPConfig(widths=(4, 4, 4, 4, 4)), "neck": PANConfig(widths=(4, 4, 4))}
ANCHORS = tuple(((side, side), (2 * side, side)) for side in (10.0, 40.0, 160.0))
QUERY = QueryConfig(num_classes=3, width=8, heads=2, layers=2, hidden=8, queries=4)
# Every kind of head, and the classifier.
HEADS = {
    "anchor free, full": DetectorConfig(**TINY, head=AnchorFreeConfig(num_classes=3, class_branch="full")),
    "anchor free, light": DetectorConfig(**TINY, head=AnchorFreeConfig(num_classes=3, class_branch="light")),
    "end to end": DetectorConfig(**TINY, head=AnchorFreeConfig(num_classes=3, end_to_end=True)),
    "anchor based": DetectorConfig(**TINY, head=AnchorBasedConfig(num_classes=3, anchors=ANCHORS)),
    "anchor based, masks": DetectorConfig(
        **TINY,
        head=AnchorBasedConfig(num_classes=3, anchors=ANCHORS, masks=MaskConfig(count=2, hidden=4, upsample="nearest")),
    ),
    "queries": DetectorConfig(**TINY, head=QUERY),
    "queries, padding row": DetectorConfig(**TINY, head=replace(QUERY, padding_row=True)),
    "classifier": ClassifierConfig(backbone=TINY["backbone"], hidden=8, num_classes=3),
}
# Axis of classes -> where each class stands on it: written out by hand.
PLACES = {
    3: [[0], [1], [2]],  # nothing but classes
    4: [[0], [1], [2]],  # and a padding row
    2 * 8: [[5, 13], [6, 14], [7, 15]],  # two anchors of box, objectness, classes
    2 * 10: [[5, 15], [6, 16], [7, 17]],  # and two mask coefficients
}


@pytest.mark.parametrize("kind", HEADS)
def test_rows_of_every_head_follow_their_class_names(tmp_path, kind):
    """[a, b, c] into [c, d, a], of the same number: nothing may go by position."""
    source, model = HEADS[kind].build(), HEADS[kind].build()
    with torch.no_grad():
        for network in (source, model):  # fresh rows may be equal
            for tensor in (network.state_dict()[name] for name in network.class_rows):
                tensor.normal_()
    file = tmp_path / "w.safetensors"
    save_weights(file, source.state_dict(), {"names": json.dumps(["a", "b", "c"])})
    before = {name: value.clone() for name, value in model.state_dict().items()}

    report = load_weights(model, file, strict=False, names=["c", "d", "a"])

    given, taken = source.state_dict(), model.state_dict()
    assert set(report.remapped) == set(model.class_rows)
    assert not report.mismatched
    for name in model.class_rows:
        a, b, c = PLACES[len(taken[name])]
        assert torch.equal(taken[name][a], given[name][c]), name  # first is c
        assert torch.equal(taken[name][b], before[name][b]), name  # d is new
        assert torch.equal(taken[name][c], given[name][a]), name  # last is a
        others = [row for row in range(len(taken[name])) if row not in {*a, *b, *c}]
        assert torch.equal(taken[name][others], given[name][others]), name
    ends = [name for name in taken if "label_embedding" in name or name.endswith("linear.weight")]
    assert set(ends) <= set(model.class_rows)
    assert len(model.class_rows) == {"classifier": 2, "end to end": 12, "queries": 7, "queries, padding row": 7}.get(
        kind, 6
    )


def test_one_changed_bit_among_the_tensors_is_found(tmp_path):
    path = tmp_path / "m.safetensors"
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7), "c": torch.zeros(0), "d": torch.ones(3).half()}
    save_weights(path, state, METADATA)
    assert read_state(path).keys() == state.keys()
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)

    with pytest.raises(
        CheckpointError, match=r"m.safetensors: the tensors were changed after they were written .*use an"
    ):
        read_state(path)


def test_files_without_a_checksum_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors", {"format": "boxwright/1"})
    assert read_state(tmp_path / "m.safetensors")["a"].tolist() == [1, 1]
