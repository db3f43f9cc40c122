"""Loads foreign weights whole or not at all; knows the naming of the published xView2 second-place networks."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from cdpipe.models.siamese import SiameseUnet

_Rules = tuple[tuple[str, str], ...]

_LAST_LAYERS = ("final.", "conv_final.", "segmentation_head.0.")
_DECODER: _Rules = (
    (r"^(decoder_stages\.\d|last_upsample)\.layer\.", r"\1."),
    (r"^(bottlenecks\.\d)\.seq\.", r"\1."),
    (r"^final\.0\.", "final."),
)
_LAYERS: _Rules = (
    (r"^encoder_stages\.1\.1\.", "encoder.layer1."),
    (r"^encoder_stages\.([234])\.", r"encoder.layer\1."),
)
# A published stage counts its blocks from 1 after a pooling layer and from 0 otherwise; DPN's own names from 1.
_DPN_BLOCKS = {1: (1, 3), 2: (0, 4), 3: (0, 20), 4: (0, 3)}
# By the class of the encoder in segmentation-models-pytorch. The first rule that matches a key applies.
_ENCODERS: dict[str, _Rules] = {
    "SENetEncoder": ((r"^encoder_stages\.0\.", "encoder.layer0."), *_LAYERS),
    "ResNetEncoder": (
        (r"^encoder_stages\.0\.0\.", "encoder.conv1."),
        (r"^encoder_stages\.0\.1\.", "encoder.bn1."),
        *_LAYERS,
    ),
    "DenseNetEncoder": (
        (r"^encoder_stages\.0\.0\.", "encoder.features.conv0."),
        (r"^encoder_stages\.0\.1\.", "encoder.features.norm0."),
        (r"^encoder_stages\.2\.0\.", "encoder.features.transition1."),
        (r"^encoder_stages\.3\.0\.", "encoder.features.transition2."),
        (r"^encoder_stages\.4\.0\.", "encoder.features.transition3."),
        (r"^encoder_stages\.4\.2\.", "encoder.features.norm5."),
        (r"^encoder_stages\.([1234])\.1\.", r"encoder.features.denseblock\1."),
    ),
    "DPNEncoder": (
        (r"^encoder_stages\.0\.0\.", "encoder.features.conv1_1.conv."),
        (r"^encoder_stages\.0\.1\.", "encoder.features.conv1_1.bn."),
        *(
            (rf"^encoder_stages\.{stage}\.{first + block}\.", f"encoder.features.conv{stage + 1}_{block + 1}.")
            for stage, (first, blocks) in _DPN_BLOCKS.items()
            for block in range(blocks)
        ),
        (r"^encoder_stages\.4\.3\.", "encoder.features.conv5_bn_ac."),
    ),
}


def load_published(model: nn.Module, state_dict: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load published weights into a network; it stays as it was unless every entry fits.

    Args:
        model: from ``build_model``.
        state_dict: with or without a leading ``module.``; for a Siamese network under the published names or its
            own, for others under the network's own. A last layer of one class is loaded; one of more classes is
            left out, and the model's own, fresh one stays.

    Returns:
        The model's keys that kept their values: empty, or the last layer's two.

    Raises:
        ValueError: naming what is left over, missing or of another shape.
    """
    expected = model.state_dict()
    plain = [key.removeprefix("module.") for key in state_dict]
    names = plain if set(plain) <= expected.keys() else _our_keys(model, plain)
    found = dict(zip(names, state_dict.values(), strict=True))
    if len(found) < len(state_dict):
        raise ValueError("some entries are given twice, with and without a leading `module.`")
    kept = tuple(key for key in expected if key.startswith(_LAST_LAYERS) and _other_classes(found, expected, key))
    _check_fit(found, expected, kept)
    model.load_state_dict(found | {key: expected[key] for key in kept})
    return kept


def _our_keys(model: nn.Module, keys: Sequence[str]) -> list[str]:
    if not isinstance(model, SiameseUnet):
        return list(keys)
    encoder = type(model.encoder).__name__
    if encoder not in _ENCODERS:
        raise ValueError(f"published weights fit Siamese networks on {', '.join(_ENCODERS)}, not {encoder}")
    rules = _DECODER + _ENCODERS[encoder]
    return [_our_key(key, rules) for key in keys]


def _our_key(key: str, rules: _Rules) -> str:
    for pattern, replacement in rules:
        renamed, hits = re.subn(pattern, replacement, key)
        if hits:
            return renamed
    return f"{key} (unknown name)"


def _other_classes(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], key: str) -> bool:
    """Say whether a last layer differs from the model's in the number of classes and in nothing else."""
    if key not in found:
        return False
    theirs, ours = found[key].shape, expected[key].shape
    return theirs[0:1] != ours[0:1] and theirs[1:] == ours[1:]


def _check_fit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], kept: tuple[str, ...]) -> None:
    problems = {
        "left over": [key for key in found if key not in expected],
        "missing": [key for key in expected if key not in found],
        "of another shape": [
            f"{key} {tuple(found[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in found and key not in kept and found[key].shape != value.shape
        ],
    }
    listed = [f"{len(keys)} {problem}: {_first(keys)}" for problem, keys in problems.items() if keys]
    if listed:
        raise ValueError(f"not this network's {len(expected)} weights: " + "; ".join(listed))


def _first(keys: Sequence[str], number: int = 4) -> str:
    return ", ".join(keys[:number]) + (", ..." if len(keys) > number else "")
