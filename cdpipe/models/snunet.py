"""SNUNet-ECAM: a densely connected Siamese U-Net whose four outputs are weighed by channel attention.

Sources: Fang et al. 2021, "SNUNet-CD" (doi 10.1109/LGRS.2021.3056416); github.com/likyoo/Siam-NestedUNet, whose
names of parameters are kept, so that its weights load as they are.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from cdpipe.models.siamese import check_stacked
from cdpipe.store.normalisation import RGB

DEPTH = 4  # levels below the first


class ConvBlock(nn.Module):
    """Two convolutions, the first of which is also added to the second's normalised result."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make both convolutions and their normalisations."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H, W) for ``x`` (N, inputs, H, W)."""
        first = self.conv1(x)
        second = self.bn2(self.conv2(torch.relu(self.bn1(first))))
        return torch.relu(second + first)


class Enlarge(nn.Module):
    """Transposed convolution to twice the size."""

    def __init__(self, channels: int) -> None:
        """Make the convolution; it keeps the number of channels."""
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, 2H, 2W) for ``x`` (N, C, H, W)."""
        enlarged: Tensor = self.up(x)
        return enlarged


class ChannelAttention(nn.Module):
    """A gate for each channel, from its mean.

    The paper takes the maximum as well (after Woo et al. 2018, arxiv.org/abs/1807.06521), but the published code pools
    by the average under both names, so that the published weights have only ever seen the mean, twice.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        """Make the two layers that the mean passes."""
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return gates (N, C, 1, 1) for ``x`` (N, C, H, W)."""
        squeezed = self.fc2(torch.relu(self.fc1(nn.functional.adaptive_avg_pool2d(x, 1))))
        return torch.sigmoid(squeezed + squeezed)


class SNUNet(nn.Module):
    """Nested U-Net over both dates' features, encoded by the same weights.

    ``convL_K`` is the K-th block of level L; K = 0 encodes, the others merge all earlier blocks of their level
    (both dates' for K = 0) with the enlarged one below. As published, what rises from the encoder is the second
    date's alone.
    """

    def __init__(self, channels: int = 32, bands: Sequence[str] = RGB) -> None:
        """Make all blocks; level L has ``channels * 2**L`` channels."""
        super().__init__()
        self._bands = len(bands)
        width = [channels * 2**level for level in range(DEPTH + 1)]
        for level in range(DEPTH + 1):
            self.add_module(f"conv{level}_0", ConvBlock(width[level - 1] if level else self._bands, width[level]))
            for step in range(1, DEPTH + 1 - level):
                merged = (step + 1) * width[level] + width[level + 1]
                self.add_module(f"conv{level}_{step}", ConvBlock(merged, width[level]))
        for level in range(1, DEPTH + 1):
            for step in range(DEPTH + 1 - level):
                self.add_module(f"Up{level}_{step}", Enlarge(width[level]))
        self.ca = ChannelAttention(DEPTH * channels, reduction=16)
        self.ca1 = ChannelAttention(channels, reduction=4)
        self.conv_final = nn.Conv2d(DEPTH * channels, 1, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1, H, W) for (N, 2 bands, H, W): the bands of the first date, then of the second."""
        if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            check_stacked(x, self._bands, 2**DEPTH)
        before, after = self._encode(x[:, : self._bands]), self._encode(x[:, self._bands :])
        rising, levels = after, [[first, second] for first, second in zip(before, after, strict=True)]
        for step in range(1, DEPTH + 1):
            merged = []
            for level in range(DEPTH + 1 - step):
                enlarged = self._block(f"Up{level + 1}_{step - 1}", rising[level + 1])
                merged.append(self._block(f"conv{level}_{step}", torch.cat([*levels[level], enlarged], dim=1)))
                levels[level].append(merged[-1])
            rising = merged
        outputs = levels[0][2:]
        together = torch.cat(outputs, dim=1)
        within = self.ca1(torch.stack(outputs).sum(dim=0))
        logits: Tensor = self.conv_final(self.ca(together) * (together + within.repeat(1, DEPTH, 1, 1)))
        return logits

    def _encode(self, x: Tensor) -> list[Tensor]:
        features = [self._block("conv0_0", x)]
        for level in range(1, DEPTH + 1):
            features.append(self._block(f"conv{level}_0", nn.functional.max_pool2d(features[-1], 2)))
        return features

    def _block(self, name: str, x: Tensor) -> Tensor:
        return cast("Tensor", self.get_submodule(name)(x))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
