# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The README's code does what it says: its blocks run, in a shortened form, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Fewer images and epochs, smaller pictures: what is tested is that the lines work, not what they learn.
SHORTER = (
    (r"\btrain=\d+", "train=8"),
    (r"\bval=\d+", "val=4"),
    (r"\bepochs=\d+", "epochs=1"),
    (r", batch=\d+, nominal_batch=\d+", ""),
    (r"\bimgsz=\d+", "imgsz=64, workers=0, batch=4, plots=False"),
    (r" --batch \d+", ""),
    (r"--epochs \d+", "--epochs 1 --workers 0 --batch 4 --set evaluation.plots=false"),
    (r"--imgsz \d+", "--imgsz 64"),
    (r"^boxwright data draw \w+", r"\g<0> --train 8 --val 4 --imgsz 64"),
    (r"^boxwright val", r"\g<0> --workers 0"),
)
LARGEST_PICTURE = 300_000  # bytes


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shortened(code):
    for pattern, short in SHORTER:
        code = re.sub(pattern, short, code, flags=re.MULTILINE)
    return code


def targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def commands(program):
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.split()[:1] == [program]]


def test_the_python_blocks_run_one_after_the_other(tmp_path):
    code = shortened("\n".join(blocks("python")))
    assert "epochs=1" in code
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    first, *_, shape = result.stdout.splitlines()
    assert first.startswith("runs/yolov8n ")
    assert "main/box" in result.stdout
    assert shape.startswith("torch.Size")


def test_the_first_python_block_has_about_ten_lines():
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


# What the lines speak of and a reader brings along.
PREPARE = """
import re, torch
from pathlib import Path
from boxwright.foreign.naming import layer_prefixes, published_keys
from boxwright.foreign.yolo import RULES
from boxwright.presets import preset

page = Path({page!r}).read_text(encoding="utf-8")
Path("mine-n.yaml").write_text(re.search(r"^```yaml\\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1])
network = preset("yolov8n", num_classes=3).model.build()
own = network.state_dict()
names = published_keys(network, layer_prefixes(network, network.layers), RULES)
state = {{theirs: own[key].reshape(1, -1, 1, 1) if "dfl" in theirs else own[key] for key, theirs in names.items()}}
torch.save({{"model": state, "names": ["cat", "square", "dog"]}}, "yolov8n.pt")
"""
# All lines in one process: each alone would spend most of its time on imports.
RUN = """
import shlex, sys
from boxwright.cli.app import app
for line in {lines!r}:
    print(">>>", line, flush=True)
    try:
        app(shlex.split(line)[1:])
    except SystemExit as end:
        assert not end.code, line
"""


def test_the_command_lines_run_one_after_the_other(tmp_path):
    lines = [shortened(line) for line in commands("boxwright")]
    assert len(lines) >= 18
    code = PREPARE.format(page=str(ROOT / "docs" / "models.md")) + RUN.format(lines=lines)
    environment = {**os.environ, "COLUMNS": "160"}
    words = [sys.executable, "-c", code]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert (tmp_path / "runs" / "predict" / "detections.json").is_file()
    assert (tmp_path / "shapes-coco" / "annotations" / "instances_train.json").is_file()
    assert "boxes: largest difference" in result.stdout
    assert "355 of 355 tensors used, 0 left" in result.stdout
    assert "class rows copied by name" in result.stdout + result.stderr


def test_the_table_of_families_names_presets_and_every_family():
    from boxwright.presets import PRESETS, families

    table = README.partition("| family |")[2].partition("\n\n")[0]
    named = re.findall(r"`([\w-]+)`", table)
    assert set(named) <= set(PRESETS)
    for family, tasks in families().items():
        for task, names in tasks.items():
            assert set(named) & set(names), f"{family}, {task}"


def test_the_make_commands_exist():
    assert [line.split()[1] for line in commands("make")] == ["demo", "test"]
    assert {"demo", "walk", "test", "check", "clean", "bench-peer"} <= targets()


def test_continuous_integration_runs_the_same_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    run = [line.partition("#")[0].strip() for line in script if line.startswith("make")]
    assert run == ["make check", "make demo", "make test", "make walk"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_shortened_demo_ends_with_its_pictures(tmp_path):
    words = [sys.executable, "-m", "boxwright", "demo", "--quick", "--out", "demo"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^run folder: demo/run$", result.stdout, re.MULTILINE)
    assert re.search(r"^box mAP50 0\.\d{3}, mAP50-95 0\.\d{3}, in \d+:\d\d$", result.stdout, re.MULTILINE)
    for name in ("predictions.png", "results.png", "pr_curve.png", "confusion_matrix.png"):
        assert (tmp_path / "demo" / "run" / name).stat().st_size > 5_000, name
    assert (tmp_path / "demo" / "scenes" / "data.yaml").is_file()


def test_every_command_of_the_table_exists():
    from typer.testing import CliRunner

    from boxwright.cli.app import app

    table = README.partition("| command |")[2].partition("\n\n")[0]
    rows = [row.split() for row in re.findall(r"^\| `([a-z]+(?: [a-z]+)?)[^`]*` \|", table, re.MULTILINE)]
    assert ["train"] in rows
    assert ["data", "draw"] in rows
    for words in rows:
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, words


def test_every_room_of_the_map_exists_and_none_is_missing():
    table = README.partition("| room |")[2]
    named = {
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`([\w.]+)`", cell)
    }
    package = ROOT / "src" / "boxwright"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    rooms |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert named == rooms


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_leads_to_a_file(link):
    assert (ROOT / link).is_file(), link


def test_the_pictures_are_small():
    for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / link).stat().st_size < LARGEST_PICTURE
