"""QGIS styles: well-formed, with the parts that QGIS looks for. QGIS itself is not run."""

from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, fromstring

import pytest

from cdpipe.formats.cog import CHANGE_COLORS
from cdpipe.runs.styles import write_style
from cdpipe.workspace.location import here

Kind = Literal["change", "probability", "objects"]


def parse(folder: Path, kind: Kind) -> Element:
    path = write_style(here(folder / "p_change.tif"), kind)
    assert path.name == "p_change.qml"
    style = path.read_bytes()
    assert style.startswith(b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n")
    root = fromstring(style)  # noqa: S314 (our own)
    assert root.tag == "qgis"
    return root


def test_a_change_mask_has_its_own_colours(tmp_path: Path) -> None:
    renderer = parse(tmp_path, "change").find("pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = renderer.findall("colorPalette/paletteEntry")
    assert [entry.get("value") for entry in entries] == ["0", "1"]
    for entry in entries:
        red, green, blue, _ = CHANGE_COLORS[int(str(entry.get("value")))]
        assert entry.get("color") == f"#{red:02x}{green:02x}{blue:02x}"
    assert [entry.get("alpha") for entry in entries] == ["0", "255"]


def test_a_probability_runs_from_nought_to_one(tmp_path: Path) -> None:
    renderer = parse(tmp_path, "probability").find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "singlebandpseudocolor"
    items = renderer.findall("rastershader/colorrampshader/item")
    assert [float(str(item.get("value"))) for item in items] == [0, 0.25, 0.5, 0.75, 1]
    assert [item.get("alpha") for item in items] == ["0", "120", "200", "255", "255"]  # unlikely: see-through
    assert [item.get("color") for item in items] == ["#ffffb2", "#fecc5c", "#fd8d3c", "#f03b20", "#bd0026"]


def test_every_class_of_objects_has_a_symbol(tmp_path: Path) -> None:
    renderer = parse(tmp_path, "objects").find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("graduatedSymbol", "probability_mean")
    ranges, symbols = renderer.findall("ranges/range"), renderer.findall("symbols/symbol")
    assert [each.get("symbol") for each in ranges] == [each.get("name") for each in symbols]
    bounds = [(float(str(each.get("lower"))), float(str(each.get("upper")))) for each in ranges]
    assert (bounds[0][0], bounds[-1][1]) == (0, 1)
    assert [high for _, high in bounds[:-1]] == [low for low, _ in bounds[1:]]
    for symbol in symbols:
        assert symbol.get("type") == "fill"
        names = {option.get("name") for option in symbol.findall("layer/Option/Option")}
        assert {"color", "outline_color", "outline_width", "style"} <= names


@pytest.mark.parametrize("kind", ["change", "probability", "objects"])
def test_styles_say_that_they_are_of_symbols_alone(tmp_path: Path, kind: Kind) -> None:
    """Of a user's layer nothing else is touched: no name, no scale, no attribute form."""
    assert parse(tmp_path, kind).get("styleCategories") == "Symbology"
