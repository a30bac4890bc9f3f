# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What all adapters ask of tensors that another code base hands over: shape, type, device. Never their values."""

from collections.abc import Sequence

from torch import Tensor

from boxwright.errors import ShapeError


def check_kind(name: str, tensor: Tensor, like: Tensor) -> None:
    """Raises unless the tensor is floating, of the type and on the device of `like`.

    Raises:
        ShapeError: naming the tensor, what was expected and what it is.
    """
    if not tensor.is_floating_point():
        raise ShapeError(f"{name}: expected raw outputs as floating-point numbers, got {tensor.dtype}")
    if tensor.dtype != like.dtype or tensor.device != like.device:
        raise ShapeError(
            f"{name}: expected {like.dtype} on {like.device} as the tensors before it, "
            f"got {tensor.dtype} on {tensor.device}"
        )


def check_shape(name: str, tensor: Tensor, wanted: Sequence[int | None], words: str) -> None:
    """Raises unless the shape is the wanted one; None fits any length.

    Raises:
        ShapeError: naming the tensor, what was expected in words and numbers, and its shape.
    """
    if tensor.ndim != len(wanted) or any(
        want not in (None, got) for want, got in zip(wanted, tensor.shape, strict=True)
    ):
        numbers = ", ".join("any" if want is None else str(want) for want in wanted)
        raise ShapeError(f"{name}: expected {words}, here ({numbers}), got {tuple(tensor.shape)}")


def check_strides(caller: str, maps: Sequence[Tensor], strides: Sequence[int]) -> None:
    """Raises unless there is one positive whole stride per map, finest first.

    Raises:
        ShapeError: naming the caller and the strides.
    """
    if isinstance(maps, Tensor) or not maps or len(maps) != len(strides):
        count = "one tensor" if isinstance(maps, Tensor) else f"{len(maps)} maps"
        raise ShapeError(f"{caller}: expected a list of maps with one stride each, got {count}, {len(strides)} strides")
    if any(stride < 1 or stride != int(stride) for stride in strides) or list(strides) != sorted(set(strides)):
        raise ShapeError(
            f"{caller}: strides: expected whole pixels per cell, finest level first, got {tuple(strides)}; "
            "give maps and strides in the order of growing strides"
        )


def check_size(name: str, size: Sequence[int]) -> None:
    """Raises unless the size is two positive whole numbers.

    Raises:
        ShapeError: naming the size.
    """
    if len(size) != 2 or any(side < 1 or side != int(side) for side in size):
        raise ShapeError(f"{name}: expected (height, width) in pixels, two whole numbers of at least 1, got {size}")


def check_levels(
    caller: str, shapes: Sequence[tuple[int, int]], strides: Sequence[int], image_size: tuple[int, int] | None
) -> None:
    """Raises unless all maps, (rows, columns) with their strides, are of images of one size.

    Raises:
        ShapeError: naming the level, or the side that is not divisible by a stride.
    """
    if image_size is not None:
        check_size(f"{caller}: image_size", image_size)
    rows, columns = shapes[0]
    height, width = image_size or (rows * strides[0], columns * strides[0])
    source = "image_size" if image_size is not None else "the finest map times its stride"
    for level, (shape, stride) in enumerate(zip(shapes, strides, strict=True)):
        if height % stride or width % stride:
            raise ShapeError(
                f"{caller}: {source}: expected height and width divisible by the stride {stride}, got "
                f"{height} x {width}; pad the images to a multiple of {max(strides)}, or boxes would be scaled wrongly"
            )
        if tuple(shape) != (height // stride, width // stride):
            raise ShapeError(
                f"{caller}: maps[{level}]: expected {height // stride} x {width // stride} cells for images of "
                f"{height} x {width} px ({source}) and stride {stride}, got {shape[0]} x {shape[1]}"
            )
