"""The networks cdpipe trains and runs, an entry each; all of them give logits.

Planning asks for names, inputs and bands: torch, which takes seconds to import, waits until a network is built.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cdpipe.models import published
from cdpipe.models.exported import EXPORTED
from cdpipe.models.pretrained import Pretrained, named_weights
from cdpipe.models.published import Rules
from cdpipe.store.normalisation import RGB, InputKind

if TYPE_CHECKING:
    from torch import nn

    from cdpipe.models.encoders import Channels

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of a network.

    Attributes:
        build: Makes it, of its options, with fresh weights.
        options: Gives the names of its options.
        inputs: What it can eat, see :func:`input_kind`; the default first.
        bands: Names of the bands, in order, that it eats unless the option ``bands`` says otherwise.
        encoder: Name of the encoder that it has unless the option ``encoder`` says otherwise; None for one of its own.
        published: How entries of published weights are called in it: patterns and replacements, of which the first
            that fits a name applies; none where they are called the same.
        revision: Raised when its arithmetic changes, since the same weights then give other probabilities.
    """

    build: "Callable[..., nn.Module]"
    options: Callable[[], tuple[str, ...]]
    inputs: tuple[InputKind, ...] = ("stacked",)
    bands: tuple[str, ...] = RGB
    encoder: str | None = None
    published: Rules = ()
    revision: int = 1


def _decoder(name: str, **settings: Any) -> Network:
    """A network of segmentation-models-pytorch; ``settings`` of its constructor are not for users to choose."""

    def build(**options: Any) -> "nn.Module":
        from cdpipe.models.decoders import build_decoder

        return build_decoder(name, **{**options, **settings})

    def options() -> tuple[str, ...]:
        from cdpipe.models.decoders import decoder_options

        return decoder_options(name)

    return Network(build, options, ("difference", "stacked", "stacked_difference"), encoder="resnext50_32x4d")


def _siamese(encoder: str, rules: Rules, decoder_channels: Sequence[int], *, scse: bool = True) -> Network:
    """A network of the second-place xView2 solution, with what its constructor takes by default."""

    def build(**options: Any) -> "nn.Module":
        from cdpipe.models.siamese import build_siamese

        return build_siamese(encoder, **{"decoder_channels": decoder_channels, "scse": scse, **options})

    options = ("encoder_weights", "decoder_channels", "bands")
    return Network(build, lambda: options, encoder=encoder, published=published.DECODER + rules)


def _fused(decoder: str) -> Network:
    """A Siamese network that fuses both dates' features at every level."""

    def build(**options: Any) -> "nn.Module":
        from cdpipe.models.fused import build_fused

        return build_fused(decoder, **options)

    options = ("encoder", "encoder_weights", "encoder_depth", "decoder_channels", "bands", "detectors")
    return Network(build, lambda: options, encoder="plain16")


def _snunet(**options: Any) -> "nn.Module":
    from cdpipe.models.snunet import SNUNet

    return SNUNet(**options)


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "unetplusplus": _decoder("unetplusplus"),
        "siamese_seresnext50": _siamese("se_resnext50_32x4d", published.SENET, (48, 92, 192, 256)),
        "siamese_resnet18": _siamese("resnet18", published.RESNET, (48, 92, 192, 256)),
        "siamese_resnet34": _siamese("resnet34", published.RESNET, (48, 92, 192, 256)),
        "siamese_resnext101": _siamese("resnext101_32x8d", published.RESNET, (48, 96, 192, 192), scse=False),
        "siamese_densenet161": _siamese("densenet161", published.DENSENET, (64, 96, 192, 256), scse=False),
        "siamese_dpn92": _siamese("dpn92", published.DPN, (64, 128, 256, 256), scse=False),
        "snunet": Network(_snunet, lambda: ("channels", "bands"), revision=2),
        "siamese_unet": _fused("unet"),
        "siamese_unetplusplus": _fused("unetplusplus"),
        "unet": _decoder("unet"),
        "manet": _decoder("manet"),
        "linknet": _decoder("linknet"),
        "fpn": _decoder("fpn"),
        "pspnet": _decoder("pspnet"),
        "pan": _decoder("pan"),
        "deeplabv3": _decoder("deeplabv3"),
        "deeplabv3plus": _decoder("deeplabv3plus"),
        "upernet": _decoder("upernet"),
        "segformer": _decoder("segformer"),
        # vision transformers, which DPT alone is built on, otherwise take patches of one size
        "dpt": _decoder("dpt", dynamic_img_size=True),
    }
)


