# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Hostile and damaged files: refused with what they asked for, and nothing in them runs."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from boxwright.errors import CheckpointError
from boxwright.foreign.archive import read_torch_file
from boxwright.foreign.machine import DamagedError, ForeignObject, Reader, RefusedError


def archive(path, pickled, extra=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("m/data.pkl", pickled)
        for name, value in extra:
            file.writestr(name, value)
    return path


class Touch:
    """A pickle of it makes a file when it is loaded the usual way."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Evaluated:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w')",)


def global_(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def test_a_pickle_that_would_run_code_is_refused_by_name_and_runs_nothing(tmp_path):
    marker = tmp_path / "ran"
    for protocol in range(6):
        for hostile, asked in ((Touch(marker), "system"), (Evaluated(marker), "eval")):
            pickled = pickle.dumps({"model": [hostile]}, protocol=protocol)
            with pytest.raises(CheckpointError, match=rf"asks for '\w+\.{asked}'.*nothing in it was run"):
                read_torch_file(archive(tmp_path / "m.pt", pickled))
            assert not marker.exists()
    pickle.loads(pickle.dumps(Touch(marker)))
    assert marker.exists()  # the pickle does what it was made for, elsewhere


@pytest.mark.parametrize(
    ("pickled", "asked"),
    [
        (global_("os", "system") + b".", "'os.system'"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "'posix.system'"),
        (b"(S'true'\nios\nsystem\n.", "'os.system'"),
        (b"(" + global_("models.yolo", "Model") + b"S'x'\no.", "'models.yolo.Model'"),
        (b"\x80\x02\x82\x01.", "'extension 1'"),
        (global_("models.yolo", "Model") + b"(S'x'\ntR.", "'models.yolo.Model' as a function"),
        (b"\x80\x02" + global_("models.yolo", "Model") + b"(S'x'\nt\x81.", "'models.yolo.Model' with arguments"),
        (global_("collections", "OrderedDict") + b"(tR}S'x'\nK\x01sb" + global_("os", "x") + b".", "'os.x'"),
        (b"\x80\x02" + global_("os", "system") + b"S'a'\n\x86R.", "'os.system'"),
        (global_("builtins", "getattr") + b"(" + global_("os", "path") + b"S'x'\ntR.", "'os.path'"),
        (global_("builtins", "getattr") + b"(S'x'\nS'upper'\ntR.", "the attribute"),
        (global_("torch.nn.modules..", "os") + b"(tR.", "as a function"),
        (b"]S'x'\nK\x01sb.", ""),
        (b"Pname\n.", "the instruction PERSID"),
    ],
)
def test_every_way_to_ask_for_code_is_refused(tmp_path, pickled, asked):
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(archive(tmp_path / "m.pt", pickled))
    assert asked in str(caught.value)


def test_a_nested_pickle_stays_bytes(tmp_path):
    marker = tmp_path / "ran"
    inner = pickle.dumps(Touch(marker))
    assert read_torch_file(archive(tmp_path / "m.pt", pickle.dumps({"inner": inner}, 4))) == {"inner": inner}
    assert not marker.exists()


def test_objects_of_models_become_records_that_are_no_objects():
    state = b"}S'names'\nS'cat'\nsb"
    pickled = b"\x80\x02" + global_("ultralytics.nn.tasks", "DetectionModel") + b")\x81" + state + b"."
    found = Reader(record_packages=("ultralytics",)).read(io.BytesIO(pickled))
    assert isinstance(found, ForeignObject)
    assert (found.kind, found.state) == ("ultralytics.nn.tasks.DetectionModel", {"names": "cat"})
    with pytest.raises(RefusedError, match=r"'ultralytics\.nn\.tasks\.DetectionModel'"):
        Reader().read(io.BytesIO(pickled))


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back_equal(protocol):
    value = {
        "numbers": [0, 1, -1, 255, 70_000, 2**40, -(2**70), 1.5, True, None],
        "text": ("", "ä", "x" * 300),
        3: b"bytes" if protocol > 2 else "bytes",
        "nested": ((), [], {}, [[(1, 2, 3, 4)]]),
    }
    value["again"] = value["numbers"]
    found = Reader().read(io.BytesIO(pickle.dumps(value, protocol)))
    assert found == value
    assert found["again"] is found["numbers"]


@pytest.mark.parametrize("pickled", [b"", b"K", b"K\x01", b"}K\x01.."[:2], b"0.", b"t.", b"h\x05.", b"(.", b"\xff."])
def test_what_is_no_whole_pickle_is_damaged(pickled):
    with pytest.raises((DamagedError, RefusedError)):
        Reader().read(io.BytesIO(pickled))


def test_a_key_that_could_hash_forever_is_refused():
    deep = b")" + b"\x942\x86" * 60
    with pytest.raises(DamagedError, match="key"):
        Reader().read(io.BytesIO(b"\x80\x04}" + deep + b"K\x01s."))


def tensor_pickle(key="0", count=4, shape=(4,), strides=(1,), offset=0, kind="FloatStorage"):
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=2)
    pickler.persistent_id = lambda value: value if isinstance(value, tuple) and value[:1] == ("storage",) else None
    del pickler
    numbers = b"(" + b"".join(b"M" + struct.pack("<H", n) for n in shape) + b"t"
    steps = b"(" + b"".join(b"M" + struct.pack("<H", n) for n in strides) + b"t"
    storage = (
        b"(S'storage'\n" + global_("torch", kind) + b"S'" + key.encode() + b"'\nS'cpu'\nJ" + struct.pack("<i", count)
    )
    call = global_("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"tQ"
    call += (
        b"J" + struct.pack("<i", offset) + numbers + steps + b"\x89" + global_("collections", "OrderedDict") + b"(tR"
    )
    return b"\x80\x02" + call + b"tR."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 5}, "expected 20 bytes, got 16"),
        ({"count": 2**31 - 1}, "bytes, got 16"),
        ({"count": -1}, "count of -1"),
        ({"shape": (5,)}, r"shape \(5,\) in a storage of 4"),
        ({"offset": 1}, "storage of 4"),
        ({"offset": -1}, "shape"),
        ({"strides": (2,)}, "storage of 4"),
        ({"key": "1"}, "are missing"),
        ({"key": "../0"}, "outside itself"),
        ({"kind": "WeirdStorage"}, r"torch\.WeirdStorage"),
        ({"kind": "DoubleStorage"}, "expected 32 bytes"),
    ],
)
def test_numbers_that_are_not_there_are_refused(tmp_path, options, words):
    file = archive(tmp_path / "m.pt", tensor_pickle(**options), [("m/data/0", struct.pack("<4f", 1, 2, 3, 4))])
    with pytest.raises(CheckpointError, match=words):
        read_torch_file(file)


def test_a_tensor_is_read_from_its_storage(tmp_path):
    file = archive(
        tmp_path / "m.pt",
        tensor_pickle(shape=(2,), strides=(2,), offset=1),
        [("m/data/0", struct.pack("<4f", 1, 2, 3, 4))],
    )
    assert read_torch_file(file).tolist() == [2, 4]


@pytest.mark.parametrize("name", ["../escape", "/absolute", "m/../../x", "m\\x"])
def test_entries_that_point_outside_are_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match="outside itself"):
        read_torch_file(archive(tmp_path / "m.pt", b"N.", [(name, b"x")]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pt"]


def test_compressed_archives_and_scripts_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="compressed"):
        read_torch_file(archive(tmp_path / "m.pt", b"N." + b"0" * 1000, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_torch_file(archive(tmp_path / "m.pt", b"N.", [("m/constants.pkl", b"N.")]))
    with pytest.raises(CheckpointError, match="big-endian"):
        read_torch_file(archive(tmp_path / "m.pt", b"N.", [("m/byteorder", b"big")]))


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_torch_come_back_equal(tmp_path, legacy):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).half()
    state = {
        "state": model.state_dict(),
        "shared": [torch.arange(6).view(2, 3), torch.ones(2, dtype=torch.bool)],
        "epoch": 3,
        "size": torch.Size((2, 3)),
        "kind": torch.float16,
        "empty": torch.zeros(0),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }
    state["view"] = state["shared"][0].t()
    torch.save(state, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)

    found = read_torch_file(tmp_path / "m.pt")

    assert found.keys() == state.keys()
    assert isinstance(found["state"], OrderedDict)
    assert all(torch.equal(found["state"][key], value) for key, value in state["state"].items())
    assert torch.equal(found["view"], state["view"])
    assert found["view"].data_ptr() == found["shared"][0].data_ptr()
    assert (found["epoch"], found["size"], found["kind"]) == (3, (2, 3), torch.float16)
    assert found["scalar"].item() == 2.5


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_short_is_damaged(tmp_path, legacy):
    torch.save({"a": torch.rand(1000)}, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    whole = (tmp_path / "m.pt").read_bytes()
    for share in (0.02, 0.3, 0.9, 0.999):
        (tmp_path / "m.pt").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CheckpointError, match=r"damaged|refused"):
            read_torch_file(tmp_path / "m.pt")


def test_other_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_torch_file(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        read_torch_file(tmp_path / "text.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(CheckpointError, match="bare pickle"):
        read_torch_file(tmp_path / "bare.pt")
