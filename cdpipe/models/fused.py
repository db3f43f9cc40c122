"""Siamese networks that fuse both dates' features at every level before they decode them.

One encoder sees both dates. At each level ``[f1, f2, |f1 - f2|]`` goes through a 1 x 1 convolution, and what comes out
is what the decoder starts from and what its skips carry: deep down, too, it knows both dates (the published Siamese
networks start from the second date's features alone). After Daudt et al. 2018 (arxiv.org/abs/1810.08462): FC-Siam-conc
and FC-Siam-diff in one.
"""

from collections.abc import Sequence
from functools import partial

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.unetplusplus.decoder import UnetPlusPlusDecoder
from torch import Tensor, nn

from cdpipe.models.encoders import with_encoder
from cdpipe.models.plain import DEPTH, WIDTHS, PlainDecoder, check_channels, drop_last_block
from cdpipe.models.siamese import check_stacked
from cdpipe.store.normalisation import RGB


class FusedSiamese(nn.Module):
    """Encodes both dates with the same weights, fuses them level by level, and decodes to one logit per pixel.

    What detectors say of both dates together is fused with their features, at every level as its mean there.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        widths: Sequence[int],
        outputs: int,
        bands: int,
        detectors: int = 0,
    ) -> None:
        """Put a decoder on fused features.

        Args:
            encoder: Takes (2N, bands, H, W), gives its input and its features, from shallow to deep.
            decoder: Takes features from shallow to deep.
            widths: Channels of the encoder's features.
            outputs: Channels of what the decoder gives.
            bands: Channels of a date.
            detectors: Channels that follow both dates'.
        """
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.fuse = nn.ModuleList(nn.Conv2d(3 * width + detectors, width, 1) for width in widths)
        self.final = nn.Conv2d(outputs, 1, 1)
        self._bands, self._divisor = bands, int(encoder.output_stride)  # type: ignore[arg-type]
        for layer in self.fuse:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1, H, W) for (N, 2 bands + detectors, H, W), the first date's bands, then the second's."""
        x, said = x[:, : 2 * self._bands], x[:, 2 * self._bands :]
        if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            check_stacked(x, self._bands, self._divisor)
        # Both dates as one batch: it is faster, and batch norm then has one mean for both, in training as afterwards.
        # With one for each date a network trains on dates that are aligned in every channel, and predicts others.
        features = self.encoder(torch.cat([x[:, : self._bands], x[:, self._bands :]]))[1:]
        fused = []
        for layer, both in zip(self.fuse, features, strict=True):
            before, after = both.chunk(2)
            pooled = [nn.functional.avg_pool2d(said, said.shape[-1] // both.shape[-1])] if said.shape[1] else []
            fused.append(layer(torch.cat([before, after, (before - after).abs(), *pooled], dim=1)))
        logits: Tensor = self.final(self.decoder(fused))
        return logits


class PlusPlusDecoder(nn.Module):
    """The library's decoder of UNet++, on features alone."""

    def __init__(self, encoder_channels: Sequence[int], decoder_channels: Sequence[int], *, full: bool) -> None:
        """Make it; see :class:`cdpipe.models.plain.PlainDecoder`."""
        super().__init__()
        check_channels(decoder_channels, len(encoder_channels) - full)
        widths = [*decoder_channels, decoder_channels[-1]] if full else list(decoder_channels)
        self.nested = UnetPlusPlusDecoder([0, *encoder_channels], widths, len(widths))
        initialize_decoder(self.nested)
        if full:
            drop_last_block(self.nested)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return (N, last decoder channels, H, W) for features from shallow to deep."""
        decoded: Tensor = self.nested([features[0], *features])
        return decoded


_DECODERS = {"unet": PlainDecoder, "unetplusplus": PlusPlusDecoder}


def build_fused(  # noqa: PLR0913 (options of a network, by name)
    decoder: str,
    *,
    encoder: str = "plain16",
    encoder_weights: str | None = None,
    encoder_depth: int | None = None,
    decoder_channels: Sequence[int] | None = None,
    bands: Sequence[str] = RGB,
    detectors: Sequence[str] = (),
) -> FusedSiamese:
    """Build the network on an encoder of segmentation-models-pytorch or a plain one.

    Args:
        decoder: ``unet`` or ``unetplusplus``.
        encoder: Its name.
        encoder_weights: The library's name of weights to fetch; fresh ones without.
        encoder_depth: Levels of features; by default four of a plain encoder, five of another.
        decoder_channels: Of the decoder's steps, from deep to shallow; by default those of the encoder's levels.
        bands: Names of a date's bands.
        detectors: Those whose probabilities follow both dates, a channel each.

    Raises:
        ValueError: For channels, an encoder or a kind of weights that does not exist.
        InputError: If encoder weights can be neither found nor fetched.
    """
    full = encoder in WIDTHS
    depth = encoder_depth or (DEPTH if full else 5)
    build = partial(smp.encoders.get_encoder, encoder, in_channels=len(bands), depth=depth, weights=encoder_weights)
    body = with_encoder(build, encoder, encoder_weights)
    widths = list(body.out_channels)[1:]  # type: ignore[arg-type]
    if not all(widths):
        raise ValueError(
            f"encoder {encoder} has no features at half the size; take another, such as plain16 or resnet18"
        )
    steps = [*reversed(widths[:-1]), *([] if full else [max(8, widths[0] // 2)])]
    channels = list(decoder_channels) if decoder_channels is not None else steps
    head = _DECODERS[decoder](widths, channels, full=full)
    return FusedSiamese(body, head, widths, channels[-1], len(bands), len(detectors))
