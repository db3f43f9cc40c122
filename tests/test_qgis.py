"""QGIS styles: well-formed, with the parts that QGIS looks for. QGIS itself is not run."""

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest

from cdpipe.formats.cog import CHANGE_COLORS
from cdpipe.runs.styles import PROBABILITY_COLORS, change_style, objects_style, probability_style


def parse(style: bytes) -> Element:
    assert style.startswith(b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n")
    root = fromstring(style)  # noqa: S314 (our own)
    assert root.tag == "qgis"
    return root


def test_a_change_mask_has_its_own_colours() -> None:
    renderer = parse(change_style(CHANGE_COLORS)).find("pipe/rasterrenderer")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = renderer.findall("colorPalette/paletteEntry")
    assert [entry.get("value") for entry in entries] == ["0", "1"]
    for entry in entries:
        red, green, blue, _ = CHANGE_COLORS[int(str(entry.get("value")))]
        assert entry.get("color") == f"#{red:02x}{green:02x}{blue:02x}"
    assert [entry.get("alpha") for entry in entries] == ["0", "255"]


def test_a_probability_runs_from_nought_to_one() -> None:
    renderer = parse(probability_style()).find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "singlebandpseudocolor"
    items = renderer.findall("rastershader/colorrampshader/item")
    values = [float(str(item.get("value"))) for item in items]
    assert values == sorted(PROBABILITY_COLORS) == [0, 0.25, 0.5, 0.75, 1]
    assert [int(str(item.get("alpha"))) for item in items] == [color[3] for color in PROBABILITY_COLORS.values()]


def test_every_class_of_objects_has_a_symbol() -> None:
    renderer = parse(objects_style()).find("renderer-v2")
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


@pytest.mark.parametrize("style", [change_style(CHANGE_COLORS), probability_style(), objects_style()])
def test_styles_are_read_as_files(tmp_path: Path, style: bytes) -> None:
    path = tmp_path / "x.qml"
    path.write_bytes(style)
    assert parse(path.read_bytes()).get("styleCategories") == "Symbology"
