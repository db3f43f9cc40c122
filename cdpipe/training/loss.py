"""Training losses by name, over the pixels that count: the sum of some terms, each with a weight.

The terms are our own few lines: those of segmentation-models-pytorch take what is ignored into their sums (Jaccard,
Tversky), or let a NaN there through to the gradient (all).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cdpipe.config.losses import DICE_BCE, CrossEntropy, Focal, Losses, Tversky
from cdpipe.metrics.classes import CHANGED, IGNORE


@dataclass(frozen=True, slots=True)
class _Pixels:
    """A batch: logits, probabilities and targets, all 0 where ``weight``, which is 0 or 1, is 0; (N, 1, H, W)."""

    logits: Tensor
    probability: Tensor
    target: Tensor
    weight: Tensor
    smooth: float

    @property
    def count(self) -> Tensor:
        """Pixels that count, at least 1."""
        return self.weight.sum().clamp(min=1)


def batch_loss(losses: Losses, logits: Tensor, label: Tensor, observed: Tensor | None = None) -> Tensor:
    """The loss of a batch, all of whose pixels are taken together.

    Pixels that are ignored or not observed contribute to neither value nor gradient, even where their logits are NaN; a
    batch without any other pixel gives 0 with zero gradients.

    Args:
        losses: The terms.
        logits: (N, 1, H, W), any floating point type; computed in float32 or wider.
        label: (N, 1, H, W), 0 unchanged, 1 changed, 255 ignore.
        observed: (N, 1, H, W), true or non-zero where both dates were observed; None for everywhere.

    Returns:
        A scalar (), of at least 0.

    Raises:
        ValueError: If the shapes differ.
    """
    return _sum_terms(losses, _pixels(logits, label, observed, smooth=1.0))


def dice_bce(logits: Tensor, label: Tensor, observed: Tensor | None = None, smooth: float = 1.0) -> Tensor:
    """The sum of the Dice loss and the mean binary cross-entropy, see :func:`batch_loss`.

    Args:
        logits: (N, 1, H, W).
        label: (N, 1, H, W).
        observed: (N, 1, H, W).
        smooth: Added to both parts of the Dice fraction, in pixels; keeps it defined without any change.
    """
    return _sum_terms(DICE_BCE, _pixels(logits, label, observed, smooth))


def _pixels(logits: Tensor, label: Tensor, observed: Tensor | None, smooth: float) -> _Pixels:
    shapes = {tuple(array.shape) for array in (logits, label, observed) if array is not None}
    if len(shapes) > 1:
        raise ValueError(f"expected logits, label and observed of one shape, got {sorted(shapes)}")
    used = label != IGNORE
    if observed is not None:
        used = used & (observed != 0)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Chosen before anything is computed: a NaN multiplied by a zero weight would still be NaN.
    kept = torch.where(used, wide, 0.0)
    weight = used.to(wide.dtype)
    target = (label == CHANGED).to(wide.dtype) * weight
    return _Pixels(kept, torch.sigmoid(kept) * weight, target, weight, smooth)


def _sum_terms(losses: Losses, pixels: _Pixels) -> Tensor:
    first, *others = (term.weight * _TERMS[name](pixels, term) for name, term in losses.terms.items())
    for term in others:
        first = first + term
    return first


def _dice(pixels: _Pixels, _: Any) -> Tensor:
    """Of Milletari et al. (arxiv.org/abs/1606.04797), with plain instead of squared sums."""
    overlap = (pixels.probability * pixels.target).sum()
    total = pixels.probability.sum() + pixels.target.sum()
    return 1 - (2 * overlap + pixels.smooth) / (total + pixels.smooth)


def _bce(pixels: _Pixels, term: CrossEntropy) -> Tensor:
    positive = None if term.positive_weight == 1 else pixels.weight.new_tensor(term.positive_weight)
    total = functional.binary_cross_entropy_with_logits(
        pixels.logits, pixels.target, pixels.weight, reduction="sum", pos_weight=positive
    )
    return total / pixels.count


def _soft_jaccard(pixels: _Pixels, _: Any) -> Tensor:
    """Of Rahman and Wang (2016, doi.org/10.1007/978-3-319-50835-1_22)."""
    overlap = (pixels.probability * pixels.target).sum()
    union = pixels.probability.sum() + pixels.target.sum() - overlap
    return 1 - (overlap + pixels.smooth) / (union + pixels.smooth)


def _tversky(pixels: _Pixels, term: Tversky) -> Tensor:
    """Of Salehi et al. (arxiv.org/abs/1706.05721)."""
    hits = (pixels.probability * pixels.target).sum()
    false_alarms, misses = pixels.probability.sum() - hits, pixels.target.sum() - hits
    return 1 - (hits + pixels.smooth) / (hits + term.alpha * false_alarms + term.beta * misses + pixels.smooth)


def _focal(pixels: _Pixels, term: Focal) -> Tensor:
    """Of Lin et al. (arxiv.org/abs/1708.02002), the mean over pixels."""
    entropy = functional.binary_cross_entropy_with_logits(pixels.logits, pixels.target, reduction="none")
    wrong = pixels.probability + pixels.target - 2 * pixels.probability * pixels.target  # 1 - probability of the truth
    share = pixels.weight
    if term.alpha is not None:
        share = share * (term.alpha * pixels.target + (1 - term.alpha) * (1 - pixels.target))
    return (share * wrong**term.gamma * entropy).sum() / pixels.count


_TERMS: Mapping[str, Callable[[_Pixels, Any], Tensor]] = MappingProxyType(
    {"dice": _dice, "bce": _bce, "soft_jaccard": _soft_jaccard, "tversky": _tversky, "focal": _focal}
)
