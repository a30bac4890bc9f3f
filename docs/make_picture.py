# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Makes docs/images/demo.jpg from the newest demo run: the first rows of its labels beside predictions, smaller."""

import sys
from pathlib import Path

import cv2

SHARE = 1 / 3  # of the picture's height: two of its six rows
WIDTH = 960  # px
QUALITY = 85  # JPEG; keeps the file below 300 kB
PICTURE = Path(__file__).parent / "images" / "demo.jpg"


def main() -> None:
    """Writes the picture."""
    found = sorted(Path("runs").glob("demo*/run/predictions.png"), key=lambda file: file.stat().st_mtime)
    if not found:
        sys.exit("no demo under runs/; run `make demo` first")
    whole = cv2.imread(str(found[-1]))
    rows = whole[: round(whole.shape[0] * SHARE)]
    small = cv2.resize(rows, (WIDTH, round(rows.shape[0] * WIDTH / rows.shape[1])), interpolation=cv2.INTER_AREA)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(PICTURE), small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
