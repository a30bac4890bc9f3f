# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors

import pytest
import torch

from boxwright.errors import ConfigError
from boxwright.models.backbones.table_backbone import TableConfig, TableRow
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_free import AnchorFreeConfig
from boxwright.models.necks.none import NoNeckConfig

ROWS = (
    TableRow(block="Conv", args=(4, 3, 2)),
    TableRow(block="Conv", args=(6, 3, 2), repeats=2),
    TableRow(block="nn.Upsample", args=(None, 2, "nearest")),
    TableRow(block="nn.Upsample"),
    TableRow(source=(-1, 0), block="Concat", args=(1,)),
)


def test_every_row_takes_the_maps_it_names():
    backbone = TableConfig(rows=ROWS, outputs=(4, 1)).build().eval()
    images = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        first = backbone.layers[0](images)
        second = backbone.layers[1](first)
        joined = torch.cat((second.repeat_interleave(4, 2).repeat_interleave(4, 3), first), 1)
        found = backbone(images)
    torch.testing.assert_close(found, (joined, second))
    assert (backbone.channels, backbone.strides, backbone.coarsest) == ((10, 6), (2, 8), 8)


def test_a_detector_asks_for_sides_that_the_coarsest_row_divides():
    config = DetectorConfig(
        backbone=TableConfig(rows=ROWS, outputs=(4,)), neck=NoNeckConfig(), head=AnchorFreeConfig(num_classes=2)
    )
    model = config.build()

    assert model.strides == (2,)
    assert len(model.layers) == len(ROWS) + 1
    with pytest.raises(Exception, match="multiples of 8, got 36x32"):
        model(torch.zeros(1, 3, 36, 32))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            (TableRow(block="Conv", args=(4, 3, 2)), TableRow(source=(-1, -2), block="Concat")),
            r"one size, got strides 2, 1",
        ),
        ((TableRow(block="Conv", args=(4, "x")),), r"^rows\.0 \(Conv\): cannot be built from \[4, 'x'\]"),
        ((TableRow(block="C2f", args=(4, True, 3, 4)),), r"^rows\.0 \(C2f\): cannot be built from"),
        ((TableRow(block="SPPF", args=(4,), repeats=2),), r"SPPF has repeats 1 here, got 2"),
        ((TableRow(block="nn.Upsample", args=(None, 4)),), r"nn\.Upsample has size, factor and mode"),
    ],
)
def test_what_cannot_be_built_is_refused(rows, message):
    with pytest.raises(ConfigError, match=message):
        TableConfig(rows=rows, outputs=(0,)).build()


@pytest.mark.parametrize(
    ("rows", "outputs", "message"),
    [
        ((TableRow(block="Convv"),), (0,), r"^rows\.0: there is no block 'Convv'; did you mean Conv"),
        (
            (TableRow(block="Conv", source=(0,)),),
            (0,),
            r"^rows\.0 \(Conv\): expected inputs from rows",
        ),
        ((TableRow(block="Conv", source=(-1, -1)),), (0,), r"one input \(Concat takes several\)"),
        (ROWS, (5,), r"^outputs: expected rows from 0 to 4, got \[5\]"),
        (ROWS, (), r"^outputs: expected rows"),
    ],
)
def test_tables_that_do_not_hold_together(rows, outputs, message):
    with pytest.raises(ConfigError, match=message):
        TableConfig(rows=rows, outputs=outputs)


def test_sppf_of_2026_and_spp_of_2021():
    rows = (
        TableRow(block="Focus", args=(8, 3)),
        TableRow(block="SPP", args=(8, (3, 5))),
        TableRow(block="SPPF", args=(8, 5, 3, True)),
    )
    backbone = TableConfig(rows=rows, outputs=(2,)).build()

    assert backbone.strides == (2,)
    assert [pool.kernel_size for pool in backbone.layers[1].pools] == [3, 5]
    assert backbone.layers[2].add
