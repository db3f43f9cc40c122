"""Files of weights that others saved, read without running any code that they may hold."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy._core import multiarray
from safetensors import SafetensorError
from torch import Tensor

from cdpipe.errors import InputError

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


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
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
            content: Any = safetensors.torch.load_file(path)
        else:
            with torch.serialization.safe_globals(_NUMBERS):
                content = torch.load(path, map_location="cpu", weights_only=True)
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
    return _split(path, content)


def _split(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    beside: dict[str, float] = {}
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        numbers = {key: value for key, value in content.items() if isinstance(value, int | float | np.number)}
        beside = {str(key): float(value) for key, value in numbers.items()}
        content = content["state_dict"]
    tensors = isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())
    if not tensors or not content:
        raise InputError(f"{path}: expected a state dict (names to tensors), alone or under the key state_dict")
    broken = [str(key) for key, value in content.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"{path}: expected finite weights, got NaN or infinity in {', '.join(broken[:3])}")
    return {str(key): value for key, value in content.items()}, beside