def find_network(name: str) -> Network:
    """The entry of a network.

    Raises:
        ValueError: For a name that does not exist.
    """
    if name not in NETWORKS:
        raise ValueError(f"no model named {name!r}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def input_kind(name: str, options: Mapping[str, Any] = _NOTHING) -> InputKind:
    """What a network built with these options eats.

    ``"difference"``: (N, 1, H, W), grey before minus grey after.
    ``"band_difference"``: (N, B, H, W), before minus after; that is ``input: difference`` with ``bands``.
    ``"stacked"``: (N, 2B, H, W), the first date's bands, then the second's.
    ``"stacked_difference"``: (N, 3B, H, W), these and then their difference.

    Raises:
        ValueError: For a name that does not exist.
    """
    if name == EXPORTED:
        given: InputKind = options["input"]
        return given
    default, *others = find_network(name).inputs
    kind: InputKind = options.get("input", default) if others else default
    return "band_difference" if kind == "difference" and options.get("bands") else kind


def required_bands(name: str, options: Mapping[str, Any] = _NOTHING) -> tuple[str, ...]:
    """The names of the bands, in order, that a network's input is made of.

    Raises:
        ValueError: For a name that does not exist.
    """
    return tuple(options.get("bands") or find_network(name).bands)


def shown_detectors(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The detectors whose probabilities a network built with these options is shown beside the dates."""
    return tuple(options.get("detectors") or ())


def build_model(name: str, **options: Any) -> "nn.Module":
    """Build a network with fresh decoder weights; its forward takes one tensor and gives logits (N, 1, H, W).

    Args:
        name: One of ``NETWORKS``; ``input_kind`` says what the network eats.
        options: For ``unetplusplus`` and the other decoders of segmentation-models-pytorch: ``encoder``
            (resnext50_32x4d; ``plain16`` and its like start at the full size), ``encoder_weights`` (None), ``input``
            (difference), ``bands`` (of the grey difference: red, green, blue), ``detectors`` (none; a channel each,
            after the others) and the library's own depth and decoder options; for ``unetplusplus``
            ``deep_supervision`` (False), which makes it give a list in training. For ``siamese_unet`` and
            ``siamese_unetplusplus``: ``encoder`` (plain16), ``encoder_weights``, ``encoder_depth``,
            ``decoder_channels``, ``bands``, ``detectors``. For the other ``siamese_*``: ``encoder_weights`` (None),
            ``decoder_channels`` (four, from 1/2 to 1/16 of the size) and ``bands``. For ``snunet``: ``channels`` of
            the first level (32) and ``bands``. ``encoder_weights`` is a name, see
            :func:`cdpipe.models.pretrained.named_weights`, or what :func:`cdpipe.models.pretrained.find_weights` found.

    Raises:
        ValueError: For a name, option, encoder or kind of weights that does not exist.
        InputError: If encoder weights can be neither found nor fetched.
    """
    check_options(name, options)
    network = find_network(name)
    given = options.pop("encoder_weights", None)
    if given is None:
        return network.build(**options)
    from cdpipe.models.encoders import start_encoder

    weights, channels = _pretrained(given), encoder_channels(name, options)
    if weights.of_library and channels.suit_library:
        return network.build(**options, encoder_weights=weights.name)
    built = network.build(**options)
    start_encoder(built.get_submodule("encoder"), encoder_name(name, options), weights, channels)
    return built


def encoder_name(name: str, options: Mapping[str, Any]) -> str:
    """Name of the encoder of a network that is built with these options."""
    return str(options.get("encoder") or find_network(name).encoder)


def encoder_channels(name: str, options: Mapping[str, Any]) -> "Channels":
    """What the encoder of a network sees that is built with these options: Siamese ones each date by itself."""
    from cdpipe.models.encoders import Channels

    bands = required_bands(name, options)
    if len(find_network(name).inputs) == 1:
        return Channels("date", bands)
    return Channels(input_kind(name, options), bands, len(shown_detectors(options)))


def _pretrained(given: str | Pretrained) -> Pretrained:
    return given if isinstance(given, Pretrained) else named_weights(given)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a network does not have, and encoder weights of another encoder or of other bands.

    Raises:
        ValueError: If that is so.
    """
    accepted = find_network(name).options()
    # segmentation-models-pytorch drops keywords it does not know without a word.
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it accepts {', '.join(accepted)}")
    if not options.get("encoder_weights"):
        return
    from cdpipe.models.encoders import check_pretrained

    weights = _pretrained(options["encoder_weights"])
    check_pretrained(encoder_name(name, options), weights, encoder_channels(name, options))
