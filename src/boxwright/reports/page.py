# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The report: an inspection as one HTML file that needs no server, no network and no other file."""

import base64
import hashlib
import html
import importlib.resources
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxwright.errors import ConfigError, DataError
from boxwright.inspector.findings import Observation, findings_of
from boxwright.inspector.probe import Inspection
from boxwright.models.weights import replace_atomically
from boxwright.reports.payload import (
    DETAIL_SHARE,
    Chosen,
    against_of,
    choose_images,
    details_of,
    head_of,
    json_text,
)
from boxwright.reports.pictures import Source, encode_all

MOST_BYTES = 48_000_000
MOST_IMAGES = 2000  # the rest is in the sums; what a page lists stays readable
LEAST_BYTES = 200_000  # the page itself and a few images
SPARE = 2_000  # bytes for what surrounds the images


@dataclass(frozen=True, slots=True)
class ReportFile:
    """What was written."""

    path: Path
    size: int  # bytes
    left_out: tuple[str, ...]  # in words; the report says the same


def write_report(
    path: Path,
    inspection: Inspection,
    images: Source = None,
    *,
    title: str = "Inspection",
    findings: Sequence[Observation] | None = None,
    against: Inspection | None = None,
    sides: tuple[str, str] = ("this", "against"),
    page_size: int = 50,
    most_bytes: int = MOST_BYTES,
    most_images: int = MOST_IMAGES,
) -> ReportFile:
    """Writes the report as one file, whole or not at all.

    Args:
        path: of the HTML file.
        inspection: of a batch, or of a split by `join_inspections`.
        images: RGB uint8 pixels of the network's input, in the order of `inspection.images`: a sequence, or a function
            of the row, called a few times at most for each; None (also for a row) draws boxes on an empty ground.
        title: of the page, any text.
        findings: to list; `findings_of(inspection)` where not given.
        against: the same images and labels through another model or criterion, to compare.
        sides: what the two are called.
        page_size: rows of a table that are shown at once.
        most_bytes: of the file. Candidates far down the ranks go first, then pixels, then the images with the lowest
            loss; sums, terms and findings are of all images.
        most_images: that the report lists.

    Raises:
        ConfigError: `against` is of other images or labels, or a limit is too small.
        ShapeError: an image is not (H, W, 3) uint8.
        DataError: the file cannot be written.
    """
    if most_bytes < LEAST_BYTES or page_size < 1 or most_images < 1:
        raise ConfigError(
            f"write_report: expected most_bytes of at least {LEAST_BYTES}, page_size and most_images of at least 1; "
            f"got {most_bytes}, {page_size}, {most_images}"
        )
    if against is not None:
        _need_same_labels(inspection, against, sides)
    found = findings_of(inspection) if findings is None else tuple(findings)
    page = _page(title)
    chosen = choose_images(inspection, most_images, most_bytes)
    head = head_of(inspection, chosen, found)
    compared = [inspection] if against is None or not _same_pixels(inspection, against) else [inspection, against]
    if against is not None:
        head["against"] = against_of(against, chosen)
    head |= {"title": title, "sides": list(sides), "page_size": page_size, "drawn_sides": len(compared)}
    rest = most_bytes - len(page) - len(json_text(head)) - SPARE - 100 * len(chosen.rows)
    details = details_of(compared, chosen, int(max(rest, 0) * DETAIL_SHARE))
    pictures = encode_all(images, chosen.rows.tolist(), max(rest, 0) - sum(map(len, details.texts)))
    head["shapes"] = [shape or inspection.image_size for shape in pictures.shapes]
    left_out = (*_not_listed(chosen), *details.left_out, *pictures.left_out)
    if against is not None and len(compared) == 1:
        left_out += (f"candidates of {sides[1]}: its images have another size",)
    head["left_out"] = list(left_out)
    size = _write(path, page, json_text(head), zip(details.texts, pictures.texts, strict=True))
    return ReportFile(path, size, left_out)


def _page(title: str) -> str:
    """The page with style and script, without data. Its policy allows this script, this style and nothing to load."""
    folder = importlib.resources.files("boxwright.reports") / "assets"
    text, style, script = (
        folder.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'"
    )
    # The title last: it may hold any text, a placeholder too.
    for name, value in (("policy", policy), ("style", style), ("script", script), ("title", html.escape(title))):
        before, mark, after = text.partition(f"{{{{{name}}}}}")
        assert mark, f"report.html has no place for {name}"
        text = f"{before}{value}{after}"
    return text


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _write(path: Path, page: str, head: str, images: "Iterator[tuple[str, str]] | zip[tuple[str, str]]") -> int:
    before, mark, after = page.partition("<!-- data -->")
    assert mark, "report.html has no place for data"
    try:
        with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(before)
            file.write(f'<script type="application/json" id="data">{head}</script>\n')
            for place, (details, jpeg) in enumerate(images):
                file.write(f'<script type="application/json" id="details-{place}">{details}</script>')
                file.write(f'<script type="text/plain" id="picture-{place}">{jpeg}</script>\n')
            file.write(after)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
    return path.stat().st_size


def _need_same_labels(inspection: Inspection, against: Inspection, sides: tuple[str, str]) -> None:
    if len(inspection.images) != len(against.images):
        raise ConfigError(
            f"write_report: against: expected the same {len(inspection.images)} images as {sides[0]}, "
            f"got {len(against.images)}"
        )
    for name in ("image", "object", "label"):
        ours, theirs = (side.objects[name].tolist() if len(side.objects) else [] for side in (inspection, against))
        if ours != theirs:
            raise ConfigError(
                f"write_report: against: its objects differ from those of {sides[0]} (column {name}: {len(ours)} and "
                f"{len(theirs)} rows); inspect the same images with the same labels"
            )


def _same_pixels(inspection: Inspection, against: Inspection) -> bool:
    return inspection.image_size == against.image_size


def _not_listed(chosen: Chosen) -> tuple[str, ...]:
    missing = chosen.total - len(chosen.rows)
    return (f"{missing} of {chosen.total} images: those with the lowest loss (sums are of all)",) if missing else ()
