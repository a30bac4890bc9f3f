# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
import dataclasses
from pathlib import Path

import pytest
import torch

from boxwright import api
from boxwright.api.export import import_checkpoint as import_weights
from boxwright.errors import CheckpointError
from boxwright.foreign import rtdetr, torchvision, yolo
from boxwright.foreign.checkpoint import Checkpoint
from boxwright.foreign.importing import import_checkpoint
from boxwright.foreign.naming import published_keys
from boxwright.foreign.origin import Origin
from boxwright.models.weights import load_weights, read_metadata, read_state
from boxwright.presets import preset
from boxwright.vocabulary import KeypointSpec

SMALL = (
    *("yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls"),
    *("yolo11n", "yolo11n-seg", "yolo11n-cls", "yolov10n", "yolo26n"),
    *("yolov5n", "yolov5n6", "yolov5n-seg", "yolov5nu", "rtdetr-l"),
)
QUICK = ("yolov8n-seg", "yolov5n", "yolov10n", "yolo11n", "yolov8n-cls", "rtdetr-l")
NOTHING = Checkpoint(Path("none"), {})
NONE = Origin(family="", task="detect", num_classes=0)
# Keys of published checkpoints, to hold our tables against (spec/architectures 7.1 to 7.4).
SPOKEN = {
    "yolov8n-seg": ("model.22.cv2.0.2.weight", "model.22.cv4.1.0.bn.weight", "model.22.proto.upsample.bias"),
    "yolov10n": (
        "model.10.attn.pe.conv.weight",
        "model.22.m.0.cv1.2.conv1.bn.bias",
        "model.23.one2one_cv3.0.0.1.conv.weight",
    ),
    "yolo11n": ("model.10.m.0.ffn.1.conv.weight", "model.6.m.0.m.1.cv2.conv.weight", "model.23.dfl.conv.weight"),
    "yolov5n": ("model.24.m.2.bias", "model.24.anchors", "model.8.cv3.bn.running_var"),
    "rtdetr-l": (
        "model.11.ma.in_proj_weight",
        "model.28.input_proj.2.1.running_mean",
        "model.28.dec_bbox_head.5.layers.2.bias",
    ),
}
SPOKEN_ORIGINAL = (
    "backbone.conv1.conv1_3.norm.weight",
    "backbone.res_layers.1.blocks.0.short.conv.norm.weight",
    "backbone.res_layers.0.blocks.1.branch2b.conv.weight",
    "encoder.input_proj.2.1.running_var",
    "encoder.encoder.0.layers.0.self_attn.in_proj_bias",
    "encoder.fpn_blocks.1.bottlenecks.2.conv2.norm.bias",
    "encoder.pan_blocks.0.conv3.conv.weight",
    "decoder.input_proj.0.norm.weight",
    "decoder.decoder.layers.2.cross_attn.sampling_offsets.bias",
    "decoder.denoising_class_embed.weight",
)


def built(name, seed=0, **options):
    torch.manual_seed(seed)
    recipe = preset(name, **({"num_classes": 3} | options))
    return recipe, recipe.model.build()


def renamed(network, keys=yolo.keys):
    """The network's tensors under the names of the other code base."""
    names = keys(network, NOTHING, NONE)
    return {names[key]: value for key, value in network.state_dict().items() if key in names}


def saved(path, tensors, **more):
    torch.save({"epoch": 1, "ema": None, "model": tensors, **more}, path)
    return path


def imported(source, out, **options):
    return import_checkpoint(source, out, **options)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SMALL]
)
def test_every_tensor_of_a_checkpoint_comes_back(tmp_path, name):
    recipe, network = built(name)
    file = saved(tmp_path / "theirs.pt", renamed(network), names={0: "cat", 1: "dog", 2: "bird"})

    report = imported(file, tmp_path / "ours.safetensors")

    assert report.recipe.name == name
    assert report.recipe.model == recipe.model
    assert (len(report.used), report.left, report.filled) == (len(network.state_dict()), (), ())
    assert report.names == ("cat", "dog", "bird")
    state = read_state(tmp_path / "ours.safetensors")
    classify = name.endswith("-cls")  # whose batch norms have another epsilon in bare state dicts
    for key, value in network.state_dict().items():
        assert torch.equal(state[key], value) or (classify and key.endswith("running_var")), key
    assert set(SPOKEN.get(name, ())) <= {theirs for theirs, _ in report.used}


