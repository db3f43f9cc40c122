"""QGIS styles: well-formed, with the parts that QGIS looks for. QGIS itself is not run."""

from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import numpy as np
import pytest

from cdpipe.evaluation.area_sample import ANSWERS
from cdpipe.formats import palette
from cdpipe.formats.cog import CHANGE_COLORS
from cdpipe.report.drawing import probability_colors
from cdpipe.runs.styles import Kind, write_style
from cdpipe.workspace.location import here


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
    values = [float(str(item.get("value"))) for item in items]
    assert (values[0], values[-1], len(values)) == (0, 1, 9)
    opacities = [int(str(item.get("alpha"))) for item in items]
    assert opacities == sorted(opacities), "what is unlikely is see-through"
    assert (opacities[0], opacities[-1]) == (0, 255)
    (colors,) = probability_colors(np.array([values])).tolist()
    assert [item.get("color") for item in items] == ["#{:02x}{:02x}{:02x}".format(*color) for color in colors]


def test_every_class_of_objects_has_a_symbol(tmp_path: Path) -> None:
    renderer = parse(tmp_path, "objects").find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("graduatedSymbol", "probability_mean")
    ranges, symbols = renderer.findall("ranges/range"), renderer.findall("symbols/symbol")
    assert [each.get("symbol") for each in ranges] == [each.get("name") for each in symbols]
    bounds = [(float(str(each.get("lower"))), float(str(each.get("upper")))) for each in ranges]
    assert (bounds[0][0], bounds[-1][1]) == (0, 1)
    assert [high for _, high in bounds[:-1]] == [low for low, _ in bounds[1:]]
    (colors,) = probability_colors(np.array([[(low + high) / 2 for low, high in bounds]])).tolist()
    for symbol, color in zip(symbols, colors, strict=True):
        assert symbol.get("type") == "fill"
        options = {str(each.get("name")): str(each.get("value")) for each in symbol.findall("layer/Option/Option")}
        assert {"color", "outline_color", "outline_width", "style"} <= options.keys()
        assert options["outline_color"] == ",".join(map(str, (*color, 255))), "the report's colours of probability"


def test_points_to_label_offer_the_answers_that_are_read(tmp_path: Path) -> None:
    style = parse(tmp_path, "sample")
    assert style.get("styleCategories") == "Symbology|Fields|Forms"
    renderer = style.find("renderer-v2")
    assert renderer is not None
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "change")
    categories = renderer.findall("categories/category")
    assert {str(each.get("value")) for each in categories} == {*ANSWERS, ""}, "those without a label, too"
    assert [each.get("symbol") for each in categories] == [
        each.get("name") for each in renderer.findall("symbols/symbol")
    ]
    field = style.find("fieldConfiguration/field")
    assert field is not None
    assert field.get("name") == "change"
    listed = field.findall("editWidget[@type='ValueMap']/config/Option/Option[@name='map']/Option/Option")
    assert {str(each.get("value")) for each in listed} == set(ANSWERS)
    fixed = {str(each.get("name")): each.get("editable") for each in style.findall("editable/field")}
    assert fixed == {"fid": "0", "id": "0", "pair_id": "0", "change": "1"}
    red = renderer.findall("symbols/symbol")[[each.get("value") for each in categories].index("1")]
    colors = [str(each.get("value")) for each in red.findall("layer/Option/Option[@name='color']")]
    assert colors[-1] == ",".join(map(str, (*palette.CHANGED, 255)))


@pytest.mark.parametrize("kind", ["change", "probability", "objects"])
def test_styles_say_that_they_are_of_symbols_alone(tmp_path: Path, kind: Kind) -> None:
    """Of a user's layer nothing else is touched: no name, no scale, no attribute form."""
    assert parse(tmp_path, kind).get("styleCategories") == "Symbology"
