# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Room card: kernels, speed behind one door: what a training step runs in place of the definitions.

Lives here: faster forms of what `ops` and `losses` define, under the same names and with the same arguments:
hand-written gradients, memory order, cuts into pieces that fit a cache. The faster form of
`boxwright.losses.assign.task_aligned.TaskAligned` is the function `task_aligned` (its kind) of
`kernels/assign/task_aligned.py`, called as `task_aligned(assigner, preds, targets)`; `fast` finds it.
May import: ops, structures, errors; `kernels/assign` and `kernels/terms` also losses, whose meaning they keep. To know
what is computed, read `ops` and `losses` and skip this room.
To add one: the function in the file of the definition's name, and a test that holds choice, value and gradient to the
definition.
Never here: a meaning that is written nowhere else, a gain, a model, a file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

DEFINED_IN, FASTER_IN = "boxwright.losses.", "boxwright.kernels."

_found: dict[tuple[type, str | None], Callable[..., Any] | None] = {}
_definitions_wanted = 0  # nested `definitions()` that are open


def fast(form: Any, step: str | None = None) -> Any:
    """The faster form of a built-in term or assigner, for the same arguments; `form` itself where there is none.

    With `step` that of a method, `prepare` for example; the method of `form`, or None, where there is none.
    Inside `definitions()` it always is `form` itself, and so it is for callables that are not of this package.
    """
    kernel = None if _definitions_wanted else kernel_of(form, step)
    if kernel is not None:
        return partial(kernel, form)
    return form if step is None else getattr(form, step, None)


@contextmanager
def definitions() -> Iterator[None]:
    """Inside, every loss is computed by its definition: as its paper writes it, dense and slow.

    It holds for all threads of the process, whose numbers stay the same up to rounding.
    """
    global _definitions_wanted
    _definitions_wanted += 1
    try:
        yield
    finally:
        _definitions_wanted -= 1


def by_definition() -> bool:
    """Whether a `definitions()` is open."""
    return _definitions_wanted > 0


def kernel_of(form: Any, step: str | None = None) -> Callable[..., Any] | None:
    """The function that gives what calling `form` gives, but faster, with `form` as its first argument.

    None where there is none. Found once for each class: a tracer of a step cannot follow an import, so whoever builds
    a rule asks before the step.
    """
    key = (type(form), step)
    if key not in _found:
        _found[key] = _kernel_named(type(form).__module__, step or str(getattr(form, "kind", "")))
    return _found[key]


def _kernel_named(module: str, name: str) -> Callable[..., Any] | None:
    home = FASTER_IN + module.removeprefix(DEFINED_IN)
    if not module.startswith(DEFINED_IN) or not _exists(home):
        return None
    kernel: Callable[..., Any] | None = getattr(import_module(home), name, None)
    return kernel


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False
