"""Encoder-decoder networks of segmentation-models-pytorch, on a difference of the dates, or on the bands of both."""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from cdpipe.models.encoders import with_encoder
from cdpipe.models.plain import DEPTH, WIDTHS, check_channels, drop_last_block, level_widths
from cdpipe.models.supervision import SupervisedUnetPlusPlus
from cdpipe.store.normalisation import RGB, InputKind, input_channels

_CLASSES: dict[str, type[nn.Module]] = smp.MODEL_ARCHITECTURES_MAPPING
# What cdpipe decides itself: one logit per pixel, channels by the input.
_OURS = ("self", "encoder_name", "in_channels", "classes", "activation", "aux_params", "kwargs")


def decoder_options(name: str) -> tuple[str, ...]:
    """The options that :func:`build_decoder` accepts for a network."""
    own = inspect.signature(_CLASSES[name].__init__).parameters
    ours = ("encoder", "input", "bands", "detectors", *(["deep_supervision"] if name == "unetplusplus" else []))
    return (*ours, *(option for option in own if option not in _OURS))


def build_decoder(  # noqa: PLR0913 (options of a network, by name)
    name: str,
    *,
    encoder: str = "resnext50_32x4d",
    input: InputKind = "difference",  # noqa: A002 (the word that configurations use)
    bands: Sequence[str] | None = None,
    detectors: Sequence[str] = (),
    encoder_weights: str | None = None,
    deep_supervision: bool = False,
    **options: Any,
) -> nn.Module:
    """Build a network by the library's name for it; other options go to the library's constructor.

    Raises:
        ValueError: For an input, encoder or kind of weights that does not exist.
        InputError: If encoder weights can be neither found nor fetched.
    """
    kinds = ("difference", "stacked", "stacked_difference")
    if input not in kinds:
        raise ValueError(f"expected input {', '.join(kinds[:-1])} or {kinds[-1]}, got {input!r}")
    kind: InputKind = "band_difference" if input == "difference" and bands else input
    channels = input_channels(kind, len(bands or RGB)) + len(detectors)
    options |= {"in_channels": channels, "encoder_weights": encoder_weights}
    own = SupervisedUnetPlusPlus if deep_supervision else _CLASSES[name]
    if encoder not in WIDTHS:
        return with_encoder(partial(own, encoder, classes=1, **options), encoder, encoder_weights)
    options |= _full_resolution(name, encoder, **options)
    network = with_encoder(partial(own, encoder, classes=1, **options), encoder, encoder_weights)
    drop_last_block(network.get_submodule("decoder"))
    return network


def _full_resolution(
    name: str,
    encoder: str,
    *,
    encoder_depth: int = DEPTH,
    decoder_channels: Sequence[int] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Options of the library's constructor for an encoder whose first features have the full size."""
    if name not in ("unet", "unetplusplus"):
        raise ValueError(f"encoder {encoder} starts at the full size, which {name} does not expect; take unetplusplus")
    widths = level_widths(WIDTHS[encoder], encoder_depth)
    channels = list(reversed(widths[:-1])) if decoder_channels is None else list(decoder_channels)
    check_channels(channels, encoder_depth - 1)
    # the library counts a last step that enlarges to the full size; it is left out
    return {"encoder_depth": encoder_depth, "decoder_channels": [*channels, channels[-1]]}
