"""What a pair's page shows of it, as its template names it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cdpipe.report import drawing, tables, words
from cdpipe.report.facts import PairPage, Report
from cdpipe.report.project import describe_project
from cdpipe.report.worth import Worth, judge_pair

CRISP = 700  # scenes of fewer pixels a side are shown pixel by pixel
STEPS = 9  # of colour in the probabilities' legend
COMPASS = ("up", "up and right", "right", "down and right", "down", "down and left", "left", "up and left")
CORNERS = (("upper left", 0, 0), ("upper right", 1, 0), ("lower right", 1, 1), ("lower left", 0, 1))
TEXT_WIDTH = 18  # a picture is as many letters high, or wide


def describe_pair(
    report: Report, pair: PairPage, neighbours: tuple[PairPage | None, PairPage | None]
) -> dict[str, Any]:
    """Everything that a pair's template names.

    Args:
        report: The whole report.
        pair: The pair.
        neighbours: The pairs before and after it.
    """
    rows = tables.without_twins(row for row in report.rows if row["pair_id"] == pair.pair_id)
    changes = [describe_change(pair, change) for change in pair.facts["objects"]]
    project = describe_project(pair.name, pair.facts, pair.files, report.styles) if report.styles else None
    previous, after = ({"page": other.page, "name": other.name} if other else None for other in neighbours)
    return {
        "run": {name: report.run[name] for name in ("name", "version")},  # the rest would change with other pairs
        "previous": previous,
        "next": after,
        "pair": _describe(pair),
        "project": project,
        "worth": describe_worth(judge_pair(report, pair)),
        "changes": [{**change, "rank": rank} for rank, change in enumerate(changes, 1)],
        "no_objects": pair.no_objects,
        "review": review_features(changes),
        "to_label": report.to_label,
        "table": tables.figures_table(rows, "Against its label.", by_split=bool(pair.strips)) if rows else None,
        "audits": tables.audit_list(tables.audits_of(report.audits, pair.pair_id)),
    }


def describe_worth(worth: Worth) -> dict[str, Any]:
    """A judgement as the line on top of a page shows it."""
    return {"line": worth.line, "bad": worth.bad, "reasons": list(worth.reasons)}


def _describe(pair: PairPage) -> dict[str, Any]:
    return {
        **describe_viewer(pair.pair_id, pair.facts, pair.dates, pair.models),
        "name": pair.name,
        "numbers": [{"name": name, "lines": lines} for name, *lines in _pair_numbers(pair)],
        "strips": strip_map(pair),
        "verdicts": pair.no_verdicts is None,
        "no_verdicts": pair.no_verdicts,
        "files": [{"name": name, "href": f"../../{path}"} for name, path in pair.files],
    }


def describe_viewer(pair_id: str, facts: Mapping[str, Any], dates: tuple[str, str], models: int) -> dict[str, Any]:
    """What the part of a page names that shows both dates, ``viewer.html.j2``.

    Args:
        pair_id: The pair.
        facts: See :func:`cdpipe.report.pair.make_pair`.
        dates: Of both images, empty where they are not known.
        models: How many predicted it.
    """
    height, width = facts["cells"]
    aspect = facts["aspect"]
    (ramp,) = drawing.probability_colors(np.linspace(0, 1, STEPS)[None])
    layers = [("change", "Detected change"), ("probability", "Probability of change")]
    if facts["labelled"]:
        layers += [("label", "Labelled change"), ("outcomes", "Hits and misses")]
    return {
        "id": pair_id,
        "before": dates[0],
        "after": dates[1],
        "models": models,
        "width": round(width * max(1 / aspect, 1)),
        "height": round(height * max(aspect, 1)),
        "cell": facts["cell"],
        "crisp": max(height, width) < CRISP,
        "tiles": bool(facts["tiles"][0]),
        "live": False,
        "layers": [{"file": file, "name": name} for file, name in layers],
        "labelled": facts["labelled"],
        "unlabelled": bool(facts["figures"].get("unlabelled")),
        "north": facts["north"],
        "north_text": "" if facts["north"] is None else COMPASS[round(facts["north"] / 45) % 8],
        "scaled": facts["pixel_m"] is not None,
        "objects": facts["object_count"],
        "outlined": facts["outlined"],
        "ramp": ["rgb({} {} {})".format(*color) for color in ramp],
        **_describe_place(facts),
    }


def _describe_place(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Corners, coordinate system and links; no corners where pixels lie nowhere."""
    place, (height, width) = facts["place"], facts["size"]
    if not place:
        return {"corners": [], "crs": "", "pixel": "", "links": None, "extent": "No georeference: columns and rows."}
    a, b, c, d, e, f = place["transform"]
    x_size, y_size = math.hypot(a, d), math.hypot(b, e)
    digits = max(0, math.ceil(-math.log10(min(x_size, y_size))))
    degrees = place.get("corners") or [None] * 4
    corners = []
    for (name, col, row), at in zip(CORNERS, degrees, strict=True):
        x, y = a * col * width + b * row * height + c, d * col * width + e * row * height + f
        xy = "" if place["crs"] == "EPSG:4326" else f"{x:,.{digits}f}, {y:,.{digits}f}"
        corners.append({"name": name, "degrees": at and words.degrees(at, facts["pixel_m"]), "xy": xy})
    centre = place.get("centre")
    pixel = f"{x_size:.6g} × {y_size:.6g} units"
    if facts["pixel_m"] is not None:
        pixel = f"{facts['pixel_m']:.3g} × {facts['pixel_m'] * facts['aspect']:.3g} m"
    middle = f"Middle: {words.degrees(centre, facts['pixel_m'])} · " if centre else ""
    return {
        "corners": corners,
        "crs": place["crs"],
        "pixel": pixel,
        "links": centre and _links(centre, math.hypot(height * facts["aspect"], width) * facts["pixel_m"]),
        "extent": f"{middle}{place['crs']}",
    }


