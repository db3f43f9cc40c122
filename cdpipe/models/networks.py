"""The networks cdpipe trains and runs, by name; all of them give logits."""

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import segmentation_models_pytorch as smp
from huggingface_hub.constants import HF_HUB_CACHE
from torch import nn

from cdpipe.errors import InputError
from cdpipe.models import siamese
from cdpipe.models.names import check_name
from cdpipe.models.snunet import SNUNet
from cdpipe.store.normalisation import RGB, InputKind

# Encoder-decoder networks of segmentation-models-pytorch, on the grey difference or on the bands of both dates.

DECODERS: dict[str, type[nn.Module]] = {
    "unetplusplus": smp.UnetPlusPlus,
    "unet": smp.Unet,
    "manet": smp.MAnet,
    "linknet": smp.Linknet,
    "fpn": smp.FPN,
    "pspnet": smp.PSPNet,
    "pan": smp.PAN,
    "deeplabv3": smp.DeepLabV3,
    "deeplabv3plus": smp.DeepLabV3Plus,
    "upernet": smp.UPerNet,
    "segformer": smp.Segformer,
    "dpt": smp.DPT,
}
# Vision transformers, which DPT alone is built on, otherwise take patches of one size.
_SETTINGS: dict[str, dict[str, Any]] = {"dpt": {"dynamic_img_size": True}}
# What cdpipe decides itself: one logit per pixel, channels by the input.
_OURS = ("self", "encoder_name", "in_channels", "classes", "activation", "aux_params", "kwargs")


def decoder_options(name: str) -> tuple[str, ...]:
    """Return the options that :func:`build_decoder` accepts for a network."""
    own = inspect.signature(DECODERS[name].__init__).parameters
    return ("encoder", "input", "bands", *(option for option in own if option not in _OURS))


def build_decoder(
    name: str,
    *,
    encoder: str = "resnext50_32x4d",
    input: InputKind = "difference",  # noqa: A002 (the word that configurations use)
    bands: Sequence[str] = RGB,
    encoder_weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build one of ``DECODERS``.

    Raises:
        ValueError: For an input, encoder or kind of weights that does not exist.
        InputError: If encoder weights can be neither found nor fetched.
    """
    if input not in ("difference", "stacked"):
        raise ValueError(f"expected input difference or stacked, got {input!r}")
    if input == "difference" and tuple(bands) != RGB:
        raise ValueError(f"bands: the grey difference is made of {', '.join(RGB)}; other bands need input: stacked")
    options |= _SETTINGS.get(name, {})
    options |= {"in_channels": 1 if input == "difference" else 2 * len(bands), "encoder_weights": encoder_weights}
    return with_encoder(partial(DECODERS[name], encoder, classes=1, **options), encoder, encoder_weights)


def with_encoder(build: Callable[[], nn.Module], encoder: str, weights: str | None) -> nn.Module:
    """Run what fetches an encoder and its weights, and say what to do where that fails."""
    known = smp.encoders.encoders
    # The library wraps any timm encoder behind the prefix tu-, and checks those names itself.
    if encoder not in known and not encoder.startswith("tu-"):
        close = get_close_matches(encoder, known) or sorted(known)
        raise ValueError(f"no encoder named {encoder!r}; did you mean {', '.join(close)}?")
    settings = known.get(encoder, {}).get("pretrained_settings", {})
    if encoder in known and weights is not None and weights not in settings:
        raise ValueError(f"{encoder} has no weights {weights!r}; there are {', '.join(settings) or 'none'}")
    try:
        return build()
    except OSError as error:
        source = settings.get(weights, {})
        repository, revision = source.get("repo_id", f"of {encoder}"), source.get("revision", "main")
        raise InputError(
            f"expected the {weights} weights of encoder {encoder} on the Hugging Face hub or in its cache,"
            f" {HF_HUB_CACHE}, and could not get them: {error}\n"
            "Either start from random weights (encoder_weights: null), or run"
            f" `hf download {repository} --revision {revision}` on a machine with a connection"
            " and copy its cache here."
        ) from error


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
