"""Plain encoders whose first level has the full resolution, for changes of a few pixels; and a decoder of their kind.

An encoder that halves the size before its first features, as all of the library's do, has lost such changes by then.
A level is a residual block of two 3 x 3 convolutions, and half the size and twice the width of the one above it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from segmentation_models_pytorch.encoders._base import EncoderMixin
from torch import Tensor, nn

DEPTH = 4  # levels unless the option `encoder_depth` says otherwise
DEPTHS = range(2, 7)
DROPPED = 0.1  # share of a block's channels

# Width of the first level by the name of the encoder.
WIDTHS: Mapping[str, int] = MappingProxyType({f"plain{width}": width for width in (8, 16, 24, 32, 48)})


class PlainBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, a tenth of the channels dropped between them, and a 1 x 1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout2d(DROPPED)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H, W) for ``x`` (N, inputs, H, W)."""
        first = self.dropout(torch.relu(self.bn1(self.conv1(x))))
        return torch.relu(self.bn2(self.conv2(first)) + self.shortcut(x))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PlainEncoder(nn.Module, EncoderMixin):  # type: ignore[misc]
    """Levels of :class:`PlainBlock` at 1/1, 1/2, 1/4, ... of the size, as the library's decoders take an encoder."""

    def __init__(self, width: int, depth: int = DEPTH, **_: Any) -> None:
        """Make ``depth`` levels, the first of ``width`` channels; it takes three until ``set_in_channels``."""
        super().__init__()
        self._depth, self._in_channels = depth, 3
        self._out_channels = [3, *level_widths(width, depth)]
        widths = zip(self._out_channels, self._out_channels[1:], strict=False)
        self.levels = nn.ModuleList(PlainBlock(inputs, outputs) for inputs, outputs in widths)

    @property
    def output_stride(self) -> int:
        """What the sides of an image must be a multiple of."""
        return int(2 ** (self._depth - 1))

    def set_in_channels(self, in_channels: int, pretrained: bool = False) -> None:  # noqa: ARG002
        """Take images of so many channels from now on."""
        if in_channels != self._in_channels:
            self._in_channels = self._out_channels[0] = in_channels
            self.levels[0] = PlainBlock(in_channels, self._out_channels[1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return ``x`` (N, C, H, W) itself, which decoders leave aside, and the features of every level."""
        features = [x]
        for number, level in enumerate(self.levels):
            features.append(level(nn.functional.max_pool2d(features[-1], 2) if number else x))
        return features


def level_widths(width: int, depth: int = DEPTH) -> list[int]:
    """Channels of each level of an encoder, from full resolution down.

    Raises:
        ValueError: For a depth that makes no encoder.
    """
    if depth not in DEPTHS:
        raise ValueError(f"encoder_depth: expected {DEPTHS[0]} to {DEPTHS[-1]} levels, got {depth}")
    return [width * 2**level for level in range(depth)]


def library_entries() -> dict[str, dict[str, Any]]:
    """The encoders as entries of the library's dictionary of them."""
    return {
        name: {"encoder": PlainEncoder, "pretrained_settings": {}, "params": {"width": width}}
        for name, width in WIDTHS.items()
    }


def check_channels(decoder_channels: Sequence[int], steps: int) -> None:
    """Refuse another number of channels than a decoder has steps.

    Raises:
        ValueError: If that is so.
    """
    if len(decoder_channels) != steps:
        raise ValueError(
            f"decoder_channels: expected {steps}, from deep to shallow, got {', '.join(map(str, decoder_channels))}"
        )


class Same(nn.Module):
    """Gives back the first of what it is given: in the place of a decoder's last block, which would only enlarge."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        """Return ``x``."""
        return x


def drop_last_block(decoder: nn.Module) -> None:
    """Have the library's decoder of U-Net or UNet++ end at its last features, which have the full size already."""
    blocks = decoder.get_submodule("blocks")
    last, _ = list(blocks.named_children())[-1]
    setattr(blocks, last, Same())


class PlainDecoder(nn.Module):
    """Doubles the deepest features again and again, and merges each time with those of the level that it reaches."""

    def __init__(self, encoder_channels: Sequence[int], decoder_channels: Sequence[int], *, full: bool) -> None:
        """Make a step for each level but the deepest.

        Args:
            encoder_channels: Of the features, from shallow to deep.
            decoder_channels: Of the steps, from the one above the deepest level up to the full size.
            full: Whether the shallowest features have the full size; if not, a last step without features reaches it.
        """
        super().__init__()
        skips = [*reversed(encoder_channels[:-1]), *([] if full else [0])]
        check_channels(decoder_channels, len(skips))
        inputs = [encoder_channels[-1], *decoder_channels[:-1]]
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(own, width, 2, stride=2) for own, width in zip(inputs, decoder_channels, strict=True)
        )
        self.merge = nn.ModuleList(
            PlainBlock(width + skip, width) for width, skip in zip(decoder_channels, skips, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (N, last decoder channels, H, W) for features from shallow to deep."""
        *skips, y = features
        for enlarge, merge in zip(self.enlarge, self.merge, strict=True):
            y = enlarge(y)
            y = merge(torch.cat([y, skips.pop()], dim=1) if skips else y)
        return y
