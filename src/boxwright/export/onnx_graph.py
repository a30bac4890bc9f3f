# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Suppression inside an ONNX graph, with the standard's own operation.

Each candidate takes part with its best class, as in `tasks.postprocess`. Boxes of different classes are moved apart by
the extent of all boxes, so one pass serves all classes and the limit of detections holds for the image.

Source: NonMaxSuppression of the ONNX standard, https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

WHOLE_IMAGE = ("prototypes",)  # outputs that are not by candidate
_THRESHOLD = 4  # input of NonMaxSuppression
AXES_AS_INPUT = 18  # opset from which ReduceMax and ReduceMin take their axes as an input


class _Graph:
    """Adds nodes one by one, each under its own name."""

    def __init__(self, model: Any) -> None:
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.graph = model.graph
        self.opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.count = 0

    def __call__(self, operation: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        self.count += 1
        name = output or f"suppression_{self.count}"
        self.graph.node.append(self.helper.make_node(operation, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: str) -> str:
        self.count += 1
        name = f"suppression_{self.count}"
        self.graph.initializer.append(self.numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def reduced(self, operation: str, value: str, axes: list[int] | None) -> str:
        if axes is None:
            return self(operation, value, keepdims=0)
        if self.opset < AXES_AS_INPUT:
            return self(operation, value, axes=axes, keepdims=0)
        return self(operation, value, self.constant(axes, "int64"), keepdims=0)


def add_suppression(model: Any, conf: float, iou: float, max_det: int) -> None:
    """Replaces the outputs `boxes` and `scores` of a graph by `detections`, in place; other outputs follow its rows."""
    import onnx

    add = _Graph(model)
    last, first = add.constant([2], "int64"), add.constant([1], "int64")
    best = add.reduced("ReduceMax", "scores", [2])
    label = add("ArgMax", "scores", axis=2, keepdims=0)
    extent = add("Sub", add.reduced("ReduceMax", "boxes", None), add.reduced("ReduceMin", "boxes", None))
    apart = add("Add", extent, add.constant(1, "float32"))
    label_value = add("Cast", label, to=onnx.TensorProto.FLOAT)
    moved = add("Add", "boxes", add("Unsqueeze", add("Mul", label_value, apart), last))
    chosen = add(
        "NonMaxSuppression",
        moved,
        add("Unsqueeze", best, first),
        add.constant([max_det], "int64"),
        add.constant([iou], "float32"),
        add.constant([conf], "float32"),
    )
    place = add("Gather", chosen, add.constant([0, 2], "int64"), axis=1)
    image = add("Cast", add("Gather", chosen, add.constant([0], "int64"), axis=1), to=onnx.TensorProto.FLOAT)
    columns = [
        image,
        add("GatherND", "boxes", place),
        add("Unsqueeze", add("GatherND", best, place), first),
        add("Unsqueeze", add("GatherND", label_value, place), first),
    ]
    add("Concat", *columns, output="detections", axis=1)
    _replace_outputs(model, add, place)


def write_with_threshold(source: Path, target: Path, conf: float) -> None:
    """A copy of an exported file whose suppression begins at another score."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(source))
    (node,) = (node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    (held,) = (value for value in model.graph.initializer if value.name == node.input[_THRESHOLD])
    held.CopyFrom(numpy_helper.from_array(np.array([conf], np.float32), held.name))
    for entry in model.metadata_props:
        if entry.key == "export":
            facts = json.loads(entry.value)
            facts["nms"]["conf"] = conf
            entry.value = json.dumps(facts)
    onnx.save(model, str(target))


def _replace_outputs(model: Any, add: _Graph, place: str) -> None:
    from onnx import TensorProto, helper

    old = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["rows", 7]))
    for output in old:
        if output.name in WHOLE_IMAGE:
            model.graph.output.append(output)
        elif output.name not in ("boxes", "scores"):
            inner = f"{output.name}_of_all"
            for node in model.graph.node:
                node.output[:] = [inner if name == output.name else name for name in node.output]
                node.input[:] = [inner if name == output.name else name for name in node.input]
            add("GatherND", inner, place, output=output.name)
            sides = [dim.dim_value for dim in output.type.tensor_type.shape.dim][2:]
            model.graph.output.append(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, ["rows", *sides]))
