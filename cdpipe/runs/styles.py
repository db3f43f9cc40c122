"""QGIS styles (.qml): QGIS takes the one that lies beside a layer and has its name."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from xml.etree.ElementTree import Element, SubElement, indent, tostring

Color = tuple[int, int, int, int]

CHANGE_LABELS = {0: "unchanged", 1: "changed"}
# Yellow, orange, red of ColorBrewer (YlOrRd, Apache 2.0); what is unlikely is see-through.
PROBABILITY_COLORS: Mapping[float, Color] = {
    0.0: (255, 255, 178, 0),
    0.25: (254, 204, 92, 120),
    0.5: (253, 141, 60, 200),
    0.75: (240, 59, 32, 255),
    1.0: (189, 0, 38, 255),
}
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_VERSION = "3.22.0"  # the first that writes symbols as it is done here


def change_style(colors: Mapping[int, Color]) -> bytes:
    """Style of a change mask: a colour each for those values that have a meaning; unchanged is see-through.

    Args:
        colors: Red, green, blue, alpha of every value.
    """
    root, renderer = _raster_style("paletted")
    palette = SubElement(renderer, "colorPalette")
    for value, label in CHANGE_LABELS.items():
        alpha = 255 if value else 0
        entry = {"value": str(value), "color": _hex(colors[value]), "alpha": str(alpha), "label": label}
        SubElement(palette, "paletteEntry", entry)
    return _text(root)


def probability_style() -> bytes:
    """Style of a probability: from see-through yellow to dark red."""
    root, renderer = _raster_style("singlebandpseudocolor", classificationMin="0", classificationMax="1")
    ramp = SubElement(
        SubElement(renderer, "rastershader"),
        "colorrampshader",
        {
            "colorRampType": "INTERPOLATED",
            "classificationMode": "1",
            "clip": "0",
            "minimumValue": "0",
            "maximumValue": "1",
        },
    )
    for value, color in PROBABILITY_COLORS.items():
        entry = {"value": f"{value:g}", "label": f"{value:.0%}", "color": _hex(color), "alpha": str(color[3])}
        SubElement(ramp, "item", entry)
    return _text(root)


def objects_style() -> bytes:
    """Style of change objects: coloured by their mean probability, in four classes."""
    root = Element("qgis", {"version": _VERSION, "styleCategories": "Symbology"})
    renderer = SubElement(
        root,
        "renderer-v2",
        {
            "type": "graduatedSymbol",
            "attr": "probability_mean",
            "graduatedMethod": "GraduatedColor",
            "symbollevels": "0",
            "enableorderby": "0",
            "forceraster": "0",
        },
    )
    ranges, symbols = SubElement(renderer, "ranges"), SubElement(renderer, "symbols")
    bounds = list(PROBABILITY_COLORS.items())
    for number, ((low, _), (high, color)) in enumerate(pairwise(bounds)):
        where = {"lower": f"{low:.6f}", "upper": f"{high:.6f}", "symbol": str(number), "render": "true"}
        SubElement(ranges, "range", {**where, "label": f"{low:.0%} to {high:.0%}"})
        kind = {"type": "fill", "name": str(number), "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"}
        layer = SubElement(
            SubElement(symbols, "symbol", kind),
            "layer",
            {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"},
        )
        _add_options(
            layer,
            [
                ("color", ",".join(map(str, (*color[:3], 70)))),
                ("outline_color", ",".join(map(str, (*color[:3], 255)))),
                ("outline_style", "solid"),
                ("outline_width", "0.5"),
                ("outline_width_unit", "MM"),
                ("style", "solid"),
            ],
        )
    return _text(root)


def _raster_style(kind: str, **more: str) -> tuple[Element, Element]:
    """A style and its renderer."""
    root = Element("qgis", {"version": _VERSION, "styleCategories": "Symbology"})
    attributes = {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": "", **more}
    renderer = SubElement(SubElement(root, "pipe"), "rasterrenderer", attributes)
    SubElement(renderer, "rasterTransparency")
    return root, renderer


def _add_options(layer: Element, options: Iterable[tuple[str, str]]) -> None:
    group = SubElement(layer, "Option", {"type": "Map"})
    for name, value in options:
        SubElement(group, "Option", {"type": "QString", "name": name, "value": value})


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color[:3])


def _text(root: Element) -> bytes:
    indent(root)
    return (_DOCTYPE + tostring(root, encoding="unicode") + "\n").encode()
