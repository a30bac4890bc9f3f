# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Detection: axis-aligned boxes, nothing beside them, box AP."""

from collections.abc import Sequence

from boxwright.evaluation.evaluator import Evaluator
from boxwright.ops.letterbox import Letterbox
from boxwright.results import Detections
from boxwright.structures import Predictions
from boxwright.tasks.base import Task
from boxwright.tasks.postprocess import Kept, finish, postprocess


def _finish(
    preds: Predictions,
    kept: Sequence[Kept],
    letterboxes: Sequence[Letterbox],
    *,
    names: Sequence[str],
    class_ids: Sequence[int] | None = None,
    paths: Sequence[str | None] | None = None,
) -> list[Detections]:
    return finish(kept, letterboxes, names=names, class_ids=class_ids, paths=paths)


DETECT = Task(name="detect", select=postprocess, finish=_finish, evaluator=Evaluator)
