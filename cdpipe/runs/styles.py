"""QGIS styles (.qml): QGIS takes the one that lies beside a layer and has its name."""

from pathlib import Path
from typing import Literal

from cdpipe.workspace.local import write_atomically

# Probabilities run from see-through yellow to dark red: YlOrRd of ColorBrewer (Apache 2.0).
STYLES = Path(__file__).resolve().parent / "qml"


def style_path(layer: Path) -> Path:
    """Where QGIS looks for a layer's style."""
    return layer.with_suffix(".qml")


def write_style(layer: Path, kind: Literal["change", "probability", "objects"]) -> Path:
    """Write the style of a change mask, a probability or change objects beside a layer; its file."""
    path = style_path(layer)
    write_atomically(path, (STYLES / f"{kind}.qml").read_bytes())
    return path
