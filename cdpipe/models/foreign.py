"""Weights of whole networks that others saved: loaded whole or not at all."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cdpipe.config.schema import Normalisation
from cdpipe.config.train import Model
from cdpipe.errors import ConfigError, InputError
from cdpipe.models.folder import CARD, ModelCard, save_model
from cdpipe.models.networks import build_model, find_network, input_kind, required_bands
from cdpipe.models.published import Rules
from cdpipe.models.reading import read_weights
from cdpipe.models.stac_item import stac_files
from cdpipe.workspace.location import here

_LAST_LAYERS = ("final.", "conv_final.", "segmentation_head.0.")


def load_published(name: str, model: nn.Module, state_dict: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load published weights into a network; it stays as it was unless every entry fits.

    Args:
        name: The network's.
        model: What ``build_model`` made of it.
        state_dict: With or without a leading ``module.``; for a Siamese network under the published names or its
            own, for others under the network's own. A last layer of one class is loaded; one of more classes is
            left out, and the model's own, fresh one stays.

    Returns:
        The model's keys that kept their values: empty, or the last layer's two.

    Raises:
        ValueError: naming what is left over, missing or of another shape.
    """
    expected = model.state_dict()
    plain = [key.removeprefix("module.") for key in state_dict]
    rules = () if set(plain) <= expected.keys() else find_network(name).published
    names = [_our_key(key, rules) for key in plain] if rules else plain
    given = dict(zip(names, state_dict.values(), strict=True))
    if len(given) < len(state_dict):
        raise ValueError("some entries are given twice, with and without a leading `module.`")
    kept = tuple(key for key in expected if key.startswith(_LAST_LAYERS) and _other_classes(given, expected, key))
    _check_fit(given, expected, kept)
    model.load_state_dict(given | {key: expected[key] for key in kept})
    return kept


def _our_key(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        renamed, hits = re.subn(pattern, replacement, key)
        if hits:
            return renamed
    return f"{key} (unknown name)"


def _other_classes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], key: str) -> bool:
    """Whether a last layer differs from the model's in the number of classes and in nothing else."""
    if key not in given:
        return False
    theirs, ours = given[key].shape, expected[key].shape
    return theirs[0:1] != ours[0:1] and theirs[1:] == ours[1:]


def _check_fit(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], kept: tuple[str, ...]) -> None:
    problems = {
        "left over": [key for key in given if key not in expected],
        "missing": [key for key in expected if key not in given],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in given and key not in kept and given[key].shape != value.shape
        ],
    }
    listed = [f"{len(keys)} {problem}: {_first(keys)}" for problem, keys in problems.items() if keys]
    if listed:
        raise ValueError(f"not this network's {len(expected)} weights: " + "; ".join(listed))


def _first(keys: Sequence[str], number: int = 4) -> str:
    return ", ".join(keys[:number]) + (", ..." if len(keys) > number else "")


@dataclass(frozen=True, slots=True)
class Import:
    """What became of a file of weights.

    Attributes:
        card: Of the model folder.
        loaded: Entries that were loaded.
        beside: Numbers that lay beside the weights, such as the epoch and scores.
    """

    card: ModelCard
    loaded: int
    beside: dict[str, float]


def import_weights(
    path: Path, folder: Path, architecture: str, model: Model, settings: tuple[Normalisation, int]
) -> Import:
    """Load weights into a network and write them as a model folder.

    Args:
        path: See :func:`cdpipe.models.reading.read_weights`.
        folder: The model folder to write, which also gives the model its name.
        architecture: Name in :func:`cdpipe.models.networks.build_model`.
        model: Its options.
        settings: Normalisation and patch that the weights were trained with.

    Raises:
        ConfigError: If there is no such network, or its normalisation does not fit it.
        InputError: If the file cannot be read or does not fit the network, or the folder is a model already.
    """
    if (folder / CARD).exists():
        raise InputError(f"{folder}: is a model folder already; remove it or name another")
    options = model.options
    try:
        network = build_model(architecture, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--model {architecture}: {error}") from None
    normalisation, patch = settings
    if normalisation.method == "robust" and input_kind(architecture, options) == "difference":
        raise ConfigError("--method robust is that of each band; a difference of the greys is normalised by moments")
    state, beside = read_weights(path)
    try:
        fresh = load_published(architecture, network, state)
    except ValueError as error:
        raise InputError(f"{path}: does not fit {architecture}: {error}") from None
    card = ModelCard(
        name=folder.name,
        architecture=architecture,
        arguments=options,
        roles=required_bands(architecture, options),
        statistics=normalisation.statistics,
        together=normalisation.bands == "together",
        patch=patch,
        weights_sha256="",
        fresh=fresh,
        metrics=beside,
        clip=normalisation.limit,
        method=normalisation.method,
        revision=find_network(architecture).revision,
    )
    return Import(save_model(here(folder), card, network.state_dict(), stac_files), len(state) - len(fresh), beside)
