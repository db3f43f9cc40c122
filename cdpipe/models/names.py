"""What is known of the networks by their names alone, without the seconds that torch takes to import."""

from collections.abc import Mapping
from typing import Any

from cdpipe.store.normalisation import RGB, InputKind

# Networks of segmentation-models-pytorch, see cdpipe.models.networks.
DECODER_NAMES = (
    "unetplusplus",
    "unet",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "pan",
    "deeplabv3",
    "deeplabv3plus",
    "upernet",
    "segformer",
    "dpt",
)
_NAMES = (
    "unetplusplus",
    "siamese_seresnext50",
    "siamese_resnet18",
    "siamese_resnet34",
    "siamese_resnext101",
    "siamese_densenet161",
    "siamese_dpn92",
    "snunet",
    *DECODER_NAMES[1:],
)
_NOTHING: Mapping[str, Any] = {}


def model_names() -> tuple[str, ...]:
    """Return the names that ``build_model`` knows."""
    return _NAMES


def input_kind(name: str, options: Mapping[str, Any] = _NOTHING) -> InputKind:
    """Return what a network built with these options eats.

    ``"difference"``: (N, 1, H, W), grey before minus grey after.
    ``"stacked"``: (N, 2B, H, W), the first date's bands, then the second's.

    Raises:
        ValueError: for a name that does not exist.
    """
    check_name(name)
    kind: InputKind = options.get("input", "difference") if name in DECODER_NAMES else "stacked"
    return kind


def required_bands(name: str, options: Mapping[str, Any] = _NOTHING) -> tuple[str, ...]:
    """Return the names of the bands, in order, that a network's input is made of.

    Raises:
        ValueError: for a name that does not exist.
    """
    check_name(name)
    return tuple(options.get("bands", RGB))


def check_name(name: str) -> None:
    """Refuse a name that ``build_model`` does not know.

    Raises:
        ValueError: if it does not.
    """
    if name not in _NAMES:
        raise ValueError(f"no model named {name!r}; there are {', '.join(_NAMES)}")
