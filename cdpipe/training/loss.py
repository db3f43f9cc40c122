"""The training loss: Dice plus binary cross-entropy, over the pixels that count."""

import torch
from torch import Tensor
from torch.nn import functional

from cdpipe.metrics.classes import CHANGED, IGNORE


def dice_bce(logits: Tensor, label: Tensor, observed: Tensor | None = None, smooth: float = 1.0) -> Tensor:
    """The sum of the Dice loss and the mean binary cross-entropy of a batch.

    Both are taken over all pixels of the batch together. Dice is that of Milletari et al.
    (arxiv.org/abs/1606.04797) with plain instead of squared sums. Pixels that are ignored or not observed
    contribute to neither value nor gradient, even where their logits are NaN; a batch without any other pixel
    gives 0 with zero gradients.

    Args:
        logits: (N, 1, H, W), any floating point type; computed in float32 or wider.
        label: (N, 1, H, W), 0 unchanged, 1 changed, 255 ignore.
        observed: (N, 1, H, W), true or non-zero where both dates were observed; None for everywhere.
        smooth: Added to both parts of the Dice fraction, in pixels; keeps it defined without any change.

    Returns:
        A scalar (), of at least 0, of which Dice is at most 1.

    Raises:
        ValueError: If the shapes differ.
    """
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
    cross_entropy = functional.binary_cross_entropy_with_logits(kept, target, weight, reduction="sum")
    probability = torch.sigmoid(kept) * weight
    overlap = (probability * target).sum()
    dice = 1 - (2 * overlap + smooth) / (probability.sum() + target.sum() + smooth)
    return dice + cross_entropy / weight.sum().clamp(min=1)