def _links(place: Sequence[float], metres: float) -> dict[str, str]:
    """Where else to see a place, given as longitude and latitude, of so many metres across."""
    lon, lat = place
    lon -= 360 * math.floor((lon + 180) / 360)
    zoom = min(19, max(2, round(math.log2(8e7 * math.cos(math.radians(lat)) / metres))))
    return {"osm": f"https://www.openstreetmap.org/#map={zoom}/{lat:.6f}/{lon:.6f}", "geo": f"geo:{lat:.6f},{lon:.6f}"}


def _pair_numbers(pair: PairPage) -> list[tuple[str, ...]]:
    """Name and lines of the facts below the title."""
    facts, figures = pair.facts, pair.facts["figures"]
    height, width = facts["size"]
    pixel = []
    if facts["pixel_m"] is not None:
        wide, high = (f"{metres:.3g}" for metres in (facts["pixel_m"], facts["pixel_m"] * facts["aspect"]))
        pixel = [f"{wide} m per pixel" if wide == high else f"{wide} × {high} m per pixel"]
    first, second = pair.sensors
    numbers: list[tuple[str, ...]] = [
        *([("Dates", *(date or "?" for date in pair.dates))] if any(pair.dates) else []),
        ("Sensors" if first != second else "Sensor", f"{first} to {second}" if first != second else first),
        ("Size", f"{width:,} × {height:,} pixels", *pixel),
        ("Observed at both dates", words.area(figures["observed_m2"], figures["observed_px"])),
        ("Changed", words.area(figures["changed_m2"], figures["changed_px"])),
        ("Changed share", words.share(figures["changed_px"], figures["observed_px"])),
    ]
    return [*numbers, ("Split", pair.splits)] if pair.splits else numbers


def strip_map(pair: PairPage) -> dict[str, Any] | None:
    """Where the strips of a pair lie in its pictures, in pixels; None where it is not cut."""
    if not pair.strips:
        return None
    rows, cols = (count * pair.facts["cell"] for count in pair.facts["cells"])
    aspect = pair.facts["aspect"]
    rows = round(rows * aspect)
    strips = [
        {
            "split": split,
            "x": at.col,
            "y": round(at.row * aspect),
            "width": at.width,
            "height": round(at.height * aspect),
        }
        for split, at in pair.strips.items()
    ]
    size = min(cols / TEXT_WIDTH, rows / TEXT_WIDTH)
    return {
        "id": pair.pair_id,
        "name": pair.name,
        "width": cols,
        "height": rows,
        "text": round(size, 1),
        "strips": strips,
    }


def describe_change(pair: PairPage, change: Mapping[str, Any]) -> dict[str, Any]:
    """A change as a card of the gallery shows it."""
    agreement = change["agreement"] if pair.models > 1 else None  # one model agrees with itself
    return {
        **change,
        "pair_id": pair.pair_id,
        "name": pair.name,
        "page": pair.page,
        "area": words.area(change["area_m2"], change["pixels"]),
        "probability": f"{change['probability_mean']:.2f}",
        "agreement": None if agreement is None else f"{agreement:.2f}",
        "in_pixels": pair.facts["pixel_m"] is None,
        "no_verdict": pair.no_verdicts,
    }


def review_features(changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Changes as they stand in a saved review, but for the verdict: those whose verdict can become a label."""
    return [
        {
            "type": "Feature",
            "id": f"{change['pair_id']}/{change['id']}",
            "geometry": change["outline"],
            "properties": {
                "pair_id": change["pair_id"],
                "change": change["id"],
                "pixels": change["in_pixels"],
            },
        }
        for change in changes
        if change["no_verdict"] is None
    ]


def changed_share(pair: PairPage) -> float:
    """Changed share of what was observed, 0 where nothing was."""
    figures = pair.facts["figures"]
    return float(figures["changed_px"] / figures["observed_px"]) if figures["observed_px"] else 0.0
