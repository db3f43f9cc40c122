"""The Siamese U-Net of the second-place xView2 solution, on encoders of segmentation-models-pytorch.

Sources: github.com/selimsef/xview2_solution (network), arxiv.org/abs/1808.08127 (squeeze and excitation).
"""

from collections.abc import Callable, Sequence
from functools import partial

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from cdpipe.models.encoders import with_encoder
from cdpipe.store.normalisation import RGB

SIZE_DIVISOR = 32

Features = Callable[[nn.Module, Tensor], list[Tensor]]


class ConcatScse(nn.Module):
    """Spatial and channel squeeze and excitation whose two results are concatenated, not added."""

    def __init__(self, channels: int) -> None:
        """Make the gates; the output has ``2 * channels`` channels."""
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 2, 1)
        self.fc2 = nn.Conv2d(channels // 2, channels, 1)
        self.spatial_se = nn.Sequential(nn.Conv2d(channels, 1, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, H, W) gated by channel, then by pixel: (N, 2C, H, W)."""
        squeezed = torch.nn.functional.adaptive_avg_pool2d(x, 1)
        channel_gate = torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))
        return torch.cat([x * channel_gate, x * self.spatial_se(x)], dim=1)


def encoder_features(encoder: nn.Module, x: Tensor) -> list[Tensor]:
    """What an encoder yields at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size of ``x`` (N, bands, H, W)."""
    features: list[Tensor] = encoder(x)[1:]
    return features


def densenet_features(encoder: nn.Module, x: Tensor) -> list[Tensor]:
    """A DenseNet's features of ``x`` (N, bands, H, W), taken where the published network takes them.

    Unlike the library's, skips leave before the transition's norm and ReLU, and a ReLU follows the last norm.
    """
    layers = encoder.get_submodule("features")
    stages = (
        ("conv0", "norm0", "relu0"),
        ("pool0", "denseblock1"),
        ("transition1", "denseblock2"),
        ("transition2", "denseblock3"),
        ("transition3", "denseblock4", "norm5"),
    )
    features = []
    for stage in stages:
        for layer in stage:
            x = layers.get_submodule(layer)(x)
        features.append(x)
    return [*features[:-1], torch.relu(features[-1])]


def dpn_features(encoder: nn.Module, x: Tensor) -> list[Tensor]:
    """A DPN's features of ``x`` (N, bands, H, W), taken where the published network takes them.

    Unlike the library's, the two paths of a skip are concatenated as they are, without a ReLU.
    """
    layers = dict(encoder.get_submodule("features").named_children())
    for name in ("conv", "bn", "act"):
        x = layers["conv1_1"].get_submodule(name)(x)
    features = [x]
    paths: Tensor | tuple[Tensor, Tensor] = layers["conv1_1"].get_submodule("pool")(x)
    for stage in ("conv2_", "conv3_", "conv4_", "conv5_"):
        for name, layer in layers.items():
            if name.startswith(stage):
                paths = layer(paths)
        features.append(torch.cat(paths, dim=1) if isinstance(paths, tuple) else paths)
    return features


class SiameseUnet(nn.Module):
    """U-Net that encodes both dates with the same weights and decodes them together to one logit per pixel.

    Kept as published: the decoder starts from the second date's deepest features alone, skips are both dates'
    features concatenated, and a tenth of the channels is dropped before the last layer while training.
    """

    def __init__(
        self,
        encoder: nn.Module,
        encoder_channels: Sequence[int],
        decoder_channels: Sequence[int],
        *,
        scse: bool,
        features: Features,
        bands: int = 3,
    ) -> None:
        """Put a decoder on an encoder.

        Args:
            encoder: takes (N, bands, H, W).
            encoder_channels: of its five features, from 1/2 to 1/32 of the size.
            decoder_channels: of the four decoder levels, from 1/2 to 1/16 of the size.
            scse: gate each level with concatenated SCSE, which doubles its channels, and end on a convolution
                at full size; without, end on a bilinear enlargement.
            features: calls the encoder.
            bands: of a date.
        """
        super().__init__()
        if len(encoder_channels) != 5 or len(decoder_channels) != 4:
            raise ValueError(
                "expected 5 encoder and 4 decoder channel counts, from shallow to deep,"
                f" got {tuple(encoder_channels)} and {tuple(decoder_channels)}"
            )
        self.encoder = encoder
        self._features = features
        self._bands = bands
        gates = 2 if scse else 1
        inputs = [*(gates * channels for channels in decoder_channels[1:]), encoder_channels[-1]]
        self.decoder_stages = nn.ModuleList(map(_enlarge, inputs, decoder_channels))
        levels = zip(encoder_channels[-2::-1], reversed(decoder_channels), strict=True)
        self.bottlenecks = nn.ModuleList(_merge(2 * skip + width, width, scse) for skip, width in levels)
        first = decoder_channels[0]
        self.last_upsample = (
            _enlarge(gates * first, first // 2)
            if scse
            else nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        )
        self.dropout = nn.Dropout2d(0.1)
        for part in (self.decoder_stages, self.bottlenecks, self.last_upsample):
            part.apply(_initialise)
        self.final = nn.Conv2d(first // 2 if scse else first, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1, H, W) for (N, 2 bands, H, W): the bands of the first date, then of the second."""
        if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            check_stacked(x, self._bands, SIZE_DIVISOR)
        # Date by date, not as one batch: in training each date has its own batch statistics, as published.
        before = self._features(self.encoder, x[:, : self._bands])
        after = self._features(self.encoder, x[:, self._bands :])
        y = after[-1]
        for level, merge in enumerate(self.bottlenecks, start=1):
            y = self.decoder_stages[-level](y)
            y = merge(torch.cat([y, before[-1 - level], after[-1 - level]], dim=1))
        logits: Tensor = self.final(self.dropout(self.last_upsample(y)))
        return logits


def check_stacked(x: Tensor, bands: int, divisor: int) -> None:
    """Refuse what is not both dates' bands on each other, of a size that a network can halve often enough.

    Raises:
        ValueError: If ``x`` is not (N, 2 bands, H, W) with H and W multiples of ``divisor``.
    """
    channels = 2 * bands
    if x.ndim != 4 or x.shape[1] != channels or any(size % divisor for size in x.shape[2:]):
        raise ValueError(f"expected (N, {channels}, H, W) with H and W multiples of {divisor}, got {tuple(x.shape)}")


def _enlarge(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))


def _merge(inputs: int, outputs: int, scse: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, ConcatScse(outputs)) if scse else nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# By encoder; the others yield what the published networks take.
_FEATURES = {"densenet161": densenet_features, "dpn92": dpn_features}


def build_siamese(
    encoder: str,
    decoder_channels: Sequence[int],
    *,
    encoder_weights: str | None = None,
    scse: bool = True,
    bands: Sequence[str] = RGB,
) -> SiameseUnet:
    """Build the network on an encoder of segmentation-models-pytorch.

    Args:
        encoder: The library's name.
        decoder_channels: Four channel counts, from shallow to deep.
        encoder_weights: The library's name of weights to fetch; fresh ones without.
        scse: Whether the decoder has gates, see :class:`ConcatScse`.
        bands: Names of a date's bands.

    Raises:
        ValueError: For channels, an encoder or a kind of weights that does not exist.
        InputError: If encoder weights can be neither found nor fetched.
    """
    build = partial(smp.encoders.get_encoder, encoder, in_channels=len(bands), weights=encoder_weights)
    body = with_encoder(build, encoder, encoder_weights)
    channels = smp.encoders.encoders[encoder]["params"]["out_channels"][1:]
    features = _FEATURES.get(encoder, encoder_features)
    return SiameseUnet(body, channels, decoder_channels, scse=scse, features=features, bands=len(bands))
