# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""The mask term without a tensor of (pairs, h, w): cropped before the product on a CPU, in tiles on an accelerator."""

from jaxtyping import Float
from torch import Tensor

from boxwright.kernels.mask_sums import mask_sums
from boxwright.losses.terms.mask import PrototypeMasks
from boxwright.structures import Assignment, Predictions, Targets


def prototype_masks(
    term: PrototypeMasks, preds: Predictions, targets: Targets, pairs: Assignment
) -> Float[Tensor, " P"]:
    """Contribution of each pair."""
    maps = term.maps(preds, targets, coefs := preds.coefs_at(pairs))
    sums = mask_sums(coefs, maps.prototypes, maps.truth, maps.crops, pairs.image, pairs.target, pairs.valid)
    return term.mean_over_boxes(sums, maps, preds, pairs)
