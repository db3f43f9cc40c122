"""The networks cdpipe trains and runs, by name; all of them give logits."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
from torch import nn

from cdpipe.models import siamese
from cdpipe.models.decoders import DECODERS, build_decoder, decoder_options, with_encoder
from cdpipe.models.names import check_name
from cdpipe.models.snunet import SNUNet


def build_model(name: str, **options: Any) -> nn.Module:
    """Build a network with fresh decoder weights; its forward takes one tensor and gives logits (N, 1, H, W).

    Args:
        name: one of ``model_names()``; ``input_kind`` says what the network eats.
        options: For ``unetplusplus`` and the other decoders of segmentation-models-pytorch: ``encoder``
            (resnext50_32x4d), ``encoder_weights`` (None), ``input`` (difference), ``bands`` for ``input="stacked"``
            (red, green, blue) and the library's own depth and decoder options. For ``siamese_*``:
            ``encoder_weights`` (None) and ``decoder_channels`` (four, from 1/2 to 1/16 of the size). For
            ``snunet``: ``channels`` of the first level (32).

    Raises:
        ValueError: for a name, option, encoder or kind of weights that does not exist.
        InputError: if encoder weights can be neither found nor fetched.
    """
    check_name(name)
    accepted = _accepted(name)
    # segmentation-models-pytorch drops keywords it does not know without a word.
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it accepts {', '.join(accepted)}")
    return _BUILDERS[name](**options)


def _accepted(name: str) -> tuple[str, ...]:
    if name in DECODERS:
        return decoder_options(name)
    return ("channels",) if name == "snunet" else ("encoder_weights", "decoder_channels")


def _siamese(
    encoder: str,
    decoder_channels: Sequence[int] = (48, 92, 192, 256),
    encoder_weights: str | None = None,
    *,
    scse: bool = True,
    features: siamese.Features = siamese.encoder_features,
) -> nn.Module:
    build = partial(smp.encoders.get_encoder, encoder, weights=encoder_weights)
    body = with_encoder(build, encoder, encoder_weights)
    channels = smp.encoders.encoders[encoder]["params"]["out_channels"][1:]
    return siamese.SiameseUnet(body, channels, decoder_channels, scse=scse, features=features)


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "unetplusplus": partial(build_decoder, "unetplusplus"),
    "siamese_seresnext50": partial(_siamese, "se_resnext50_32x4d"),
    "siamese_resnet18": partial(_siamese, "resnet18"),
    "siamese_resnet34": partial(_siamese, "resnet34"),
    "siamese_resnext101": partial(_siamese, "resnext101_32x8d", decoder_channels=(48, 96, 192, 192), scse=False),
    "siamese_densenet161": partial(
        _siamese,
        "densenet161",
        decoder_channels=(64, 96, 192, 256),
        scse=False,
        features=siamese.densenet_features,
    ),
    "siamese_dpn92": partial(
        _siamese, "dpn92", decoder_channels=(64, 128, 256, 256), scse=False, features=siamese.dpn_features
    ),
    "snunet": SNUNet,
    **{name: partial(build_decoder, name) for name in DECODERS if name != "unetplusplus"},
}
