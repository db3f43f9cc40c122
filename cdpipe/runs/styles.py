"""QGIS styles (.qml): QGIS takes the one that lies beside a layer and has its name."""

from pathlib import Path
from typing import Literal

from cdpipe.workspace.location import Location

# Probabilities run from see-through yellow to dark red: YlOrRd of ColorBrewer (Apache 2.0).
STYLES = Path(__file__).resolve().parent / "qml"


def style_path(layer: Location) -> Location:
    """Where QGIS looks for a layer's style."""
    return layer.with_suffix(".qml")


def write_style(layer: Location, kind: Literal["change", "probability", "objects"]) -> Location:
    """Write the style of a change mask, a probability or change objects beside a layer; its file."""
    path = style_path(layer)
    path.write((STYLES / f"{kind}.qml").read_bytes())
    return path
