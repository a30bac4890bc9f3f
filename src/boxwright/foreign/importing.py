# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Checkpoints of other code bases as weights of ours: the fitting recipe, every tensor, a report of each key."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boxwright.config import to_yaml
from boxwright.engine.recipe import Recipe
from boxwright.errors import CheckpointError, ConfigError
from boxwright.foreign import Checkpoint, Keys, Origin, read_checkpoint, recognise
from boxwright.models.backbones.csp import CSPConfig
from boxwright.models.classifier import ClassifierConfig
from boxwright.models.detector import DetectorConfig
from boxwright.models.heads.anchor_based import AnchorBasedConfig
from boxwright.models.necks.pan import PANConfig
from boxwright.models.network import Network
from boxwright.models.weights import load_weights, save_weights
from boxwright.presets import PRESETS
from boxwright.presets import preset as recipe_of
from boxwright.vocabulary import TASKS, KeypointSpec, TaskName

COUNTER = "num_batches_tracked"  # of a batch norm; old files have none, inference does not read it
# What checkpoints carry beside the network's own tensors, and why it is not needed.
KNOWN_LEFT = {
    "anchor_grid": "the anchors once more, in pixels",
    "anchors": "read into the recipe",
    "stride": "known from the network",
    "strides": "known from the network",
    COUNTER: "a counter",
}
_KEYPOINT_NUMBERS = {51: (17, 3)}  # COCO's persons


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a checkpoint; keys are those of the file, unless they say otherwise."""

    path: Path  # the weights written
    source: Path
    recipe: Recipe
    names: tuple[str, ...]
    place: str  # the part of the file: "ema", "model", ...
    used: tuple[tuple[str, str], ...]  # key of the file, our key
    left: tuple[tuple[str, str], ...]  # key of the file, why
    filled: tuple[tuple[str, str], ...]  # OUR key, what it got
    notes: tuple[str, ...] = ()  # what the user should know
    part: str = ""  # "backbone" where the file holds no detector

    @property
    def tensors(self) -> int:
        """Tensors of the file."""
        return len(self.used) + len(self.left)


@dataclass(frozen=True, slots=True)
class _FittedRecipe:
    recipe: Recipe
    pairs: Mapping[str, str]  # our key -> key of the file, of equal shape
    filled: Mapping[str, Tensor]
    wrong: tuple[str, ...]  # a line for every tensor that is missing or has another shape


def import_checkpoint(
    source: Path,
    out: Path,
    *,
    names: Sequence[str] | None = None,
    preset: str | None = None,
    keypoints: tuple[int, int] | None = None,
    exclusive: bool = False,
    task: TaskName | None = None,
) -> Imported:
    """Writes `source` as boxwright weights to `out` and says what became of every key.

    Args:
        source: `.pt`, `.pth` or `.safetensors`; nothing in it is run.
        out: the weights file to write.
        names: of the classes; without it those of the file, else "class0", "class1", ...
        preset: take this one; without it the one whose tensors have the file's shapes.
        keypoints: (count, numbers of each) of a pose model, where the file does not say.
        exclusive: the classes exclude one another; checkpoints do not say.
        task: what the file is expected to do; None: whatever it does.

    Raises:
        CheckpointError: the file is damaged, refused, not known, for another task, has another number of classes than
            `names`, or a tensor does not fit. Nothing is written then.
        ConfigError: an unknown preset.
    """
    checkpoint = read_checkpoint(source)
    origin, keys = recognise(checkpoint)
    _check(checkpoint, origin, names, task)
    candidates = _candidates(origin, list(PRESETS), preset, source)
    options: dict[str, Any] = {"exclusive": exclusive}
    if origin.part != "backbone":
        options |= {"num_classes": origin.num_classes, "keypoints": _keypoints(checkpoint, origin, keypoints)}
    able = [name for name in candidates if origin.part or recipe_of(name).data.task == origin.task]
    fit = _best_fit(checkpoint, origin, keys, [recipe_of(name, **options) for name in able])
    known = _names(checkpoint, origin, names, fit.recipe.num_classes)
    return _written(checkpoint, origin, fit, known, out)


def _check(checkpoint: Checkpoint, origin: Origin, names: Sequence[str] | None, task: TaskName | None) -> None:
    if task is not None and origin.task != task:
        raise CheckpointError(f"{checkpoint.path}: expected weights for {task}, got weights for {origin.task}")
    if names is not None and not origin.part and len(names) != origin.num_classes:
        raise CheckpointError(
            f"{checkpoint.path}: it has {origin.num_classes} classes, got {len(names)} names; to train on other "
            "classes import it as it is, then start from it: rows of classes of the same name are kept"
        )


def _candidates(origin: Origin, presets: Sequence[str], preset: str | None, source: Path) -> list[str]:
    if preset is not None:
        return [preset]
    if origin.part == "backbone":
        found = [name for name in presets if origin.family in name]
    else:
        found = [name for name in presets if re.match(origin.presets, name)]
    if not found:
        raise CheckpointError(
            f"{source}: looks like {origin.family} for {origin.task}, of which there is no preset; known are "
            f"{', '.join(presets)}"
        )
    return found


def _best_fit(checkpoint: Checkpoint, origin: Origin, keys: Keys, recipes: Sequence[Recipe]) -> _FittedRecipe:
    """The recipe whose network has exactly the file's tensors; sizes come from the tensors where no recipe has them."""
    best: _FittedRecipe | None = None
    for recipe in recipes:
        fit = _fit(checkpoint, origin, keys, _with_anchors(recipe, origin))
        if not fit.wrong:
            return fit
        if best is None or len(fit.pairs) > len(best.pairs):
            best = fit
    if best is None:
        raise CheckpointError(f"{checkpoint.path}: {origin.family} has no preset for {origin.task}")
    resized = _resized(checkpoint, keys, origin, best)
    if resized is not None and not resized.wrong:
        return resized
    shown = "; ".join(best.wrong[:5])
    more = f"; and {len(best.wrong) - 5} more" if len(best.wrong) > 5 else ""
    raise CheckpointError(
        f"{checkpoint.path}: closest to {best.recipe.name}, but {len(best.wrong)} of "
        f"{len(best.wrong) + len(best.pairs)} tensors do not fit: {shown}{more}\nnothing was written"
    )


