# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""From a golden case to a run of our criterion. A new criterion adds one function and its line in `ADAPTERS`.

Adapters live in `adapt_<topic>.py`, what they share in `common.py`.
"""

from tests.golden.adapt_classify import classify
from tests.golden.adapt_dense import detect, end2end
from tests.golden.adapt_detr import attributes, rtdetr
from tests.golden.adapt_obb import obb
from tests.golden.adapt_pose import pose
from tests.golden.adapt_segment import segment
from tests.golden.adapt_v5 import v5, v5_ce, v5_segment
from tests.golden.common import COMPATIBLE, Adapter, Run, predictions, targets_from_rows

__all__ = ["ADAPTERS", "COMPATIBLE", "Adapter", "Run", "predictions", "targets_from_rows"]

ADAPTERS: dict[str, Adapter] = {
    "attributes": attributes,
    "rtdetr": rtdetr,
    "rtdetr_modern": rtdetr,
    "classify": classify,
    "pose": pose,
    "pose_modern": pose,
    "segment": segment,
    "segment_modern": segment,
    "v5": v5,
    "v5_ce": v5_ce,
    "v5_segment": v5_segment,
    "detect_v8": detect,
    "detect_modern": detect,
    "end2end": end2end,
    "end2end_modern": end2end,
    "obb": obb,
    "obb_modern": obb,
}
