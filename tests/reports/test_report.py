# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The report as a file: complete, alone, harmless whatever it is told, and within its budget; see test_browser."""

import base64
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import cv2
import numpy as np
import pytest
from tests.inspector.scenes import NAMES, SIZE, batch, inspected, many, pictures, scenes

from boxwright.errors import ConfigError, DataError, ShapeError
from boxwright.inspector.findings import Observation, findings_of
from boxwright.losses.assign.trace import FATES
from boxwright.losses.dense_recipes import yolov8_detect
from boxwright.reports.legend import FINDING_WORDS, SIGNS, TERM_WORDS, hexadecimal
from boxwright.reports.page import LEAST_BYTES, write_report

EVIL = "</title></script><script>alert('x')</script>{{style}}<!-- data -->&amp;"


class Elements(HTMLParser):
    """Every element with its attributes and text, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.found:
            key = self.found[-1][1].get("id", self.found[-1][0])
            self.text[key] = self.text.get(key, "") + data


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "made" / "report.html"
    found = write_report(path, inspected(), pictures(), title=EVIL, findings=findings_of(inspected()))
    assert found.path == path
    assert found.size == path.stat().st_size
    assert found.left_out == ()
    return Elements(path.read_text(encoding="utf-8"))


def head(page):
    return json.loads(page.text["data"])


def test_the_file_holds_everything_and_names_no_other_place(page):
    assert [tag for tag, _ in page.found if tag in ("link", "iframe", "base", "object", "embed", "img")] == []
    assert not any(name in attributes for _, attributes in page.found for name in ("src", "onclick", "onload", "style"))
    links = [attributes["href"] for _, attributes in page.found if "href" in attributes]
    assert links
    assert all(link.startswith("#") for link in links)
    for place in range(6):
        jpeg = np.frombuffer(base64.b64decode(page.text[f"picture-{place}"]), np.uint8)
        decoded = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert decoded.shape == (SIZE, SIZE, 3)
        assert np.abs(decoded.astype(int) - pictures()[place]).mean() < 12  # JPEG


def test_one_script_runs_and_the_policy_allows_nothing_else(page):
    scripts = [attributes for tag, attributes in page.found if tag == "script"]
    assert [script for script in scripts if "type" not in script] == [{}]
    assert {script.get("type") for script in scripts} == {None, "application/json", "text/plain"}
    (policy,) = [a["content"] for t, a in page.found if t == "meta" and "http-equiv" in a]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert re.fullmatch(r"'sha256-[\w+/]+={0,2}'", rules["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/]+={0,2}'", rules["style-src"])


def test_titles_and_names_stay_text(page):
    assert page.text["title"].strip().startswith(EVIL)  # of <title>; the page's own heading is filled from the data
    assert head(page)["title"] == EVIL
    assert head(page)["names"] == list(NAMES)
    assert set(head(page)["objects"]["class"]) <= set(NAMES)
    assert "<script>alert(1)</script>" in head(page)["objects"]["class"]
    titles = [attributes for tag, attributes in page.found if tag == "title"]
    assert len(titles) == 1


def test_the_script_never_makes_markup_from_text():
    script = files("boxwright.reports").joinpath("assets/report.js").read_text(encoding="utf-8")

    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch(", "http:",
                 "XMLHttpRequest", "import("):  # fmt: skip
        assert word not in script.replace("http://www.w3.org/2000/svg", ""), word


def test_numbers_are_those_of_the_inspection(page):
    data, inspection = head(page), inspected()

    assert data["total"] == inspection.total
    assert [row["term"] for row in data["terms"]] == inspection.terms["term"].tolist()
    assert [row["loss"] for row in data["terms"]] == inspection.terms["loss"].tolist()
    assert data["objects"]["loss"] == pytest.approx(inspection.objects["loss"].tolist(), rel=1e-5)
    assert data["objects"]["x1"] == pytest.approx(inspection.objects["x1"].tolist(), rel=1e-3)
    assert data["objects"]["positives"] == inspection.objects["positives"].tolist()
    assert data["counts"]["lonely"] == int((inspection.objects["positives"] == 0).sum()) == 6
    assert data["images"]["path"] == list(inspection.paths)
    assert data["background"]["loss"] == pytest.approx(inspection.background["loss"].tolist(), rel=1e-5)
    assert data["shapes"] == [[SIZE, SIZE]] * 6
    assert len(data["findings"]) == len(findings_of(inspection))


def test_candidates_of_every_image_are_there(page):
    inspection = inspected()
    for place in range(6):
        (side,) = json.loads(page.text[f"details-{place}"])
        mine = inspection.candidates.take(inspection.candidates["image"] == place)
        assert [FATES[code] for code in side["candidates"]["fate"]] == mine["fate"].tolist()
        assert side["candidates"]["x"] == mine["x"].tolist()
        scores = [None if np.isnan(score) else score for score in mine["score"].tolist()]
        assert [score is None for score in side["candidates"]["score"]] == [score is None for score in scores]
        told = [(a, b) for a, b in zip(side["candidates"]["score"], scores, strict=True) if b is not None]
        assert [a for a, _ in told] == pytest.approx([b for _, b in told], rel=1e-3)
        pairs = inspection.pairs.take(inspection.pairs["image"] == place)
        assert side["pairs"]["candidate"] == pairs["candidate"].tolist()
        assert side["pairs"]["loss"] == pytest.approx(pairs["loss"].tolist(), rel=1e-3)


def test_every_fate_finding_and_term_is_explained():
    assert set(SIGNS) == set(FATES)
    assert len({hexadecimal(sign.colour) for sign in SIGNS.values()}) == len(FATES)
    assert len({sign.mark for sign in SIGNS.values()}) == len(FATES)
    rules = {"not_finite", "no_positive", "contested", "clipped_distance", "silent_term", "dominant_term",
             "no_label_there", "other_class_there"}  # fmt: skip
    assert set(FINDING_WORDS) >= rules
    assert set(TERM_WORDS) >= {row["term"].rpartition("/")[2] for row in inspected().terms.rows()}


def test_what_is_not_finite_is_written_as_null(tmp_path):
    losses = inspected().objects["loss"].copy()
    losses[0] = np.inf
    broken = replace(inspected(), total=float("nan"), objects=inspected().objects.with_columns({"loss": losses}))
    write_report(tmp_path / "r.html", broken)

    data = head(Elements((tmp_path / "r.html").read_text(encoding="utf-8")))
    assert data["total"] is None
    assert data["objects"]["loss"][0] is None
    assert data["objects"]["loss"][1] == pytest.approx(losses[1], rel=1e-5)


def test_two_sides_are_compared(tmp_path):
    few = scenes()[:2]
    ours, theirs = batch(few), batch(few, criterion=yolov8_detect(gains={"box": 1.0}, topk=3))
    write_report(tmp_path / "r.html", ours, pictures(2), against=theirs, sides=("now", "before"))

    page = Elements((tmp_path / "r.html").read_text(encoding="utf-8"))
    data = head(page)
    assert data["sides"] == ["now", "before"]
    assert data["against"]["total"] == theirs.total
    assert data["against"]["objects"]["loss"] == pytest.approx(theirs.objects["loss"].tolist(), rel=1e-5)
    assert data["against"]["objects"]["positives"] == theirs.objects["positives"].tolist()
    mine, other = json.loads(page.text["details-0"])
    positive = FATES.index("positive")
    assert mine["candidates"]["fate"].count(positive) > other["candidates"]["fate"].count(positive) > 0


def test_other_images_or_labels_cannot_be_compared(tmp_path):
    few = scenes()
    with pytest.raises(ConfigError, match="same 2 images as this, got 1"):
        write_report(tmp_path / "r.html", batch(few[:2]), against=batch(few[:1]))
    other = batch(few[:2])
    other = replace(other, objects=other.objects.with_columns({"label": (other.objects["label"] + 1) % 4}))
    with pytest.raises(ConfigError, match="column label"):
        write_report(tmp_path / "r.html", batch(few[:2]), against=other)
    assert not (tmp_path / "r.html").exists()


def test_a_side_of_another_image_size_is_compared_in_numbers_only(tmp_path):
    few = scenes()[:2]
    larger = replace(batch(few), image_size=(SIZE * 2, SIZE * 2))
    found = write_report(tmp_path / "r.html", batch(few), against=larger)

    assert any("another size" in words for words in found.left_out)
    assert head(Elements((tmp_path / "r.html").read_text(encoding="utf-8")))["drawn_sides"] == 1


def test_a_large_split_stays_within_its_budget_and_says_what_is_missing(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (320, 320, 3), dtype=np.uint8)
    calls = []

    def load(row):
        calls.append(row)
        return picture

    found = write_report(tmp_path / "r.html", many(60), load, most_bytes=1_500_000)

    assert found.size == (tmp_path / "r.html").stat().st_size <= 1_500_000
    assert found.size > 700_000  # the budget is used
    assert set(calls) == set(range(60))
    assert any("candidates beyond the best" in words for words in found.left_out)
    assert any("60 pictures are shrunk" in words for words in found.left_out)
    page = Elements((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert head(page)["left_out"] == list(found.left_out)
    (side,) = json.loads(page.text["details-3"])
    mine = many(60).pairs
    assert len(side["pairs"]["object"]) == int((mine["image"] == 3).sum())  # what learns is never left out


def test_a_tiny_budget_keeps_the_costliest_images(tmp_path):
    inspection = many(60)
    found = write_report(tmp_path / "r.html", inspection, lambda row: pictures()[0], most_bytes=LEAST_BYTES)

    assert found.size <= LEAST_BYTES
    data = head(Elements((tmp_path / "r.html").read_text(encoding="utf-8")))
    kept = data["images"]["image"]
    assert 0 < len(kept) < 60
    assert set(kept) == set(np.argsort(-inspection.images["loss"])[: len(kept)].tolist())
    assert set(data["objects"]["image"]) <= set(range(len(kept)))  # places in the report
    assert f"{60 - len(kept)} of 60 images" in found.left_out[0]
    assert data["counts"]["objects"] == len(inspection.objects)  # sums are of all


def test_findings_of_images_that_are_not_listed_lose_their_place_only(tmp_path):
    inspection = many(4)
    cheap, dear = int(inspection.images["loss"].argmin()), int(inspection.images["loss"].argmax())
    findings = [
        Observation("no_positive", "warning", "cheap", image=cheap, object=1),
        Observation("x", "note", "dear", image=dear),
    ]
    write_report(tmp_path / "r.html", inspection, findings=findings, most_images=1)

    told = head(Elements((tmp_path / "r.html").read_text(encoding="utf-8")))["findings"]
    assert [(one["message"], one["image"], one["object"]) for one in told] == [("cheap", None, None), ("dear", 0, None)]


def test_images_may_be_missing_and_must_be_pictures(tmp_path):
    write_report(tmp_path / "r.html", inspected(), lambda row: None if row else pictures()[0])
    page = Elements((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.text.get("picture-1", "").strip() == ""
    assert len(page.text["picture-0"]) > 1000
    with pytest.raises(ShapeError, match=r"image 0: expected \(H, W, 3\) uint8"):
        write_report(tmp_path / "s.html", inspected(), [np.zeros((4, 4), np.uint8)] * 6)
    assert not (tmp_path / "s.html").exists()


def test_wrong_limits_and_places_are_refused(tmp_path):
    for wrong in ({"most_bytes": 10}, {"page_size": 0}, {"most_images": 0}):
        with pytest.raises(ConfigError, match="at least"):
            write_report(tmp_path / "r.html", inspected(), **wrong)
    (tmp_path / "taken").write_text("file")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(tmp_path / "taken" / "r.html", inspected())


def test_the_same_inspection_gives_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_report(tmp_path / f"{name}.html", inspected(), pictures(), title="same")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert html.escape(NAMES[2]) not in (tmp_path / "a.html").read_text(encoding="utf-8")  # JSON escapes it
    assert NAMES[2] not in (tmp_path / "a.html").read_text(encoding="utf-8")