def test_the_original_names_of_rtdetr_are_known(tmp_path):
    _, network = built("rtdetr-r18")
    tensors = renamed(network, rtdetr.keys)
    assert set(SPOKEN_ORIGINAL) <= set(tensors)
    file = tmp_path / "r18.pth"
    torch.save({"ema": {"module": tensors, "updates": 3}, "model": {"other": torch.zeros(1)}}, file)
    report = imported(file, tmp_path / "ours.safetensors")
    assert (report.recipe.name, report.place, report.left) == ("rtdetr-r18", "ema.module", ())
    state = read_state(tmp_path / "ours.safetensors")
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_a_loaded_import_predicts_as_its_source(tmp_path):
    _, network = built("yolov8n")
    report = import_weights(saved(tmp_path / "theirs.pt", renamed(network.half())), names=["a", "b", "c"])
    assert report.path == tmp_path / "theirs.boxwright.safetensors"
    model = api.load(report.path)
    assert model.names == ("a", "b", "c")
    assert read_metadata(report.path)["imported_from"] == "theirs.pt"
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.detector(image).final.logits, network.float().eval()(image).final.logits)


def test_layers_are_sized_by_the_tensors(tmp_path):
    """A 2024 quirk left a layer whose base width is the class count unscaled."""
    recipe, _ = built("yolov8n", num_classes=64)
    config = recipe.model
    config = dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, widths=(64, 32, 64, 128, 256)))
    network = config.build()
    report = imported(saved(tmp_path / "m.pt", renamed(network)), tmp_path / "ours.safetensors")
    assert report.recipe.model.backbone.widths == (64, 32, 64, 128, 256)
    assert len(report.used) == len(network.state_dict())


def test_anchors_of_the_file_go_into_the_recipe(tmp_path):
    _, network = built("yolov5n")
    tensors = renamed(network)
    tensors["model.24.anchors"] = tensors["model.24.anchors"] * 2
    report = imported(saved(tmp_path / "m.pt", tensors), tmp_path / "ours.safetensors")
    assert report.recipe.model.head.anchors[0][0] == (20, 26)
    assert api.load(tmp_path / "ours.safetensors").detector.grid((64, 64)).prior_wh[0].tolist() == [20, 26]


def test_a_folded_file_gives_the_same_outputs(tmp_path):
    _, network = built("yolov8n")
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    names = yolo.keys(network, NOTHING, NONE)
    folded = network.fold().state_dict()
    tensors = {
        (names[key] if key in names else names[key.replace(".bias", ".weight")].replace("weight", "bias")): value
        for key, value in folded.items()
    }
    report = imported(saved(tmp_path / "m.pt", tensors), tmp_path / "ours.safetensors")
    assert any("folded" in note for note in report.notes)
    model, image = api.load(tmp_path / "ours.safetensors"), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted, found = network.eval()(image).final.logits, model.detector(image).final.logits
    assert torch.allclose(wanted, found, atol=1e-4)


def test_keypoints_are_read_or_asked_for(tmp_path):
    _, network = built("yolov8n-pose", num_classes=1, keypoints=KeypointSpec(count=10, dims=3))
    file = saved(tmp_path / "m.pt", renamed(network))
    with pytest.raises(CheckpointError, match=r"30 keypoint numbers.*--keypoints"):
        imported(file, tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()
    report = imported(file, tmp_path / "ours.safetensors", keypoints=(10, 3))
    assert report.recipe.model.head.keypoints.count == 10


def test_what_cannot_be_imported_says_why_and_writes_nothing(tmp_path):
    _, network = built("yolov8n")
    tensors, out = renamed(network), tmp_path / "ours.safetensors"
    with pytest.raises(CheckpointError, match="3 classes, got 2 names"):
        imported(saved(tmp_path / "m.pt", tensors), out, names=["a", "b"])
    with pytest.raises(CheckpointError, match="expected weights for segment, got weights for detect"):
        imported(tmp_path / "m.pt", out, task="segment")
    lacking = {key: value for key, value in tensors.items() if key != "model.4.cv1.conv.weight"}
    with pytest.raises(CheckpointError, match=r"1 of 355 tensors do not fit: model\.4\.cv1\.conv\.weight is not"):
        imported(saved(tmp_path / "m.pt", lacking), out)
    wrong = tensors | {"model.1.conv.weight": torch.zeros(32, 99, 3, 3)}
    with pytest.raises(CheckpointError, match=r"model\.1\.conv\.weight is 32x99x3x3 in the file, not 32x16x3x3"):
        imported(saved(tmp_path / "m.pt", wrong), out)
    with pytest.raises(CheckpointError, match="expected tensors named as by"):
        imported(saved(tmp_path / "m.pt", {"encoder.weight": torch.zeros(1)}), out)
    torch.save({"epoch": 3}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="holds no network"):
        imported(tmp_path / "m.pt", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "start", "sign"),
    [
        ("yolov5-mobilenetv3", "features.0.", "features.1.block.0.0.weight"),
        ("yolov5-shufflenetv2", "stage2.", "stage2.0.branch1.0.weight"),
    ],
)
def test_backbones_of_torchvision_are_taken_in_order(tmp_path, name, start, sign):
    _, network = built(name)
    own = {key: value for key, value in network.state_dict().items() if key.startswith("backbone.")}
    tensors = {f"{start}{index}.{key.rpartition('.')[2]}": value for index, (key, value) in enumerate(own.items())}
    second = next(key for key in list(tensors)[6:] if key.endswith("weight"))  # behind the stem's convolution and norm
    tensors = {sign if key == second else key: value for key, value in tensors.items()}
    torch.save({**tensors, "classifier.weight": torch.zeros(10, 4)}, tmp_path / "b.pth")

    report = imported(tmp_path / "b.pth", tmp_path / "ours.safetensors", preset=name)

    assert report.part == "backbone"
    assert ("classifier.weight", "not part of the backbone") in report.left
    state = read_state(tmp_path / "ours.safetensors")
    assert state.keys() == own.keys()
    assert all(torch.equal(state[key], value) for key, value in own.items() if "running" not in key)
    with pytest.raises(CheckpointError, match="only the backbone"):
        api.load(tmp_path / "ours.safetensors")
    _, other = built(name, seed=1)
    assert len(load_weights(other, tmp_path / "ours.safetensors", strict=False).matched) == len(own)


