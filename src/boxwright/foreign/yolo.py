# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Checkpoints that name their tensors `model.<layer>.<part>`: YOLOv5, v8, v10, 11, 26 and the RT-DETR of that style.

Source: the facts of spec/architectures 7.
"""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from boxwright.errors import CheckpointError
from boxwright.foreign.checkpoint import Checkpoint
from boxwright.foreign.naming import Parts, Rules, layer_prefixes, published_keys
from boxwright.foreign.origin import Origin
from boxwright.foreign.rtdetr import V8_STYLE
from boxwright.vocabulary import TASKS, TaskName

CLASSIFY_EPS = 1e-5  # of batch norms in classifiers (measured); all other networks have 1e-3

_ENDS: Parts = {"entry": "cv1", "exit": "cv2", "units": "m"}


def _dense_head(head: nn.Module) -> Parts:
    """The plain branches are one-to-many's where a head has both sets."""
    names = {"box_branches": "cv2", "class_branches": "cv3"}
    extra = dict.fromkeys(("mask_branches", "keypoint_branches", "angle_branches"), "cv4")
    same = {**names, **extra}
    if getattr(head, "one2many", None) is None and getattr(head, "role", "main") == "main":
        return {**same, "bins": "dfl.conv.weight"}
    inner = {f"one2many.{own}": published for own, published in same.items()}
    outer = {own: f"one2one_{published}" for own, published in same.items()}
    return {**inner, **outer, "bins": "dfl.conv.weight"}


RULES: Rules = {
    "Bottleneck": {"conv1": "cv1", "conv2": "cv2"},
    "C2f": _ENDS,
    "C2": _ENDS,
    "C3": {"entry": "cv1", "bypass": "cv2", "exit": "cv3", "units": "m"},
    "CIB": {"convs": "cv1"},
    "RepVGGDW": {"large": "conv", "small": "conv1"},
    "SPPF": _ENDS,
    "SPP": _ENDS,
    "Attention": {"position": "pe"},
    "PSABlock": {"attention": "attn", "expand": "ffn.0", "reduce": "ffn.1"},
    "PSA": {**_ENDS, "units.0": ""},
    "C2PSA": _ENDS,
    "SCDown": {"point": "cv1", "depthwise": "cv2"},
    "Proto": {"conv1": "cv1", "conv2": "cv2", "conv3": "cv3", "up": "upsample"},
    "AnchorFree": _dense_head,
    "AnchorBased": {"level_convs": "m"},
    **V8_STYLE,
}

_LAYER = re.compile(r"model\.(\d+)\.(.+)")


def recognise(checkpoint: Checkpoint) -> Origin | None:
    """What a checkpoint of this naming is; None if it is another naming.

    Raises:
        CheckpointError: the naming is known, the network is not.
    """
    layers = _layers(checkpoint.tensors)
    if not layers:
        return None
    last = max(layers)
    head = layers[last]
    family = _family(last, layers)
    if family is None:
        raise CheckpointError(
            f"{checkpoint.path}: names its tensors like YOLOv5, v8, v10, 11, 26 or RT-DETR, but its head, layer "
            f"{last}, is none of these: it has {', '.join(sorted({name.split('.')[0] for name in head})[:8])}"
        )
    task = _task(head, family)
    return Origin(
        family=family,
        task=task,
        num_classes=_num_classes(checkpoint, head, task),
        keypoint_numbers=_keypoint_numbers(head) if TASKS[task].keypoints else 0,
        anchors=_anchors(head),
        layers=last + 1,
        eps=CLASSIFY_EPS if TASKS[task].whole_image else 1e-3,
    )


def keys(network: nn.Module, checkpoint: Checkpoint, origin: Origin) -> dict[str, str]:
    """Our key -> the checkpoint's."""
    layers: tuple[nn.Module, ...] = network.layers  # type: ignore[assignment]
    prefixes = layer_prefixes(network, layers)
    if type(network.get_submodule("backbone")).__name__ == "ResNet":  # its stem and stages are sequences of their own
        prefixes = {own: f"{to}.layer" if own.startswith("backbone.") else to for own, to in prefixes.items()}
    return published_keys(network, prefixes, RULES)


def _layers(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Tensors by layer; empty unless all keys are of this naming."""
    layers: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        found = _LAYER.fullmatch(key)
        if found is None:
            return {}
        layers.setdefault(int(found[1]), {})[found[2]] = value
    return layers


def _family(last: int, layers: Mapping[int, Mapping[str, Tensor]]) -> str | None:
    head = layers[last]
    if any(name.startswith("dec_score_head.") for name in head):
        return "rtdetr"
    if "anchors" in head or "m.0.weight" in head:
        return "yolov5"
    if "linear.weight" in head:
        return {9: "yolov8", 10: "yolo11"}.get(last)
    if not any(name.startswith(("cv2.", "one2one_cv2.")) for name in head):
        return None
    tenth = layers.get(10, {})
    if any(name.startswith("m.0.attn.") for name in tenth):
        return "yolo26" if "dfl.conv.weight" not in head else "yolo11"
    if any(name.startswith("attn.") for name in tenth):
        return "yolov10"
    return "yolov5u" if any(name.startswith("cv3.") for name in layers.get(2, {})) else "yolov8"


def _task(head: Mapping[str, Tensor], family: str) -> TaskName:
    if "linear.weight" in head:
        return "classify"
    if any(name.startswith("proto.") for name in head):
        return "segment"
    if any(name.startswith(("flow_model.", "cv4_kpts.")) for name in head):
        return "pose"
    ends = _ends(head, "cv4")
    if not ends or family == "yolov5":
        return "detect"
    return "obb" if ends[0].shape[0] == 1 else "pose"


def _ends(head: Mapping[str, Tensor], branch: str) -> list[Tensor]:
    """The weights of the last layer of each level of a branch."""
    return [head[name] for name in sorted(head) if re.fullmatch(rf"{branch}\.\d+\.2\.weight", name)]


def _keypoint_numbers(head: Mapping[str, Tensor]) -> int:
    return int(_ends(head, "cv4")[0].shape[0])


def _num_classes(checkpoint: Checkpoint, head: Mapping[str, Tensor], task: TaskName) -> int:
    if "linear.weight" in head:
        return int(head["linear.weight"].shape[0])
    if "dec_score_head.0.weight" in head:
        return int(head["dec_score_head.0.weight"].shape[0])
    ends = _ends(head, "cv3") or _ends(head, "one2one_cv3")
    if ends:
        return int(ends[0].shape[0])
    anchors, masks = _anchors(head), 32 if TASKS[task].outlines else 0
    per_anchor = head["m.0.weight"].shape[0] // (len(anchors[0]) if anchors else 3)
    count = int(per_anchor) - 5 - masks
    if count < 1:
        raise CheckpointError(
            f"{checkpoint.path}: its head has {per_anchor} numbers per anchor; expected at least 6 (box, objectness, a "
            "class)"
        )
    return count


def _anchors(head: Mapping[str, Tensor]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Width and height of each level's anchors, in cells."""
    if "anchors" not in head or head["anchors"].ndim != 3:
        return ()
    return tuple(tuple((float(w), float(h)) for w, h in level) for level in head["anchors"].tolist())
