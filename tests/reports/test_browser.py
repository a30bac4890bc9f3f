# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The report in a real browser: opened from disk, clicked, filtered, driven by keyboard, looked at.

Needs a Chromium (Debian: `apt install chromium`); installs nothing. Screenshots go to the folder that the environment
variable BOXWRIGHT_SCREENSHOTS names, for a person to look at.
"""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.inspector.scenes import NAMES, batch, inspected, many, pictures, scenes
from tests.reports.chromium import Browser, find_chromium

from boxwright.losses.dense_recipes import yolov8_detect
from boxwright.reports.page import write_report
from boxwright.table import Table

FATE = "document.querySelectorAll('#views [data-fate]').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no chromium on the path; on Debian and Ubuntu: apt install chromium")
    made = Browser(program, tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, inspected(), pictures(), title="Drawn <b>scenes</b>", page_size=10)
    return path


@pytest.fixture
def page(browser, report):
    """The report, freshly opened on a wide screen in the light theme; at the end nothing was wrong or asked for."""
    with opened(browser, report) as page:
        yield page


class opened:  # noqa: N801  # a with statement
    def __init__(self, browser, path):
        self.browser, self.path = browser, path

    def __enter__(self):
        self.browser.problems.clear()
        self.browser.requests.clear()
        self.browser.resize(1440, 1000)
        self.browser.prefer(prefers_color_scheme="light")
        self.browser.open(self.path)
        self.browser.run("try { localStorage.clear() } catch {}")
        return self.browser

    def __exit__(self, kind, *_):
        if kind is None:
            assert self.browser.problems == []
            assert {url.split(":")[0] for url in self.browser.requests} <= {"file", "data", "about"}
            files = {url.partition("#")[0] for url in self.browser.requests if url.startswith("file:")}
            assert files == {self.path.resolve().as_uri()}


def keep(browser, name, tmp_path):
    """A screenshot, kept where somebody asked for it; returns its pixels."""
    folder = Path(os.environ.get("BOXWRIGHT_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    browser.screenshot(folder / f"{name}.png")
    return cv2.imread(str(folder / f"{name}.png"))


def chosen(page):
    return page.text("#details h2")


def row_of(image, slot):
    table = inspected().objects
    return int(np.flatnonzero((table["image"] == image) & (table["object"] == slot))[0])


def show_image(page, number):
    page.run(f"(() => {{ const e = document.getElementById('number'); e.value = {number};"
             "e.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert page.run("document.getElementById('number').value") == str(number)


def test_it_opens_on_the_image_that_costs_most_with_the_headline_numbers(page, tmp_path):
    inspection = inspected()
    cards = dict(zip(page.texts("#cards dt"), page.texts("#cards .big"), strict=True))

    assert page.text("h1") == "Drawn <b>scenes</b>"
    assert cards["Labelled objects"] == str(len(inspection.objects))
    assert cards["Objects nobody learns from"] == "6"
    assert float(cards["Loss"].replace(",", "")) == pytest.approx(inspection.total, rel=1e-3)
    assert chosen(page) == f"Image {inspection.images['loss'].argmax()}"
    assert page.count("#views .object") == (inspection.objects["image"] == inspection.images["loss"].argmax()).sum()
    assert page.texts("#panel-overview tbody tr:first-child td:first-child")[0].startswith("main/box")
    picture = keep(page, "light", tmp_path)
    assert picture.shape[:2] == (1000, 1440)
    assert picture.mean() > 150


def test_a_click_in_the_table_shows_the_object_and_its_candidates(page, tmp_path):
    page.click("#tab-objects")
    assert page.run("document.getElementById('tab-objects').getAttribute('aria-selected')") == "true"
    assert page.count("#panel-objects tbody tr") == 10
    # The dearest is first; pick the second.
    order = np.argsort(-inspected().objects["loss"], kind="stable")
    row = {name: inspected().objects[name][order[1]] for name in ("image", "object", "class", "positives", "loss")}
    page.click("#panel-objects tbody tr:nth-child(2) td:nth-child(4)")

    assert chosen(page).startswith(f"Image {row['image']}, object {row['object']}: {row['class']}")
    assert page.run("location.hash") == f"#image={row['image']}&object={row['object']}"
    assert (
        page.run("document.querySelector('#panel-objects tbody tr:nth-child(2)').getAttribute('aria-current')")
        == "true"
    )
    assert page.count("#views .object.chosen") == 1
    candidates = inspected().candidates
    mine = candidates.take((candidates["image"] == row["image"]) & (candidates["object"] == row["object"]))
    assert page.run(FATE) == len(mine)
    assert page.count('#views [data-fate="positive"]') == (mine["fate"] == "positive").sum() == row["positives"]
    assert f"{row['positives']} candidates learn from it" in page.text("#details .say")
    assert page.count(".candidates tbody tr") == min(16, len(mine))
    keep(page, "object", tmp_path)


def test_pointing_at_an_object_shows_its_candidates_until_the_pointer_leaves(page):
    show_image(page, 2)
    assert page.run(FATE) == 0
    row = row_of(2, 0)
    page.hover(f'#views .object[data-row="{row}"]')
    assert chosen(page).startswith("Image 2, object 0")
    assert page.run(FATE) > 0

    page.hover("h1")
    assert chosen(page) == "Image 2"
    assert page.run(FATE) == 0
    page.click(f'#views .object[data-row="{row}"]')
    page.hover("h1")
    assert chosen(page).startswith("Image 2, object 0")
    assert page.run(f"document.querySelector('.object[data-row=\"{row}\"]').getAttribute('aria-pressed')") == "true"


def test_pointing_at_a_candidate_rings_it(page):
    page.click("#tab-objects")
    page.click("#panel-objects tbody tr:first-child td:first-child button")
    page.hover(".candidates tbody tr:nth-child(1)")
    assert page.count("#views .found") == 1
    assert page.count('#views circle[stroke="#ffd54a"]') == 1
    page.hover("h1")
    assert page.count("#views .found") == 0


def test_filters_by_class_fate_and_term(page):
    objects = inspected().objects
    page.click("#tab-objects")
    name = NAMES[2]
    page.choose("#filter-class", name)
    of_class = objects["class"] == name
    assert set(page.texts("#panel-objects tbody td:nth-child(2)")) == {name}
    assert page.text("#filter-count") == f"{of_class.sum()} of {len(objects)} objects"

    page.choose("#filter-fate", "lost")
    both = of_class & (objects["fate/lost"] > 0)
    assert page.text("#filter-count") == f"{both.sum()} of {len(objects)} objects"
    page.choose("#filter-class", "")
    page.click("#panel-objects tbody tr:first-child")
    assert page.run(
        "[...new Set([...document.querySelectorAll('#views [data-fate]')].map((e) => e.dataset.fate))]"
    ) == ["lost"]

    page.choose("#filter-fate", "")
    page.choose("#filter-term", "main/dfl")
    assert "main/dfl" in page.text("#panel-objects thead")
    dearest = objects["main/dfl"].max()
    assert float(page.text("#panel-objects tbody tr:first-child td:nth-child(8)")) == pytest.approx(dearest, rel=1e-3)
    page.click("#filter-reset")
    assert page.text("#filter-count") == ""
    assert page.run("document.getElementById('filter-term').value") == ""


def test_the_number_of_objects_nobody_learns_from_leads_to_them(page):
    page.click("#cards button")
    assert page.run("document.getElementById('filter-fate').value") == "no positive"
    assert page.count("#panel-objects tbody tr") == 6
    assert set(page.texts("#panel-objects tbody td:nth-child(6)")) == {"0"}
    page.click("#panel-objects tbody tr:nth-child(3)")
    assert "its label teaches nothing" in page.text("#details .say")
    assert page.count("#views .object.lonely.chosen") == 1


def test_columns_sort_both_ways_and_tables_turn_pages(page):
    page.click("#tab-objects")
    heading = "#panel-objects thead th:nth-child(3) button"
    first = "#panel-objects tbody tr:first-child td:nth-child(3)"
    widths = np.round(inspected().objects["w"])
    page.click(heading)
    assert (
        page.run("document.querySelector('#panel-objects th:nth-child(3)').getAttribute('aria-sort')") == "descending"
    )
    assert float(page.text(first)) == widths.max()
    page.click(heading)
    assert float(page.text(first)) == widths.min()

    assert page.text("#panel-objects .pager span") == f"1 to 10 of {len(widths)}"
    page.click("#panel-objects .pager .on")
    assert page.text("#panel-objects .pager span").startswith("11 to ")
    assert page.run("document.activeElement.className") == "on"


def test_everything_can_be_done_by_keyboard(page):
    page.run("document.getElementById('tab-overview').focus()")
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert page.run("document.activeElement.id") == "tab-objects"
    page.run("document.querySelector('#panel-objects td.first > button[tabindex=\"0\"]').focus()")
    assert page.count('#panel-objects td.first > button[tabindex="0"]') == 1
    page.press("ArrowDown", "ArrowDown", "Enter")
    want = page.text("#panel-objects tbody tr:nth-child(3) td:first-child").split(" / ")
    assert chosen(page).startswith(f"Image {want[0]}, object {want[1]}")
    assert "Image" in page.text("#live")

    page.run("document.querySelector('#views svg').focus()")
    before = page.run("document.querySelector('#views svg').getAttribute('viewBox')").split()
    page.press("+")
    after = page.run("document.querySelector('#views svg').getAttribute('viewBox')").split()
    assert float(after[2]) == pytest.approx(float(before[2]) / 1.4)
    page.press("ArrowRight")
    moved = page.run("document.querySelector('#views svg').getAttribute('viewBox')").split()
    assert float(moved[0]) == pytest.approx(float(after[0]) + float(after[2]) / 8)
    page.press("0")
    assert page.run("document.querySelector('#views svg').getAttribute('viewBox')") == "0 0 128 128"
    page.press("Escape")
    assert page.count("#views .object.chosen") == 0
    show_image(page, 1)
    page.run("document.querySelector('#views svg').focus()")
    page.press("n")
    assert page.run("document.getElementById('number').value") == "2"
    page.press("Tab")
    assert page.run("document.activeElement.classList.contains('object')")
    page.press("Enter")
    assert page.count("#views .object.chosen") == 1


def test_every_control_has_a_name_and_every_table_headings(page):
    for tab in page.run("[...document.querySelectorAll('[role=tab]')].map((e) => e.id)"):
        page.click(f"#{tab}")
    nameless = page.run(
        "[...document.querySelectorAll('button, select, input, [role=button], svg[tabindex]')].filter((e) => !("
        "e.textContent.trim() || e.getAttribute('aria-label') || e.closest('label'))).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert page.run(
        "[...document.querySelectorAll('table')].every((t) => t.caption && t.querySelector('th[scope=col]'))"
    )
    assert page.run(
        "[...document.querySelectorAll('[aria-controls]')].every("
        "(e) => document.getElementById(e.getAttribute('aria-controls')))"
    )
    assert page.run("[...document.querySelectorAll('[role=img]')].every((e) => e.getAttribute('aria-label'))")
    assert page.run("document.documentElement.lang") == "en"


def test_grids_levels_and_predicted_boxes_can_be_switched(page):
    page.click("#tab-objects")
    page.click("#panel-objects tbody tr:first-child")
    assert page.count("#views pattern") == 0
    page.click("#options fieldset label:nth-of-type(2) input")
    assert page.run("document.querySelector('#views pattern').getAttribute('width')") == "16"
    every = page.run(FATE)
    page.choose("#options select", "16")
    assert 0 < page.run(FATE) < every
    page.choose("#options select", "")
    page.click("#options > label:last-child input")
    assert page.count("#views .found") == page.count('#views [data-fate="positive"]')


def test_dragging_moves_the_image_and_chooses_nothing(page):
    x, y = page.place("#views svg")
    view = "document.querySelector('#views svg').getAttribute('viewBox').split(' ').map(Number)"
    before = page.run(view)
    page.send("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1)
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + 60, y=y, button="left", buttons=1)
    page.send("Input.dispatchMouseEvent", type="mouseReleased", x=x + 60, y=y, button="left", clickCount=1)
    after = page.run(view)
    assert after[0] < before[0] - 5
    assert after[1:] == before[1:]
    assert page.count("#views .object.chosen") == 0


def test_findings_and_background_lead_to_their_place(page):
    page.click("#tab-findings")
    place = page.run(
        "[...document.querySelectorAll('#panel-findings tbody tr')].findIndex("
        "(e) => e.textContent.includes('no candidate learns'))"
    )
    text = page.texts("#panel-findings tbody tr td:nth-child(3)")[place]
    page.click(f"#panel-findings tbody tr:nth-child({place + 1})")
    words = re.match(r"image (\d+)(?: \(.*?\))?, object (\d+)", text)
    assert words is not None
    image, slot = words.groups()
    assert chosen(page).startswith(f"Image {image}, object {slot}:")

    page.click("#tab-background")
    page.click("#panel-background tbody tr:nth-child(1)")
    first = next(inspected().background.rows())
    assert chosen(page).startswith(f"Background: {first['class']}")
    assert page.run("document.getElementById('number').value") == str(first["image"])
    assert page.count("#views .suspect") == 1


def test_names_are_text_and_never_run(page):
    assert page.count("main script") == 0
    assert "<script>alert(1)</script>" in page.texts("#filter-class option")
    page.click("#tab-gallery")
    assert page.count(".gallery button") > 12
    assert page.count("#panels script, #views script") == 0


def test_themes_follow_the_system_and_the_button(page, tmp_path):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    page.click("#theme")
    dark = page.run(ground)
    assert light != dark
    assert page.text("#theme") == "Light theme"
    page.click("#tab-gallery")
    assert keep(page, "dark", tmp_path)[60:130, 700:1000].mean() < 70
    page.click("#theme")
    assert page.run(ground) == light
    page.run("localStorage.clear(); delete document.documentElement.dataset.theme")
    page.prefer(prefers_color_scheme="dark")
    assert page.run(ground) == dark
    page.prefer(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    assert page.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_a_narrow_window_has_no_sideways_scrolling(page, tmp_path):
    page.resize(390, 840)
    for tab in ("overview", "objects", "findings", "images"):
        page.click(f"#tab-{tab}")
        assert page.run("document.documentElement.scrollWidth") <= 390, tab
    page.click("#tab-objects")
    page.click("#panel-objects tbody tr:first-child td:first-child")
    page.wait("document.getElementById('views').getBoundingClientRect().bottom > 200")  # brought back into sight
    keep(page, "narrow", tmp_path)


def test_a_link_to_an_object_opens_it(browser, report):
    with opened(browser, report) as page:
        page.open(report, "#image=3&object=1")
        assert chosen(page).startswith("Image 3, object 1")


def test_two_sides_are_seen_beside_each_other(browser, tmp_path):
    few = scenes()[:2]
    ours, theirs = batch(few), batch(few, criterion=yolov8_detect(gains={"box": 1.0}, topk=3))
    path = tmp_path / "against.html"
    write_report(path, ours, pictures(2), against=theirs, sides=("now", "before"))

    with opened(browser, path) as page:
        assert page.count("#views svg") == 2
        page.click("#tab-compare")
        rows = dict(zip(page.texts("#panel-compare tbody tr td:first-child")[:3],
                        page.texts("#panel-compare tbody tr td:nth-child(4)")[:3], strict=True))  # fmt: skip
        change = dict(zip(ours.terms["term"], ours.terms["loss"] - theirs.terms["loss"], strict=True))
        assert float(rows["main/box"].replace(",", "")) == pytest.approx(change["main/box"], rel=1e-3)
        page.click("#panel-compare .listing:last-of-type tbody tr:first-child td:first-child")
        counts = page.run(
            "[...document.querySelectorAll('#views svg')].map((e) => e.querySelectorAll('[data-fate=positive]').length)"
        )
        assert counts[0] > counts[1] > 0
        assert page.count(".candidates") == 2
        keep(page, "against", tmp_path)


def test_whole_images_have_a_report_too(browser, tmp_path):
    images = Table({"image": [0, 1], "path": ["a.jpg", "b.jpg"], "label": [0, 1], "class": ["cat", "dog"],
                    "found_label": [0, 0], "found_class": ["cat", "cat"], "score": [0.7, 0.6], "loss": [0.4, 1.5],
                    "gradient": [0.1, 0.2]})  # fmt: skip
    empty = Table({})
    base = batch(scenes()[:2])
    whole = replace(base, images=images, objects=empty, pairs=empty, candidates=empty, background=empty, total=1.9)
    write_report(tmp_path / "r.html", whole, pictures(2))

    with opened(browser, tmp_path / "r.html") as page:
        assert "the model says cat" in page.text("#details .say")
        assert "another class" in page.text("#details .say")
        page.click("#tab-images")
        page.click("#panel-images tbody tr:nth-child(2)")
        assert "Labelled cat" in page.text("#details .say")
        assert page.texts("#cards .big")[1] == "50 %"


def test_an_empty_inspection_opens(browser, tmp_path):
    nothing = np.zeros(0, int)
    base = batch(scenes()[:1])
    tables = ("objects", "pairs", "candidates", "background", "images")
    bare = replace(base, **{name: getattr(base, name).take(nothing) for name in tables})
    write_report(tmp_path / "r.html", bare)

    with opened(browser, tmp_path / "r.html") as page:
        page.click("#tab-images")
        assert page.text("#panel-images .empty") == "No image passes the filters."
        page.choose("#filter-term", "main/cls")


@pytest.mark.slow
def test_a_thousand_images_stay_usable(browser, tmp_path):
    picture = cv2.resize(pictures()[0], (640, 640))
    noise = np.random.default_rng(0)

    def load(row):
        return cv2.add(picture, noise.integers(0, 40, picture.shape, dtype=np.uint8))

    found = write_report(tmp_path / "r.html", many(1000), load)
    assert found.size < 50_000_000

    with opened(browser, tmp_path / "r.html") as page:
        start = time.perf_counter()
        page.open(tmp_path / "r.html")
        opening = time.perf_counter() - start
        start = time.perf_counter()
        page.click("#tab-objects")
        page.choose("#filter-class", NAMES[1])
        page.click("#panel-objects thead th:nth-child(6) button")
        page.click("#panel-objects tbody tr:nth-child(5)")
        page.click("#tab-gallery")
        acting = time.perf_counter() - start
        assert page.run(FATE) > 0
        assert page.count(".gallery button") > 12
        assert (opening, acting) < (20.0, 10.0), (opening, acting)  # seconds, on a loaded machine of two cores
        assert acting < 10.0
