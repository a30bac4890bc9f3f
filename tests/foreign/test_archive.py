# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import zipfile

import pytest

from boxwright.errors import CheckpointError
from boxwright.foreign.archive import read_torch_file

LIMIT = 268435456  # bytes, 256 MiB


def claiming(path, size):
    """An archive of an empty dict whose directory says that its structure has this many bytes; it has ten."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.    ")
        archive.filelist[0].file_size = size
    return path


def test_a_structure_larger_than_any_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(CheckpointError, match=f"a structure of more than {LIMIT} bytes"):
        read_torch_file(claiming(tmp_path / "large.pt", LIMIT + 1))


def test_the_largest_structure_is_read(tmp_path):
    assert read_torch_file(claiming(tmp_path / "largest.pt", LIMIT)) == {}