def _fit(checkpoint: Checkpoint, origin: Origin, keys: Keys, recipe: Recipe) -> _FittedRecipe:
    network = _outline(recipe)
    own, mapped = network.state_dict(), keys(network, checkpoint, origin)
    pairs, filled, wrong = {}, {}, []
    for key, value in own.items():
        if (origin.part and not key.startswith(f"{origin.part}.")) or (
            origin.gaps and mapped.get(key) not in checkpoint.tensors
        ):
            continue
        theirs = mapped.get(key, "")
        found = checkpoint.tensors.get(theirs)
        if found is not None and _same_shape(found, value):
            pairs[key] = theirs
        elif (made := _made(key, value, mapped, checkpoint.tensors)) is not None:
            filled[key] = made
        else:
            got = "is not in the file" if found is None else f"is {_sides(found)} in the file, not {_sides(value)}"
            wrong.append(f"{theirs or key} {got}")
    return _FittedRecipe(recipe, pairs, filled, tuple(wrong))


def _same_shape(found: Tensor, own: Tensor) -> bool:
    """Equal, or a 1x1 convolution where ours is a linear layer."""
    plain = found.shape[:2] if found.shape[2:] == (1, 1) and own.ndim == 2 else found.shape
    return plain == own.shape


def _made(key: str, own: Tensor, mapped: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Tensor | None:
    """What a key gets that the file lacks: counters, frozen bins, and batch norms of a folded file (their identity)."""
    kind = key.rpartition(".")[2]
    if kind == COUNTER:
        return torch.zeros((), dtype=torch.int64)
    if kind == "bins":
        return torch.arange(own.numel(), dtype=torch.float32).view(own.shape)
    layer, _, _ = mapped.get(key, "").rpartition(".bn.")
    bias = tensors.get(f"{layer}.conv.bias")
    if not layer or f"{layer}.bn.weight" in tensors or bias is None or bias.shape != own.shape:
        return None
    return {"weight": torch.ones_like(bias), "bias": bias, "running_mean": torch.zeros_like(bias)}.get(
        kind, torch.ones_like(bias) - 1e-3
    )


def _outline(recipe: Recipe) -> Network:
    """The network without memory for its tensors."""
    with torch.device("meta"):
        return recipe.model.build()


def _with_anchors(recipe: Recipe, origin: Origin) -> Recipe:
    """The recipe with the anchors of the file."""
    model = recipe.model
    if not origin.anchors or isinstance(model, ClassifierConfig) or not isinstance(model.head, AnchorBasedConfig):
        return recipe
    strides = _outline(recipe).strides
    if len(strides) != len(origin.anchors):
        return recipe
    anchors = tuple(
        tuple((round(w * stride, 4), round(h * stride, 4)) for w, h in level)
        for level, stride in zip(origin.anchors, strides, strict=True)
    )
    return replace(recipe, model=replace(model, head=replace(model.head, anchors=anchors)))


def _resized(checkpoint: Checkpoint, keys: Keys, origin: Origin, fit: _FittedRecipe) -> _FittedRecipe | None:
    """The recipe with the widths that the file's tensors have: some trainings left a layer unscaled.

    Source: spec/architectures 1, the quirk of a layer whose base width equals the number of classes.
    """
    model = fit.recipe.model
    if isinstance(model, ClassifierConfig) or not isinstance(model.backbone, CSPConfig):
        return None
    if not isinstance(model.neck, PANConfig) or model.neck.lateral:
        return None
    network = _outline(fit.recipe)
    mapped = keys(network, checkpoint, origin)
    layers = {id(layer): path for path, layer in network.named_modules()}

    def width(index: int) -> int:
        path = layers[id(network.layers[index])]
        for last in ("exit.conv.weight", "conv.weight"):
            found = checkpoint.tensors.get(mapped.get(f"{path}.{last}", ""))
            if found is not None:
                return int(found.shape[0])
        return 0

    backbone = tuple(width(2 * i) for i in range(len(model.backbone.widths)))
    first, levels = len(network.backbone.layers), len(model.neck.widths)  # type: ignore[union-attr, arg-type]
    top_down = 3 * (levels - 1)
    neck = tuple(width(first + top_down + 3 * level - 1) for level in range(levels))
    if not all((*backbone, *neck)):
        return None
    resized = DetectorConfig(
        backbone=replace(model.backbone, widths=backbone), neck=replace(model.neck, widths=neck), head=model.head
    )
    return _fit(checkpoint, origin, keys, replace(fit.recipe, model=resized))


def _keypoints(checkpoint: Checkpoint, origin: Origin, given: tuple[int, int] | None) -> KeypointSpec | None:
    if not TASKS[origin.task].keypoints:
        return None
    numbers = origin.keypoint_numbers
    said = checkpoint.fact("kpt_shape")
    if given is None and isinstance(said, list | tuple) and len(said) == 2:
        given = (int(said[0]), int(said[1]))
    shape: tuple[int, int] | None = given or _KEYPOINT_NUMBERS.get(numbers) or _only_shape(numbers)
    if shape is None or shape[0] * shape[1] != numbers or shape[1] not in (2, 3):
        got = "nothing that says which" if shape is None else f"{shape[0]}x{shape[1]}"
        raise CheckpointError(
            f"{checkpoint.path}: an object has {numbers} keypoint numbers; expected a count times 2 (x, y) or 3 (x, y, "
            f"visibility), got {got}; give --keypoints"
        )
    return None if shape == (17, 3) else KeypointSpec(count=shape[0], dims=shape[1])  # type: ignore[arg-type]


def _only_shape(numbers: int) -> tuple[int, int] | None:
    shapes = [(numbers // dims, dims) for dims in (2, 3) if numbers % dims == 0]
    return shapes[0] if len(shapes) == 1 else None


def _names(checkpoint: Checkpoint, origin: Origin, names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is not None and len(names) == count:
        return tuple(names)
    found = None if origin.part else checkpoint.names
    if found is not None and len(found) == count:
        return found
    return tuple(f"class{index}" for index in range(count))


def _written(checkpoint: Checkpoint, origin: Origin, fit: _FittedRecipe, names: tuple[str, ...], out: Path) -> Imported:
    if out.resolve() == checkpoint.path.resolve():
        raise ConfigError(f"{out}: the file to write is the checkpoint itself; give another name with --out")
    network = fit.recipe.model.build()
    own = network.state_dict()
    state = {key: checkpoint.tensors[theirs].reshape(own[key].shape) for key, theirs in fit.pairs.items()}
    state |= dict(fit.filled)
    adjusted = _adjust_eps(network, state, fit.pairs, checkpoint, origin)
    metadata = {
        "recipe": to_yaml(fit.recipe),
        "names": json.dumps(list(names)),
        "class_ids": json.dumps(list(range(len(names)))),
        "epoch": "0",
        "metrics": "{}",
        "imported_from": checkpoint.path.name,
    }
    if origin.part:
        metadata["part"] = origin.part
    save_weights(out, {key: state[key] for key in own if key in state}, metadata)
    if not origin.part:
        load_weights(network, out, strict=True)
    used = {theirs: ours for ours, theirs in fit.pairs.items()}
    left = [(key, _why(key, origin)) for key in checkpoint.tensors if key not in used]
    return Imported(
        path=out,
        source=checkpoint.path,
        recipe=fit.recipe,
        names=names,
        place=checkpoint.place,
        used=tuple(used.items()),
        left=tuple(left),
        filled=tuple((key, _what(key)) for key in fit.filled),
        notes=_notes(origin, names, fit, adjusted),
        part=origin.part,
    )


def _why(key: str, origin: Origin) -> str:
    kind = key.rpartition(".")[2]
    if kind in KNOWN_LEFT:
        return KNOWN_LEFT[kind]
    return "not part of the backbone" if origin.part else "the network has no such tensor"


def _what(key: str) -> str:
    kind = key.rpartition(".")[2]
    return {COUNTER: "0", "bins": "0, 1, 2, ..."}.get(kind, "no effect: this batch norm is folded in the file")


def _adjust_eps(
    network: Network, state: dict[str, Tensor], pairs: Mapping[str, str], checkpoint: Checkpoint, origin: Origin
) -> int:
    """Where a batch norm was trained with another epsilon than ours, the difference moves into its variance.

    Their sum, and with it every output, stays as it was. Returns how many there were.
    """
    count = 0
    for key, theirs in pairs.items():
        place, _, kind = key.rpartition(".")
        if kind == "running_var":
            own: float = network.get_submodule(place).eps  # type: ignore[assignment]
            said = (checkpoint.eps or {}).get(theirs.rpartition(".")[0], origin.eps)
            if said != own:
                state[key] = (state[key].double() + said - own).float()
                count += 1
    return count


def _notes(origin: Origin, names: tuple[str, ...], fit: _FittedRecipe, adjusted: int) -> tuple[str, ...]:
    notes = []
    if origin.part:
        whole = "part of the" if origin.gaps else "the"
        notes.append(f"only {whole} {origin.part} of {fit.recipe.name}; start a training from it with --weights")
    elif names == tuple(f"class{index}" for index in range(len(names))):
        notes.append("the file does not name its classes; give --names to do so")
    if any(_what(key).startswith("no effect") for key in fit.filled):
        notes.append("the file is folded: its batch norms are gone, so training on from it starts them anew")
    if adjusted:
        notes.append(f"{adjusted} batch norms have another epsilon than ours; their variances make up for it")
    return tuple(notes)


def _sides(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"
