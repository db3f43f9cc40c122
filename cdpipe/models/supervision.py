"""UNet++ that, while it learns, says what each of its nodes of the finest level sees: deep supervision.

Source: Zhou et al. 2018, "UNet++" (arxiv.org/abs/1807.10165), section 3.2. In prediction the last node alone is asked.
"""

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn


class SupervisedUnetPlusPlus(smp.UnetPlusPlus):  # type: ignore[misc]
    """The library's UNet++ with a head for every node of the finest level, used in training alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Make it; the arguments are the library's."""
        super().__init__(*args, **options)
        # of the finest level; the last node has the library's own head
        width, others = self.decoder.skip_channels[self.decoder.depth - 1], self.decoder.depth - 1
        if not width or not others:
            raise ValueError(
                "deep_supervision: expected features at every level of the encoder, and three levels or more"
            )
        self.deeper = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(others))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits (N, 1, H, W); in training a list of them, the network's own first."""
        if not self.training:
            logits: Tensor = super().forward(x)
            return logits
        self.check_input_shape(x)
        first, *others = finest_nodes(self.decoder, self.encoder(x)[1:])
        own = self.segmentation_head(self.decoder.blocks[f"x_0_{self.decoder.depth}"](first))
        said = [head(node) for head, node in zip(self.deeper, others, strict=True)]
        return [own, *(nn.functional.interpolate(each, size=x.shape[2:], mode="bilinear") for each in said)]


def finest_nodes(decoder: Any, features: Sequence[Tensor]) -> list[Tensor]:
    """What the nodes of the finest level give, from the one that has seen most to the one that has seen least.

    Args:
        decoder: The library's, whose blocks are run as its own ``forward`` runs them, but for the last.
        features: Of the encoder, from shallow to deep.
    """
    deep = features[::-1]
    nodes: dict[tuple[int, int], Tensor] = {}
    for level in range(decoder.depth):
        for start in range(level, -1, -1):
            below = deep[start] if start == level else nodes[start, level - 1]
            beside = [*(nodes[other, level] for other in range(start + 1, level + 1)), deep[level + 1]]
            nodes[start, level] = decoder.blocks[f"x_{start}_{level}"](below, torch.cat(beside, dim=1))
    return [nodes[start, decoder.depth - 1] for start in range(decoder.depth)]
