# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: pictures of labels and of what was found: RGB arrays in, RGB arrays out.

Lives here: `drawing.py` (boxes, masks, keypoints, labels on an image), `strokes.py` (one object's lines and areas),
`lettering.py` (text), `sheets.py` (side by side, grids, training batches), `charts.py` (class counts).
May import: `ops`, `results`, `structures`, `vocabulary`, `errors`. Never models, losses, loading, datasets, evaluation.
To add a picture: a function that returns an RGB array, its name below, and a test that looks at pixels.
Must never happen here: a window, a file, state between two calls.
"""

from boxwright.viz.charts import class_counts
from boxwright.viz.drawing import draw
from boxwright.viz.sheets import draw_batch, grid, side_by_side, titled
from boxwright.viz.strokes import colour

__all__ = ["class_counts", "colour", "draw", "draw_batch", "grid", "side_by_side", "titled"]
