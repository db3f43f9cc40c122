"""Content keys: equal ingredients give equal keys, on any machine, at any time."""

import hashlib
import json
from typing import Any

# Stands in for the code: raise a stage's number when a change to it changes what it writes.
FORMATS = {
    "pair": 2,
    "coregistration": 1,
    "shift": 1,
    "label": 1,
    "model": 2,
    "calibration": 1,
    "detector": 1,
    "engine": 1,
    "probability": 1,
    "change": 1,
    "raster": 2,
    "vector": 1,
    "layer": 1,
    "mosaic": 1,
    "stac": 1,
    "ensemble": 1,
    "evaluation": 1,
    "tables": 1,
    "audit": 1,
    "report": 1,
    "page": 1,
}


def content_key(kind: str, ingredients: dict[str, Any]) -> str:
    """Hash what a result is made of.

    Args:
        kind: The kind of result, one of ``FORMATS``.
        ingredients: Everything that bears on the result, as JSON values. No paths, clocks or worker counts.

    Returns:
        The first 12 hexadecimal digits of a SHA-256.
    """
    text = json.dumps([kind, FORMATS[kind], ingredients], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
