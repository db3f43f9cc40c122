"""Turns a JSON configuration of the original program into one of cdpipe's."""

import json
import re
from pathlib import Path
from typing import Any

from cdpipe.config.presets import KANOPUS, KANOPUS_BANDS, NETWORKS, ORIGINAL
from cdpipe.errors import ConfigError

# Where two names are found in a text, the first here is meant: each is no part of a later one.
_ENCODERS = ("dpn92", "densenet161", "resnext101", "snunet", "seresnext50", "resnext50", "resnet50", "resnet34")
_NAMING = ("model_name", "model", "pretrained", "pretrained_path")
_CARRIED = ("is_siamese", "in_filters", "img_channels", "activation", "img_size", "batch", "patience", "device")
_NUMBERS = {"img_size": "patch", "batch": "global_batch", "patience": "patience"}
_DATA = ("sample_submission_path", "mask_path", "images_path")


def convert(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read a configuration of the original.

    Args:
        path: The JSON file.

    Returns:
        A mapping that :func:`cdpipe.config.load.parse_config` takes, and remarks on what was not carried over.

    Raises:
        ConfigError: If it cannot be read, or its network cannot be told or is none of the original's nine.
    """
    values = _read(path)
    network = _network(path, values)
    name, _ = NETWORKS[network]
    train = {ours: _number(path, values, key) for key, ours in _NUMBERS.items() if key in values}
    converted: dict[str, Any] = {
        "name": name,
        "preset": f"{ORIGINAL}/{network}",
        "catalog": "pairs.csv",
        "workspace": "./work",
        "sensors": {KANOPUS: {"bands": KANOPUS_BANDS}},
        "label": {"changed": [1], "unchanged": [0]},
    }
    if train:
        converted["train"] = train
    if str(values.get("device", "cuda")).startswith("cpu"):
        converted["resources"] = {"gpus": 0}
    return converted, _remarks(path, values)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: expected a readable JSON file of the original program: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object with keys such as model, batch and img_size")
    return values


def _network(path: Path, values: dict[str, Any]) -> str:
    """Name of the configuration among the original's nine, by what its values and its file are called."""
    texts = [str(values[key]) for key in _NAMING if values.get(key)] + [path.stem]
    for text in texts:
        plain = re.sub(r"[^a-z0-9]", "", text.lower()).replace("32x4d", "").replace("32x8d", "")
        encoder = next((name for name in _ENCODERS if name in plain), None)
        if encoder is not None:
            break
    else:
        raise ConfigError(
            f"{path}: expected one of the original's networks ({', '.join(NETWORKS)}) in {', '.join(_NAMING)} or the "
            f"file's name; got {', '.join(texts)}"
        )
    siamese = values.get("is_siamese", any("iamese" in text or "eamese" in text for text in texts))
    siamese = siamese if isinstance(siamese, bool) else str(siamese).lower() in ("true", "1", "yes")
    network = ("siamese_" if siamese or encoder == "snunet" else "unet++_") + encoder
    network = network.replace("snunet", "snunet32")
    if network not in NETWORKS:
        raise ConfigError(f"{path}: the original had no {network}; it had {', '.join(NETWORKS)}")
    return network


def _number(path: Path, values: dict[str, Any], key: str) -> int:
    try:
        return int(values[key])
    except (TypeError, ValueError):
        raise ConfigError(f"{path}: {key}: expected a whole number, got {values[key]!r}") from None


def _remarks(path: Path, values: dict[str, Any]) -> list[str]:
    remarks = []
    data = [f"{key} {values[key]}" for key in _DATA if key in values]
    if data:
        remarks.append(f"data ({', '.join(data)}): `cdpipe catalog original DIR` makes pairs.csv of them")
    activation = str(values.get("activation", "sigmoid"))
    if activation.lower() != "sigmoid":
        raise ConfigError(f"{path}: activation: expected sigmoid, got {activation!r}; cdpipe knows no other")
    unknown = [key for key in values if key not in (*_NAMING, *_CARRIED, *_DATA)]
    if unknown:
        remarks.append(f"not carried over, cdpipe has no such setting: {', '.join(unknown)}")
    return remarks
