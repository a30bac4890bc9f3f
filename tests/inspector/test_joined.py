# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Batches joined: images numbered on, nothing lost, and who pays still sums to the loss."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.inspector.scenes import NAMES, batch, scenes

from boxwright.errors import ConfigError, DataError
from boxwright.inspector.findings import findings_of
from boxwright.inspector.joined import TABLES, join_inspections, write_tables
from boxwright.inspector.rollups import roll_up
from boxwright.losses.dense_recipes import yolov8_detect


def parts():
    few = scenes()
    return [batch(few[:2], seed=0), batch(few[2:5], seed=1), batch(few[5:], seed=2)]


def test_images_are_numbered_on_and_no_row_is_lost():
    joined, all_parts = join_inspections(parts()), parts()

    assert joined.images["image"].tolist() == [0, 1, 2, 3, 4, 5]
    assert joined.paths == tuple(path for part in all_parts for path in part.paths)
    for name in ("objects", "pairs", "candidates", "background"):
        assert len(getattr(joined, name)) == sum(len(getattr(part, name)) for part in all_parts), name
    second = joined.objects.take((joined.objects["image"] >= 2) & (joined.objects["image"] < 5))
    assert np.array_equal(second["loss"], all_parts[1].objects["loss"])
    assert np.array_equal(second["path"], all_parts[1].objects["path"])


def test_parts_of_the_joined_loss_sum_to_the_batches_losses():
    all_parts = parts()
    joined = join_inspections(all_parts)

    total = sum(part.total for part in all_parts)
    assert joined.total == pytest.approx(total, rel=1e-12)
    assert joined.terms["loss"].sum() == pytest.approx(total, rel=1e-6)
    assert joined.images["loss"].sum() == pytest.approx(total, rel=1e-6)
    assert joined.pairs["loss"].sum() == pytest.approx(joined.objects["loss"].sum(), rel=1e-9)
    for row in joined.terms.rows():
        assert row["loss"] == pytest.approx(row["objects"] + row["background"] + row["images"], rel=1e-9), row["term"]
        assert row["objects"] == pytest.approx(joined.objects[row["term"]].sum(), rel=1e-9), row["term"]
        # Batches of different size have different scales: the row is still consistent.
        assert row["loss"] == pytest.approx(joined.scale * row["gain"] * row["value"], rel=1e-9), row["term"]
        lengths = [part.terms["gradient"][list(part.terms["term"]).index(row["term"])] for part in all_parts]
        assert row["gradient"] == pytest.approx(np.sqrt(np.square(lengths).sum()), rel=1e-9)
        assert row["pairs"] == len(joined.pairs)


def test_a_gain_that_differs_becomes_the_one_that_keeps_the_sum():
    few = scenes()
    strong = batch(few[:2], criterion=yolov8_detect(gains={"box": 10.0}))
    joined = join_inspections([batch(few[:2]), strong])

    box = next(row for row in joined.terms.rows() if row["term"] == "main/box")
    assert joined.scale == 2.0
    assert box["gain"] == pytest.approx(8.75)  # the same value twice, at 7.5 and at 10
    assert box["loss"] == pytest.approx(joined.scale * box["gain"] * box["value"], rel=1e-9)


def test_the_costliest_background_comes_first_and_can_be_cut():
    joined = join_inspections(parts(), worst=7)

    assert len(joined.background) == 7
    assert (np.diff(joined.background["loss"]) <= 0).all()
    every = np.concatenate([part.background["loss"] for part in parts()])
    assert joined.background["loss"].tolist() == np.sort(every)[::-1][:7].tolist()


def test_findings_and_roll_ups_work_on_the_joined():
    joined = join_inspections(parts(), first_image=100)

    lonely = [finding for finding in findings_of(joined) if finding.code == "no_positive"]
    assert [finding.image for finding in lonely] == [100, 101, 102, 103, 104, 105]  # each scene has one tiny label
    assert roll_up(joined, "class")["loss"].sum() == pytest.approx(joined.objects["loss"].sum(), rel=1e-9)


def test_batches_without_objects_join():
    few = scenes()
    full = batch(few[:2])
    empty = replace(
        full,
        **{name: getattr(full, name).take(np.zeros(0, int)) for name in ("objects", "pairs", "candidates")},
    )

    joined = join_inspections([empty, full, empty])
    assert joined.objects["image"].tolist() == (full.objects["image"] + 2).tolist()
    assert len(join_inspections([empty, empty]).objects) == 0


def test_nothing_to_join_and_other_names_are_refused():
    with pytest.raises(ConfigError, match="at least one"):
        join_inspections([])
    with pytest.raises(ConfigError, match="batch 1: classes"):
        join_inspections([batch(scenes()[:1]), batch(scenes()[:1], names=("a", "b", "c", "d"))])


def test_tables_are_written_as_json(tmp_path):
    joined = join_inspections(parts())
    files = write_tables(tmp_path / "new" / "tables", joined, kinds=("json",))

    assert [file.name for file in files] == [f"{name}.json" for name in TABLES]
    rows = json.loads((tmp_path / "new" / "tables" / "objects.json").read_text(encoding="utf-8"))
    assert len(rows) == len(joined.objects)
    assert {row["class"] for row in rows} <= set(NAMES)
    assert sum(row["loss"] for row in rows) == pytest.approx(joined.objects["loss"].sum(), rel=1e-9)


def test_tables_are_written_as_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    joined = join_inspections(parts())
    write_tables(tmp_path, joined, kinds=("parquet",))

    found = parquet.read_table(tmp_path / "objects.parquet")
    assert found.num_rows == len(joined.objects)
    assert found["loss"].to_pylist() == joined.objects["loss"].tolist()


def test_an_unknown_kind_and_a_folder_that_is_a_file_are_refused(tmp_path):
    joined = join_inspections(parts()[:1])
    with pytest.raises(ConfigError, match="json, parquet, got 'csv'"):
        write_tables(tmp_path / "a", joined, kinds=("csv",))
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").write_text("taken")
    with pytest.raises(DataError, match="cannot be made"):
        write_tables(tmp_path / "b", joined, kinds=("json",))


def test_parquet_without_pyarrow_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"boxwright\[parquet\]"):
        write_tables(tmp_path / "a", join_inspections(parts()[:1]))
    assert not (tmp_path / "a").exists()