def test_stages_of_a_resnet_are_taken_and_its_stem_is_left(tmp_path):
    _, network = built("rtdetr-r18")
    names = torchvision.keys(network, NOTHING, Origin(family="rtdetr-r18", task="detect", num_classes=0))
    assert {"layer1.1.conv2.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn1.bias"} <= set(names.values())
    fresh = {key for key, theirs in names.items() if theirs.startswith("layer1.0.downsample")}
    tensors = {names[key]: value for key, value in network.state_dict().items() if key in names.keys() - fresh}
    torch.save(
        {**tensors, "conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(9, 512)}, tmp_path / "r.pth"
    )
    # torchvision's first stage has no shortcut of its own, ours has: it stays fresh.
    report = imported(tmp_path / "r.pth", tmp_path / "ours.safetensors")
    assert report.recipe.name == "rtdetr-r18"
    assert {key for key, _ in report.left} == {"conv1.weight", "fc.weight"}
    assert set(read_state(tmp_path / "ours.safetensors")) == set(names) - fresh


def test_rules_name_only_parts_that_exist():
    for name in ("yolov8n-pose", "yolov5s-r5", "rtdetr-resnet50"):
        _, network = built(name)
        keys = yolo.keys(network, NOTHING, NONE)
        assert len(set(keys.values())) == len(network.state_dict())
        assert all(key.startswith("model.") for key in keys.values())
    assert published_keys(torch.nn.Linear(1, 1), {}, {}) == {}


def test_class_rows_move_by_name_into_other_class_lists(tmp_path):
    _, network = built("yolov8n")
    import_weights(saved(tmp_path / "m.pt", renamed(network)), tmp_path / "w.safetensors", names=["a", "b", "c"])
    _, other = built("yolov8n", seed=1, num_classes=2)
    report = load_weights(other, tmp_path / "w.safetensors", strict=False, names=["C", "a"])
    key = "head.class_branches.0.2.bias"
    assert key in report.remapped
    assert torch.equal(other.state_dict()[key], network.state_dict()[key][[2, 0]])


@pytest.mark.parametrize(("name", "count"), [("yolov8n-cls", 26), ("yolov8n", 0)])
def test_the_epsilon_of_published_classifiers_moves_into_the_variance(tmp_path, name, count):
    """Theirs is 1e-5, ours 1e-3 everywhere: outputs stay what they were, and the report says so."""
    _, network = built(name)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_var.uniform_(1e-3, 1e-2)  # small: the epsilon shows
    report = imported(saved(tmp_path / "m.pt", renamed(network)), tmp_path / "ours.safetensors")

    told = [note for note in report.notes if "epsilon" in note]
    wanted = [f"{count} batch norms have another epsilon than ours; their variances make up for it"]
    assert told == (wanted if count else [])
    model, image = api.load(tmp_path / "ours.safetensors").detector, torch.rand(1, 3, 64, 64)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert {part.eps for part in norms} == {1e-3}
    theirs = network.eval()
    ours = theirs.state_dict()
    if count:
        for part in theirs.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eps = 1e-5
        key = "backbone.layers.0.bn.running_var"
        assert torch.allclose(model.state_dict()[key], ours[key] + 1e-5 - 1e-3, rtol=1e-5)
    with torch.no_grad():
        wanted, found = theirs.double()(image.double()), model.double()(image.double())
    wanted, found = (x.logits if count else x.final.logits for x in (wanted, found))
    assert torch.allclose(wanted, found, atol=1e-4)
    assert wanted.std() > 0
