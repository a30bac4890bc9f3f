# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Ranked label errors as one HTML page with a picture of each; works from disk, needs no network and no script."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from boxwright.datasets.images import read_image
from boxwright.datasets.policy import ImagePolicy
from boxwright.errors import DataError
from boxwright.table import Table

MOST = 100  # pictures of a page
SIDE = 280  # px of a picture
AROUND = 1.6  # times the boxes' extent that is shown
LEAST_SHOWN = 96  # px of the image
QUALITY = 80  # JPEG
LABEL_COLOR, FOUND_COLOR = (255, 255, 255), (230, 97, 0)  # RGB; told apart by their dashes too
DEFAULT_POLICY = ImagePolicy()

WORDS = {
    "overlooked": "overlooked: the model finds {detected} ({score:.2f}); there is no label",
    "swapped": "swapped: labelled {labelled}, the model says {detected} ({score:.2f})",
    "badly placed": "badly placed: {labelled}, the model's box overlaps the label by {overlap:.2f} ({score:.2f})",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem; }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(17.5rem, 1fr)); gap: 1.25rem; padding: 0; }}
li {{ list-style: none; border: 1px solid #8886; border-radius: 6px; padding: .6rem; overflow-wrap: anywhere; }}
img {{ width: 100%; height: auto; display: block; margin-bottom: .4rem; }}
</style>
<h1>{title}</h1>
<p>{intro}</p>
<ol>
{items}
</ol>
</html>
"""


def gallery(errors: Table, title: str, policy: ImagePolicy = DEFAULT_POLICY) -> str:
    """The page: the first disagreements, each with its place in the image."""
    items = [_item(place, row, policy) for place, row in enumerate(errors.head(MOST).rows(), 1)]
    shown = f"the {len(items)} most suspicious of {len(errors)}" if len(errors) > len(items) else f"all {len(errors)}"
    intro = (
        f"Where a trained model and the labels disagree: {shown}. White dashes: the label. Orange line: the model's "
        "box. Nothing was changed; who is right is yours to say."
    )
    return _PAGE.format(title=html.escape(title), intro=intro, items="\n".join(items))


def _item(place: int, row: dict[str, Any], policy: ImagePolicy) -> str:
    words = WORDS[row["kind"]].format(**row)
    where = f"{row['split']}: {Path(row['image']).name}" + (
        f", object {row['object'] + 1}" if row["object"] >= 0 else ""
    )
    text = html.escape(f"{place}. {words}")
    try:
        picture = base64.b64encode(_jpeg(crop(read_image(Path(row["image"]), policy), row))).decode("ascii")
        image = f'<img alt="{html.escape(words)}" src="data:image/jpeg;base64,{picture}">'
    except DataError as error:
        image = f"<p>{html.escape(str(error))}</p>"
    return f"<li>{image}<strong>{text}</strong><br>{html.escape(where)}</li>"


def crop(image: UInt8[np.ndarray, "h w 3"], row: dict[str, Any]) -> UInt8[np.ndarray, "a b 3"]:
    """The place of a disagreement with both boxes drawn, enlarged or shrunk to SIDE px."""
    found = [row[f"box/{side}"] for side in ("x1", "y1", "x2", "y2")]
    label = [row[f"label_box/{side}"] for side in ("x1", "y1", "x2", "y2")] if row["object"] >= 0 else found
    x1, y1 = min(found[0], label[0]), min(found[1], label[1])
    x2, y2 = max(found[2], label[2]), max(found[3], label[3])
    height, width = image.shape[:2]
    side = max(AROUND * max(x2 - x1, y2 - y1), LEAST_SHOWN)
    left, top = (max(0, int(middle - side / 2)) for middle in ((x1 + x2) / 2, (y1 + y2) / 2))
    part = image[top : min(height, int(top + side) + 1), left : min(width, int(left + side) + 1)]
    scale = SIDE / max(part.shape[:2])
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    canvas: np.ndarray = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.ascontiguousarray(canvas)
    if row["object"] >= 0:
        _dashed(canvas, _moved(label, left, top, scale))
    a, b, c, d = _moved(found, left, top, scale)
    cv2.rectangle(canvas, (a, b), (c, d), FOUND_COLOR, 2, cv2.LINE_AA)
    return canvas


def _moved(box: Sequence[float], left: int, top: int, scale: float) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = box
    return round((x1 - left) * scale), round((y1 - top) * scale), round((x2 - left) * scale), round((y2 - top) * scale)


def _dashed(canvas: np.ndarray, box: tuple[int, int, int, int], dash: int = 8) -> None:
    x1, y1, x2, y2 = box
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        line = np.linspace(start, end, max(2, int(np.hypot(end[0] - start[0], end[1] - start[1]) // dash) + 1))
        for a, b in zip(line[:-1:2], line[1::2], strict=False):
            points = tuple(int(v) for v in a), tuple(int(v) for v in b)
            cv2.line(canvas, *points, (0, 0, 0), 4, cv2.LINE_AA)
            cv2.line(canvas, *points, LABEL_COLOR, 2, cv2.LINE_AA)


def _jpeg(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return data.tobytes()
