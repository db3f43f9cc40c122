"""Reads weights that others saved, without running any code that their file may hold."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy._core import multiarray
from safetensors import SafetensorError

from cdpipe.config.schema import Model, Normalisation
from cdpipe.errors import ConfigError, InputError
from cdpipe.models import build_model, load_published, required_bands
from cdpipe.models.folder import CARD, ModelCard, save_model

# Scores beside the weights are often NumPy numbers, which the safe reader knows only if it is told of them.
_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((multiarray.scalar, f"numpy.{package}.multiarray.scalar") for package in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]
_CONVERT = """\
Run this where the file was made, with the packages it was made with, and give cdpipe the new file:
    import torch
    network = torch.load({name!r}, map_location="cpu")
    torch.save(network.state_dict(), {converted!r})"""


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Read a state dict, and the numbers that lie beside it such as epoch and scores.

    Args:
        path: A file of ``torch.save`` (zip or the older pickle) that holds a state dict, alone or under
            ``state_dict``; or safetensors. Only tensors, containers and numbers are ever made of it
            (``weights_only=True``).

    Raises:
        InputError: If there is no such file, it holds anything else, or no state dict of finite numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a file of weights; there is no such file")
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        else:
            with torch.serialization.safe_globals(_NUMBERS):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        objects = re.search(r"GLOBAL ([\w.]+)", str(error))
        if objects is None:
            raise InputError(f"{path}: expected a file of torch.save or safetensors; it cannot be read") from None
        lines = _CONVERT.format(name=path.name, converted=f"{path.stem}_state.pth")
        raise InputError(
            f"{path}: expected a state dict; the file holds Python objects ({objects[1]}), which cdpipe never loads, "
            f"since they may run any code.\n{lines}"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        detail = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise InputError(
            f"{path}: expected a file of torch.save or safetensors; it cannot be read ({detail})"
        ) from None
    return _split(path, found)


def _split(path: Path, found: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    beside: dict[str, float] = {}
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        beside = {str(key): float(value) for key, value in found.items() if isinstance(value, int | float | np.number)}
        found = found["state_dict"]
    if not isinstance(found, dict) or not found or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise InputError(f"{path}: expected a state dict (names to tensors), alone or under the key state_dict")
    broken = [str(key) for key, value in found.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{path}: expected finite weights, got NaN or infinity in {', '.join(broken[:3])}")
    return {str(key): value for key, value in found.items()}, beside


# Foreign weights become a model folder that training starts from or prediction uses.


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
        path: See :func:`cdpipe.models.foreign.read_weights`.
        folder: The model folder to write, which also gives the model its name.
        architecture: Name in :func:`cdpipe.models.build_model`.
        model: Its options.
        settings: Normalisation and patch that the weights were trained with.

    Raises:
        ConfigError: If there is no such network.
        InputError: If the file cannot be read or does not fit the network, or the folder is a model already.
    """
    if (folder / CARD).exists():
        raise InputError(f"{folder}: is a model folder already; remove it or name another")
    options = {name: value for name, value in model.options.items() if name != "encoder_weights"}
    try:
        network = build_model(architecture, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"--model {architecture}: {error}") from None
    state, beside = read_weights(path)
    try:
        fresh = load_published(network, state)
    except ValueError as error:
        raise InputError(f"{path}: does not fit {architecture}: {error}") from None
    normalisation, patch = settings
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
    )
    return Import(save_model(folder, card, network.state_dict()), len(state) - len(fresh), beside)
