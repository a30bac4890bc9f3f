# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Stacks of query outputs, one layer above the other (DETR-like), as another code base has them in hand."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from boxwright.errors import ShapeError
from boxwright.losses.adapters.checks import check_kind, check_shape, check_size
from boxwright.ops.decode import Normalized
from boxwright.structures import Assignment, Outputs, Predictions, Targets


def from_detr_stacks(
    boxes: Shaped[Tensor, "..."],
    logits: Shaped[Tensor, "..."],
    *,
    image_size: tuple[int, int],
    encoder_first: bool = True,
    denoising: tuple[Shaped[Tensor, "..."], Shaped[Tensor, "..."], Assignment] | None = None,
    attribute_logits: Mapping[str, Tensor] | None = None,
    exclusive: bool = False,
) -> Outputs:
    """Outputs of a set predictor: boxes (L, B, Q, 4) and logits (L, B, Q, C) of L layers, the model's output last.

    Every layer is one `Predictions`; roles are "encoder" (the first layer, with `encoder_first`), "decoder" and
    "denoise", as `rtdetr` has rules for them. Nothing is copied.

    Args:
        boxes: (cx, cy, w, h) in shares of the image, after their sigmoid.
        logits: raw class scores.
        image_size: (H, W) px that the network saw.
        encoder_first: the first layer holds the encoder's proposals.
        denoising: boxes (L', B, S, 4), logits (L', B, S, C) of the denoising queries, and what they were made from:
            `denoising_pairs`, or `DenoisingQueries.known` of our own builder.
        attribute_logits: name -> raw (L, B, Q, C_name), or (B, Q, C_name) where only the output layer has that head
            (then `Attribute(missing="skip")` for the others).
        exclusive: classes exclude one another, so scores are read by softmax.

    Raises:
        ShapeError: a stack has another shape or type, or (looked at on the host only) boxes are no shares.
    """
    caller = "from_detr_stacks"
    check_size(f"{caller}: image_size", image_size)
    stacks = [("", boxes, logits)]
    if denoising is not None:
        stacks.append(("denoising ", *denoising[:2]))
    for name, box, score in stacks:
        _check_stack(f"{caller}: {name}", box, score, boxes, logits)
    if encoder_first and len(boxes) < 2:
        raise ShapeError(
            f"{caller}: boxes: expected at least 2 layers, the encoder's and a decoder's, got {len(boxes)}; "
            "say encoder_first=False for decoder layers only"
        )
    for name, part in (attribute_logits or {}).items():
        check_kind(f"{caller}: attribute_logits[{name!r}]", part, logits)
        wanted = (*(logits.shape[:3] if part.ndim == 4 else logits.shape[1:3]), None)
        words = "(L, B, Q, C_name), or (B, Q, C_name) of the output layer"
        check_shape(f"{caller}: attribute_logits[{name!r}]", part, wanted, words)

    roles = [("encoder", 0)] if encoder_first else []
    roles += [("decoder", number) for number in range(len(boxes) - len(roles))]
    stacked = {name: part for name, part in (attribute_logits or {}).items() if part.ndim == 4}
    layers = [
        Predictions(
            logits[index],
            boxes[index],
            Normalized(),
            role=role,
            layer=number,
            input_size=image_size,
            exclusive=exclusive,
            attribute_logits={name: part[index] for name, part in stacked.items()} or None,
        )
        for index, (role, number) in enumerate(roles)
    ]
    of_final = {name: part[-1] if part.ndim == 4 else part for name, part in (attribute_logits or {}).items()}
    final = replace(layers[-1], attribute_logits=of_final or None)
    if denoising is None:
        return Outputs(final, tuple(layers[:-1]))
    noisy, known = zip(denoising[0], denoising[1], strict=True), denoising[2]
    extra = [
        replace(final, logits=z, box_raw=box, role="denoise", layer=number, known=known, attribute_logits=None)
        for number, (box, z) in enumerate(noisy)
    ]
    return Outputs(final, (*layers[:-1], *extra))


def denoising_pairs(positives: Sequence[Shaped[Tensor, " _"]], targets: Targets) -> Assignment:
    """The pairs of denoising queries from the slots of the positive ones, one list per image.

    The list of an image holds, group by group, the query slot of each of its objects in their order, as the published
    builder keeps it ("dn_pos_idx"): its length is groups times objects.

    Objects are counted on the host: targets on a device cost one sync.

    Raises:
        ShapeError: another number of lists than images, or a list that is no whole number of groups.
    """
    if len(positives) != len(targets.labels):
        raise ShapeError(
            f"denoising_pairs: positives: expected one list for each of {len(targets.labels)} images, "
            f"got {len(positives)}"
        )
    valid, none = targets.valid.cpu(), torch.zeros(0, dtype=torch.int64)
    image, anchor, target = [], [], []
    for index, slots in enumerate(positives):
        objects = valid[index].nonzero()[:, 0]
        groups, rest = divmod(len(slots), max(len(objects), 1))
        if rest or (len(objects) == 0 and len(slots) > 0):
            raise ShapeError(
                f"denoising_pairs: positives[{index}]: expected a multiple of {len(objects)}, the objects of the "
                f"image, got {len(slots)}"
            )
        image.append(torch.full((len(slots),), index, dtype=torch.int64))
        anchor.append(slots.to(device="cpu", dtype=torch.int64))
        target.append(objects.repeat(groups if len(slots) else 0))
    weight = torch.ones(sum(map(len, anchor)), dtype=targets.boxes.dtype)
    pairs = Assignment(
        image=torch.cat([*image, none]),
        anchor=torch.cat([*anchor, none]),
        target=torch.cat([*target, none]),
        valid=weight > 0,
        weight=weight,
        normalizer=weight.sum().clamp(min=1),
    )
    tensors = (getattr(pairs, of.name) for of in fields(pairs) if of.name != "all_valid")
    return Assignment(*(tensor.to(targets.labels.device) for tensor in tensors))


def _check_stack(name: str, boxes: Tensor, logits: Tensor, like: Tensor, classes: Tensor) -> None:
    check_kind(f"{name}boxes", boxes, like)
    check_kind(f"{name}logits", logits, like)
    wanted = (None, like.shape[1] if like.ndim == 4 else None, None, 4)
    check_shape(f"{name}boxes", boxes, wanted, "(layers, B, Q, 4); one layer is boxes[None]")
    width = classes.shape[3] if classes.ndim == 4 else None
    check_shape(
        f"{name}logits", logits, (*boxes.shape[:3], width), "(layers, B, Q, C) with the boxes' first three axes"
    )
    # A look at values only where it is free: not on a device, and not while tracing.
    if type(boxes) is Tensor and boxes.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = (boxes.detach() < 0) | (boxes.detach() > 1)
        if bool(wrong.any()):
            raise ShapeError(
                f"{name}boxes: expected shares of the image, 0 to 1, after the sigmoid, got "
                f"{boxes.detach()[wrong][0].item():g}; divide pixels by the image's width and height, and apply the "
                "sigmoid to raw values"
            )
