"""The networks cdpipe trains and runs, by name; all of them give logits."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

import segmentation_models_pytorch as smp
from huggingface_hub.constants import HF_HUB_CACHE
from torch import nn

from cdpipe.models import siamese
from cdpipe.values.errors import InputError

InputKind = Literal["difference", "stacked"]

_UNETPLUSPLUS_OPTIONS = (
    "encoder",
    "in_channels",
    "classes",
    "encoder_weights",
    "encoder_depth",
    "decoder_channels",
    "decoder_use_norm",
    "decoder_attention_type",
    "decoder_interpolation",
)
_SIAMESE_OPTIONS = ("encoder_weights", "decoder_channels")


def build_model(name: str, **options: Any) -> nn.Module:
    """Build a network with fresh decoder weights; its forward takes one tensor and gives logits (N, 1, H, W).

    Args:
        name: one of ``model_names()``; ``input_kind`` says what the network eats.
        options: ``encoder_weights`` (default None). For ``unetplusplus`` also ``encoder`` (resnext50_32x4d),
            ``in_channels`` (1), ``classes`` (1) and the depth and decoder options of ``smp.UnetPlusPlus``.
            For ``siamese_*`` also ``decoder_channels`` (four, from 1/2 to 1/16 of the size).

    Raises:
        ValueError: for a name, option, encoder or kind of weights that does not exist.
        InputError: if encoder weights can be neither found nor fetched.
    """
    _check_name(name)
    accepted = _SIAMESE_OPTIONS if _is_siamese(name) else _UNETPLUSPLUS_OPTIONS
    # segmentation-models-pytorch drops keywords it does not know without a word.
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it accepts {', '.join(accepted)}")
    return _BUILDERS[name](**options)


def model_names() -> tuple[str, ...]:
    """Return the names that ``build_model`` knows."""
    return tuple(_BUILDERS)


def input_kind(name: str) -> InputKind:
    """Return what a network eats.

    ``"difference"``: (N, 1, H, W), grey before minus grey after.
    ``"stacked"``: (N, 6, H, W), the first date's three bands, then the second's.
    """
    _check_name(name)
    return "stacked" if _is_siamese(name) else "difference"


def required_bands(name: str) -> tuple[str, ...]:
    """Return the names of the bands, in order, that a network's input is made of."""
    _check_name(name)
    return ("red", "green", "blue")


def size_divisor(name: str) -> int:
    """Return the number of pixels that a patch's height and width must be multiples of."""
    _check_name(name)
    return siamese.SIZE_DIVISOR


def _check_name(name: str) -> None:
    if name not in _BUILDERS:
        raise ValueError(f"no model named {name!r}; there are {', '.join(_BUILDERS)}")


def _is_siamese(name: str) -> bool:
    return name.startswith("siamese_")


def _unetplusplus(
    encoder: str = "resnext50_32x4d",
    in_channels: int = 1,
    encoder_weights: str | None = None,
    **options: Any,
) -> nn.Module:
    options |= {"in_channels": in_channels, "encoder_weights": encoder_weights}
    return _with_encoder(partial(smp.UnetPlusPlus, encoder, **options), encoder, encoder_weights)


def _siamese(
    encoder: str,
    decoder_channels: Sequence[int] = (48, 92, 192, 256),
    encoder_weights: str | None = None,
    *,
    scse: bool = True,
    features: siamese.Features = siamese.encoder_features,
) -> nn.Module:
    build = partial(smp.encoders.get_encoder, encoder, weights=encoder_weights)
    body = _with_encoder(build, encoder, encoder_weights)
    channels = smp.encoders.encoders[encoder]["params"]["out_channels"][1:]
    return siamese.SiameseUnet(body, channels, decoder_channels, scse=scse, features=features)


def _with_encoder(build: Callable[[], nn.Module], encoder: str, weights: str | None) -> nn.Module:
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


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "unetplusplus": _unetplusplus,
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
}
