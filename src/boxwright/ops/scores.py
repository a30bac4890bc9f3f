# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Raw class outputs to probabilities: the one reading of them, for decoding, drawing and export."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from boxwright.structures import at_least_float32

SATURATED = 40.0  # beyond this softplus(z) equals z to the last bit of float64


def class_probabilities(
    logits: Float[Tensor, "*n C"], exclusive: bool, objectness: Float[Tensor, "*n"] | None = None
) -> Float[Tensor, "*n C"]:
    """Score of every class, in at least float32; with objectness, its sigmoid times the class probability.

    Classes that may occur together: a sigmoid each. Classes that exclude one another: a softmax; where no objectness
    tells background from object, background takes part in it with a logit of 0.

    >>> import torch
    >>> class_probabilities(torch.zeros(2), exclusive=False).tolist()
    [0.5, 0.5]
    >>> [round(p, 4) for p in class_probabilities(torch.zeros(2), exclusive=True).tolist()]
    [0.3333, 0.3333]
    >>> class_probabilities(torch.zeros(2), True, objectness=torch.zeros(())).tolist()
    [0.25, 0.25]
    """
    logits = at_least_float32(logits)
    if objectness is not None:
        scores = logits.softmax(dim=-1) if exclusive else logits.sigmoid()
        return scores * at_least_float32(objectness).sigmoid()[..., None]
    if not exclusive:
        return logits.sigmoid()
    return functional.pad(logits, (0, 1)).softmax(dim=-1)[..., :-1]


def score_limit(
    logits: Float[Tensor, "*n C"], exclusive: bool, objectness: Float[Tensor, "*n"] | None = None
) -> Float[Tensor, "*n"]:
    """What no class of a candidate scores above, from one look at its logits: to skip most candidates cheaply.

    It is the best score itself where classes may occur together.
    """
    if objectness is None:
        # Of exclusive classes: e^z / (1 + sum of e^z) is at most e^z / (1 + e^z).
        return at_least_float32(logits.amax(dim=-1)).sigmoid()
    limit = at_least_float32(objectness).sigmoid()
    return limit if exclusive else limit * at_least_float32(logits.amax(dim=-1)).sigmoid()
