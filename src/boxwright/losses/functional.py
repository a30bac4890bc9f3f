# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The boxwright authors
"""Elementwise loss mathematics; nothing here reduces over pairs or anchors."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from boxwright.ops.scores import SATURATED

END_GAP = 0.01  # bins; a distance is clamped this far before the last bin, so that its upper neighbour exists


def bce_with_logits(
    logits: Float[Tensor, "*n"], targets: Float[Tensor, "*n"], pos_weight: float | Float[Tensor, "*#n"] = 1.0
) -> Float[Tensor, "*n"]:
    """Binary cross-entropy of each logit; `pos_weight` (one number, or one for each class) scales the positive half.

    >>> round(bce_with_logits(torch.tensor(0.0), torch.tensor(1.0)).item(), 4)
    0.6931
    """
    positive = functional.softplus(-logits, threshold=SATURATED)
    negative = functional.softplus(logits, threshold=SATURATED)
    return pos_weight * targets * positive + (1 - targets) * negative


def focal(
    logits: Float[Tensor, "*n"],
    targets: Float[Tensor, "*n"],
    gamma: float = 1.5,
    alpha: float = 0.25,
    pos_weight: float | Float[Tensor, "*#n"] = 1.0,
) -> Float[Tensor, "*n"]:
    """Binary cross-entropy times (1 - q)^gamma, q the probability given to the target, balanced by alpha.

    Targets may be soft; alpha of 0 or less switches the balance off. Gradient flows through every factor.

    >>> round(focal(torch.tensor(0.0), torch.tensor(1.0), gamma=2.0).item(), 4)  # 0.25 * 0.5^2 * ln 2
    0.0433

    Source: Focal Loss, Lin et al. 2017, arXiv:1708.02002. Deviation: gamma is 1.5 as the YOLO family trains, not 2.
    """
    missed = targets * torch.sigmoid(-logits) + (1 - targets) * torch.sigmoid(logits)
    values = bce_with_logits(logits, targets, pos_weight) * missed**gamma
    return values * (targets * alpha + (1 - targets) * (1 - alpha)) if alpha > 0 else values


def quality_focal(
    logits: Float[Tensor, "*n"],
    targets: Float[Tensor, "*n"],
    gamma: float = 1.5,
    alpha: float = 0.25,
    pos_weight: float | Float[Tensor, "*#n"] = 1.0,
) -> Float[Tensor, "*n"]:
    """Binary cross-entropy times the distance of probability and soft target to the power gamma, balanced by alpha.

    Alpha of 0 or less switches the balance off, as in the paper. Gradient flows through every factor.

    >>> round(quality_focal(torch.tensor(0.0), torch.tensor(1.0), gamma=2.0, alpha=0.0).item(), 4)  # 0.5^2 * ln 2
    0.1733

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, eq. 4. Deviation: the balance, as in YOLO code.
    """
    values = bce_with_logits(logits, targets, pos_weight) * (targets - torch.sigmoid(logits)).abs() ** gamma
    return values * (targets * alpha + (1 - targets) * (1 - alpha)) if alpha > 0 else values


def blurred_bce(logits: Float[Tensor, "*n"], targets: Float[Tensor, "*n"], alpha: float = 0.05) -> Float[Tensor, "*n"]:
    """Binary cross-entropy, faded out where the probability is far above the target: the label may be missing there.

    >>> round(blurred_bce(torch.tensor(0.0), torch.tensor(1.0)).item(), 4)  # p is below the target: ln 2 as it is
    0.6931

    Source: spec/losses D.6.
    """
    excess = torch.sigmoid(logits) - targets
    return bce_with_logits(logits, targets) * -torch.expm1((excess - 1) / (alpha + 1e-4))


def cross_entropy(
    logits: Float[Tensor, "*n C"], labels: Int64[Tensor, "*n"], smoothing: float = 0.0
) -> Float[Tensor, "*n"]:
    """Cross-entropy of exclusive classes; `smoothing` spreads that share of the target evenly over all of them.

    >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2]), smoothing=0.1).item(), 4)  # ln 4
    1.3863

    Source: label smoothing, Szegedy et al. 2016, arXiv:1512.00567.
    """
    log_p = logits.log_softmax(dim=-1)
    wanted = log_p.gather(-1, labels[..., None])[..., 0]
    return -wanted if smoothing == 0 else -(1 - smoothing) * wanted - smoothing * log_p.mean(dim=-1)


def varifocal(
    logits: Float[Tensor, "*n"],
    quality: Float[Tensor, "*n"],
    positive: Float[Tensor, "*n"] | Bool[Tensor, "*n"],
    alpha: float = 0.75,
    gamma: float = 2.0,
    *,
    detach_weight: bool = False,
    pos_weight: float | Float[Tensor, "*#n"] = 1.0,
) -> Float[Tensor, "*n"]:
    """Binary cross-entropy with the quality, weighted by it where positive and by alpha * p^gamma elsewhere.

    The weight is differentiated unless `detach_weight`, as in the published detection transformers of 2024; the paper
    treats it as a constant.

    >>> round(varifocal(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(0.0)).item(), 4)  # 0.75 * 0.5^2 * ln 2
    0.13

    Source: VarifocalNet, Zhang et al. 2021, arXiv:2008.13367, eq. 2.
    """
    power = torch.sigmoid(logits.detach() if detach_weight else logits) ** gamma
    hard = positive.to(logits.dtype)
    return (alpha * power * (1 - hard) + quality * hard) * bce_with_logits(logits, quality, pos_weight)


def distribution_focal(logits: Float[Tensor, "*n side_bins"], distances: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Cross-entropy with the two bins around each distance (in bins), mean over the four sides.

    >>> round(distribution_focal(torch.zeros(4 * 2), torch.full((4,), 0.5)).item(), 4)
    0.6931

    Source: Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388, eq. 6.
    """
    num_bins = logits.shape[-1] // 4
    distances = distances.clamp(0, num_bins - 1 - END_GAP)
    low = distances.floor()
    share, bins = distances - low, torch.stack((low, low + 1), dim=-1).long()
    log_p = torch.unflatten(logits, -1, (4, num_bins)).log_softmax(dim=-1)
    at_low, at_high = log_p.gather(-1, bins).unbind(dim=-1)
    return -((1 - share) * at_low + share * at_high).mean(dim=-1)
