# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The pages on assigners and terms: complete, as built, and their code runs."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import pytest

from boxwright.errors import DataError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = DOCS / "losses"
EMPTY = "## Formula\n## Picture\n## When to use it\n## Published mistakes\n"
LARGEST_PICTURE = 300_000  # bytes


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_losses", DOCS / "build_losses.py")
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


@pytest.fixture(scope="module")
def built(builder):
    return builder.build(draw=False)


def test_every_assigner_and_term_has_a_page(builder, built):
    parts = [Path(folder) / f"{builder.kind_of(part)}.md" for folder, part in builder.parts()]

    assert len(parts) == len(set(parts)) > 20
    assert set(built) == {*parts, Path("index.md"), Path("using.md")}
    for path in parts:
        assert f"]({path.as_posix()})" in built[Path("index.md")]


def test_the_committed_pages_are_those_that_are_built(built):
    committed = {file.relative_to(PAGES): file.read_text(encoding="utf-8") for file in PAGES.rglob("*.md")}

    assert set(committed) == set(built), "run `make docs`"
    for path, text in built.items():
        assert committed[path].splitlines() == text.splitlines(), f"docs/losses/{path}: run `make docs`"


def test_every_page_has_its_parts_and_cites_its_source(builder, built):
    sections = (*builder.SECTIONS, "Settings and defaults", "In complete criteria", "Source")
    for folder, part in builder.parts():
        text = built[Path(folder) / f"{builder.kind_of(part)}.md"]
        found = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert found == list(sections), part
        assert "```text" in text.partition("## Picture")[0], f"{part.__name__}: no formula"
        assert re.search(r"!\[.+\]\(\.\./images/", text), f"{part.__name__}: no picture"
        source = text.rpartition("## Source")[2]
        assert re.search(r"arXiv|\]\(\.\./\.\./spec/losses\.md#", source), f"{part.__name__}: no source"


def test_every_published_mistake_of_the_specification_is_told(built):
    linked = {int(number) for text in built.values() for number in re.findall(r"/losses\.md#h(\d+)-", text)}

    assert linked == set(range(1, 27)), sorted(set(range(1, 27)) - linked)


def test_links_lead_to_pages_and_pictures_are_there_and_small(built):
    for path, text in built.items():
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            file = (PAGES / path).parent / link
            assert file.is_file(), f"docs/losses/{path}: {link}; run `make docs`"
            assert file.suffix == ".md" or file.stat().st_size < LARGEST_PICTURE, link


def test_no_picture_is_left_over(built):
    shown = {name for text in built.values() for name in re.findall(r"images/([\w.-]+)", text)}

    assert {file.name for file in (PAGES / "images").iterdir()} == shown


@pytest.mark.parametrize("name", ["task_aligned", "box_overlap", "prototype_masks"])
def test_pictures_are_drawn(builder, tmp_path, name):
    figures = builder.namespace(tmp_path)["figure"]
    figures.up = "../"

    text = figures(name, "What it shows")

    assert text == f"![What it shows](../images/{name}.png)\n\n*What it shows*"
    picture = matplotlib.image.imread(tmp_path / "images" / f"{name}.png")
    committed = matplotlib.image.imread(PAGES / "images" / f"{name}.png")
    assert picture.shape == committed.shape
    assert abs(picture[..., :3].mean() - committed[..., :3].mean()) < 0.02  # fonts may differ, what is shown may not


@pytest.mark.slow
def test_everything_is_built_from_nothing(tmp_path):
    words = [sys.executable, str(DOCS / "build_losses.py"), "--out", str(tmp_path)]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)

    pictures = {file.name for file in (tmp_path / "images").iterdir()}
    assert pictures == {file.name for file in (PAGES / "images").iterdir()}
    assert f"{len(pictures)} pictures" in result.stdout


@dataclass(frozen=True)
class NewTerm:
    """A term that nobody wrote a page for."""

    kind: str = "new_term"


def test_a_part_without_a_page_is_named(builder, monkeypatch):
    monkeypatch.setattr(builder, "parts", lambda: iter([("terms", NewTerm)]))

    with pytest.raises(DataError, match=r"docs/templates/terms/new_term.md: missing; NewTerm .* without a page"):
        builder.build(draw=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("## Formula\n", r"new_term.md: expected the section '## Picture', found none"),
        ("{{ nothing }}\n" + EMPTY, r"\{\{ nothing \}\}: NameError"),
        (None, r"old.md: no assigner or term of that kind is listed"),
    ],
)  # fmt: skip
def test_a_template_that_is_wrong_is_named(builder, monkeypatch, tmp_path, text, message):
    (tmp_path / "terms").mkdir()
    for name in ("index.md", "using.md"):
        (tmp_path / name).write_text("# Title\n")
    if text is None:
        (tmp_path / "terms" / "old.md").write_text("# Old\n")
    else:
        (tmp_path / "terms" / "new_term.md").write_text(text)
    monkeypatch.setattr(builder, "TEMPLATES", tmp_path)
    monkeypatch.setattr(builder, "parts", lambda: iter([("terms", NewTerm)] if text else []))

    with pytest.raises(DataError, match=message):
        builder.build(draw=False)


def test_the_code_on_the_page_about_using_runs():
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", (PAGES / "using.md").read_text(), re.MULTILINE | re.DOTALL))

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert "'main/box'" in result.stdout
    assert re.fullmatch(r"torch.Size\(\[\d+\]\)", result.stdout.splitlines()[-1])
