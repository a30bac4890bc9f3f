# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Names of RT-DETR's tensors: those of its original code, and what the v8-style code calls the same parts.

Source: the facts of spec/architectures 7.3 and 7.4.
"""

from torch import nn

from boxwright.foreign.checkpoint import Checkpoint
from boxwright.foreign.naming import Parts, Rules, published_keys
from boxwright.foreign.origin import Origin

LEVELS = 4  # at most; what a network has not is never asked for
BLOCKS = 40  # of a stage, at most
EPS = 1e-5

_DECODER: Rules = {
    "SelfAttention": {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias", "output": "out_proj"},
    "DecoderLayer": {"attention": "self_attn", "cross": "cross_attn", "expand": "linear1", "reduce": "linear2"},
    "DeformableAttention": {
        "offsets": "sampling_offsets",
        "weights": "attention_weights",
        "value": "value_proj",
        "output": "output_proj",
    },
}
_QUERY: Parts = {
    "project": "input_proj",
    "encode": "enc_output",
    "proposal_class": "enc_score_head",
    "proposal_box": "enc_bbox_head",
    "label_embedding": "denoising_class_embed",
    "decoder.position": "query_pos_head",
    "decoder.classes": "dec_score_head",
    "decoder.boxes": "dec_bbox_head",
}


def _by_position(own: str, published: str) -> Parts:
    """A convolution and its norm that the file keeps as the first and second part of a sequence."""
    levels = range(LEVELS)
    convs = {f"{own}.{level}.conv": f"{published}.{level}.0" for level in levels}
    return {**convs, **{f"{own}.{level}.bn": f"{published}.{level}.1" for level in levels}}


V8_STYLE: Rules = {
    **_DECODER,
    "HGStem": {"conv1": "stem1", "conv2a": "stem2a", "conv2b": "stem2b", "conv3": "stem3", "conv4": "stem4"},
    "HGBlock": {"units": "m", "squeeze": "sc", "excite": "ec"},
    "LightConv": {"point": "conv1", "depthwise": "conv2"},
    "Residual": {"body.0": "cv1", "body.1": "cv2", "body.2": "cv3", "shortcut": "shortcut.0"},
    "AIFI": {"attention": "ma", "expand": "fc1", "reduce": "fc2"},
    "RepC3": {"entry": "cv1", "bypass": "cv2", "units": "m", "exit": "cv3"},
    "RepConv": {"large": "conv1", "small": "conv2"},
    "Query": {**_QUERY, **_by_position("project", "input_proj")},
}
ORIGINAL: Rules = {
    **_DECODER,
    "Conv": {"bn": "norm"},
    "ResNet": {
        **{f"layers.0.{index}": f"conv1.conv1_{index + 1}" for index in range(3)},
        **{
            f"layers.{stage + 1}.{block}": f"res_layers.{stage}.blocks.{block}"
            for stage in range(LEVELS)
            for block in range(BLOCKS)
        },
    },
    "Residual": {
        "body.0": "branch2a",
        "body.1": "branch2b",
        "body.2": "branch2c",
        "shortcut.1": "short.conv",
        "shortcut": "short",
    },
    "Hybrid": {
        **_by_position("project", "input_proj"),
        "encode": "encoder.0.layers.0",
        "lateral": "lateral_convs",
        "up": "fpn_blocks",
        "halve": "downsample_convs",
        "down": "pan_blocks",
    },
    "AIFI": {"attention": "self_attn", "expand": "linear1", "reduce": "linear2"},
    "RepC3": {"entry": "conv1", "bypass": "conv2", "units": "bottlenecks", "exit": "conv3"},
    "RepConv": {"large": "conv1", "small": "conv2"},
    "Query": _QUERY,
}
_PREFIXES = {"backbone": "backbone", "neck": "encoder", "head": "decoder"}


def recognise(checkpoint: Checkpoint) -> Origin | None:
    """What a checkpoint of the original naming is; None if it is another naming."""
    classes = checkpoint.tensors.get("decoder.dec_score_head.0.weight")
    if classes is None or "backbone.conv1.conv1_1.conv.weight" not in checkpoint.tensors:
        return None
    return Origin(family="rtdetr", task="detect", num_classes=int(classes.shape[0]), eps=EPS)


def keys(network: nn.Module, checkpoint: Checkpoint, origin: Origin) -> dict[str, str]:
    """Our key -> the checkpoint's."""
    return published_keys(network, _PREFIXES, ORIGINAL)
