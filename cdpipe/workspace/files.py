"""Small files of JSON: the same bytes for the same value, and sealed so that no change goes unseen."""

import hashlib
import json
import math
from typing import Any

from cdpipe.workspace.location import Location

SEAL = "sha256_of_the_rest"


def write_json(file: Location, value: Any) -> None:
    """Write a JSON file atomically, the same bytes for the same value; NaN becomes null."""
    file.write(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A JSON file's content, the same bytes for the same value; NaN becomes null."""
    return (json.dumps(_without_nan(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_if_other(file: Location, data: bytes) -> None:
    """Write a file atomically, unless it has these bytes already: what did not change keeps its time."""
    try:
        same = file.read_bytes() == data
    except (FileNotFoundError, NotADirectoryError):
        same = False
    if not same:
        file.write(data)


def read_json(file: Location) -> Any:
    """Read a JSON file, or None where there is none or it is damaged."""
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def write_sealed(file: Location, values: dict[str, Any]) -> None:
    """Write a JSON file with a hash of the values among them."""
    write_json(file, {**values, SEAL: _seal(values)})


def read_sealed(file: Location) -> dict[str, Any] | None:
    """What :func:`write_sealed` wrote, or None where there is nothing or anything else."""
    values = read_json(file)
    if not isinstance(values, dict):
        return None
    seal = values.pop(SEAL, None)
    return values if seal == _seal(values) else None


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_without_nan(values), sort_keys=True).encode()).hexdigest()


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
