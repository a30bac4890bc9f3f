# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""What a term says about itself, and what holds for a callable that says nothing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from boxwright.errors import ConfigError, ShapeError
from boxwright.losses.balance import WeightMode
from boxwright.ops.constants import constant
from boxwright.structures import Assignment, Grid, Predictions, Targets

# What a contribution belongs to: a pair (P,), a candidate (B, A), an image (B,); "own": a candidate, and the term
# applies weights of objects and ignore regions itself, as only it knows which pair decides.
Scope = Literal["pair", "candidate", "image", "own"]
# What contributions are divided by: the assignment's normalizer, or a count of the term's own.
Divisor = Literal["assignment", "own"]
ClassWeightVector = tuple[float, ...] | None

T = TypeVar("T")


class Term(Protocol):
    """A loss term: contributions of shape (P,), (B, A) or (B,), weighted and normalised, before gain.

    Callables without these attributes work too: `divides_by` is then "assignment", the scope follows from the shape.
    A term about classes also has `with_class_weights(vector, mode)`, see `ClassWeighted`; one that adapts its level
    balance has `remembers`, see `LevelBalance`.
    """

    scope: ClassVar[Scope]
    divides_by: ClassVar[Divisor]

    def __call__(self, preds: Predictions, targets: Targets, pairs: Assignment) -> Tensor:
        """The contributions."""
        ...


@runtime_checkable  # the tests' run-time checks ask for it
class LevelBalance(Protocol):
    """Weights of pyramid levels that follow the loss: what a criterion remembers for a term."""

    def start_for(self, levels: Sequence[Grid]) -> list[float]:
        """Weights before the first step, finest level first."""
        ...

    def moved(self, weights: Tensor, losses: Tensor, levels: Sequence[Grid]) -> Tensor:
        """Weights for the next step, given each level's loss in this one before its weight."""
        ...

    def moves(self, training: bool) -> bool:
        """Whether a step moves the weights; `training`: it records gradients."""
        ...


class ClassWeighted:
    """Base of terms that take one weight for each class, by the fields `class_weights` and `weight_mode`."""

    __slots__ = ()

    class_weights: ClassWeightVector
    weight_mode: WeightMode

    def with_class_weights(self, vector: tuple[float, ...], mode: WeightMode) -> "ClassWeighted":
        """A copy with these weights; a term that names its own numbers keeps them."""
        return self if self.class_weights is not None else _replaced(self, vector, mode)


def divides_by(term: Any) -> Divisor:
    """What the term's contributions are divided by; "assignment" for callables that do not say."""
    divisor: Divisor = getattr(term, "divides_by", "assignment")
    return divisor


def takes_class_weights(term: Any) -> bool:
    """Whether the term has a place for class weights: the method, or both fields of `ClassWeighted` in a dataclass."""
    if isinstance(term, type):
        return False
    names = {field.name for field in fields(term)} if is_dataclass(term) else set()
    return hasattr(term, "with_class_weights") or {"class_weights", "weight_mode"} <= names


def with_class_weights(term: Any, vector: tuple[float, ...], mode: WeightMode) -> Any:
    """The term with these class weights where it takes them and names none of its own, else as it is."""
    if not takes_class_weights(term):
        return term
    method: Callable[..., Any] | None = getattr(term, "with_class_weights", None)
    if method is not None:
        return method(vector, mode)
    return term if term.class_weights is not None else _replaced(term, vector, mode)


def check_class_weights(name: str, vector: ClassWeightVector) -> None:
    """Raises when a number is negative or not finite.

    Raises:
        ConfigError: naming the term.
    """
    wrong = [value for value in vector or () if not (math.isfinite(value) and value >= 0)]
    if wrong:
        raise ConfigError(f"{name}.class_weights: expected numbers of at least 0, got {wrong[0]}")


def check_slope(name: str, gamma: float) -> None:
    """Raises when the exponent of a focal factor is below 1.

    Raises:
        ConfigError: naming the field, "Term.gamma".
    """
    if not gamma >= 1:
        raise ConfigError(f"{name}: expected at least 1 (below, the slope has no bound), got {gamma}")


def class_weights_like(vector: ClassWeightVector, like: Tensor, name: str = "class_weights") -> Tensor | None:
    """The weights (C,) in the dtype and on the device of logits (..., C).

    Raises:
        ShapeError: there are not as many as classes.
    """
    if vector is None:
        return None
    if len(vector) != like.shape[-1]:
        raise ShapeError(f"{name}: expected {like.shape[-1]} numbers, one for each class, got {len(vector)}")
    return constant(vector, like)


def _replaced(term: T, vector: tuple[float, ...], mode: WeightMode) -> T:
    return replace(term, class_weights=vector, weight_mode=mode)  # type: ignore[type-var]
