"""QGIS styles (.qml): QGIS takes the one that lies beside a layer and has its name."""

import functools
import hashlib
from pathlib import Path
from typing import Literal, get_args

from cdpipe.workspace.location import Location

# Probabilities have the colours of the report, palette.MAGMA_FROM_BRIGHT, and unlikely ones are see-through.
STYLES = Path(__file__).resolve().parent / "qml"

Kind = Literal["change", "probability", "objects", "sample"]


def style_path(layer: Location) -> Location:
    """Where QGIS looks for a layer's style."""
    return layer.with_suffix(".qml")


def write_style(layer: Location, kind: Kind) -> Location:
    """Write the style of a change mask, a probability, change objects or a sample beside a layer; its file."""
    path = style_path(layer)
    path.write(_style(kind))
    return path


def read_styles() -> dict[str, str]:
    """Every style as XML, by what it is of."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    return {kind: _style(kind).decode() for kind in kinds}


def style_digest(*kinds: Kind) -> str:
    """What content keys of layers with these styles have of them."""
    return hashlib.sha256(b"".join(map(_style, kinds))).hexdigest()


@functools.cache
def _style(kind: Kind) -> bytes:
    return (STYLES / f"{kind}.qml").read_bytes()
