# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The semantic term without a tensor of one-hot targets: only the logit of a pixel's own class knows a target."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from boxwright.losses.terms.semantic import SMOOTH, SemanticMap
from boxwright.ops.scores import SATURATED
from boxwright.structures import Assignment, Predictions, Targets


def semantic_map(term: SemanticMap, preds: Predictions, targets: Targets, pairs: Assignment) -> Float[Tensor, " B"]:
    """Contribution of each image."""
    z, covered, label = term.maps(preds, targets)
    at_label = z.gather(1, label[:, None])[:, 0]
    own = torch.where(covered, at_label, torch.zeros_like(at_label))
    entropy = functional.softplus(z, threshold=SATURATED).mean(dim=(1, 2, 3)) - own.mean(dim=(1, 2)) / z.shape[1]
    p, here = torch.sigmoid(z), covered.to(z.dtype)
    place = label.flatten(1)
    both = torch.sigmoid(at_label) * here
    inter, truth = (z.new_zeros(z.shape[:2]).scatter_add(1, place, part.flatten(1)) for part in (both, here))
    dice = 1 - (2 * inter + SMOOTH) / (p.sum(dim=(2, 3)) + truth + SMOOTH)
    return term.mean_over_images(0.5 * entropy + 0.5 * dice.mean(dim=1), pairs)
