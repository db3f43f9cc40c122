"""What a pair's page shows, as its template wants it."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cdpipe.arrays.rendering import probability_colors
from cdpipe.stages import report_tables as tables
from cdpipe.stages import report_words as words
from cdpipe.stages.report_content import PairPage, Report

CRISP = 700  # scenes of fewer pixels a side are shown pixel by pixel
SCALE_SHARE = 0.3  # of the picture's width that a scale bar takes at most
STEPS = 9  # of colour in the probabilities' legend
COMPASS = ("up", "up and right", "right", "down and right", "down", "down and left", "left", "up and left")


def describe_pair(
    report: Report, pair: PairPage, neighbours: tuple[PairPage | None, PairPage | None]
) -> dict[str, Any]:
    """Everything that a pair's template names.

    Args:
        report: The whole report.
        pair: The pair.
        neighbours: The pairs before and after it.
    """
    rows = [row for row in report.rows if row["pair_id"] == pair.pair_id]
    changes = [describe_change(pair, each) for each in pair.facts["objects"]]
    previous, after = ({"page": each.page, "name": each.name} if each else None for each in neighbours)
    return {
        "run": report.run,
        "previous": previous,
        "next": after,
        "pair": _describe(pair),
        "changes": [{**each, "rank": rank} for rank, each in enumerate(changes, 1)],
        "review": [review_feature(each) for each in changes],
        "table": tables.figures_table(rows, "Against its label.", by_split=False) if rows else None,
        "audits": tables.audit_list(tables.audits_of(report.audits, pair.pair_id)),
    }


def _describe(pair: PairPage) -> dict[str, Any]:
    facts = pair.facts
    height, width = facts["cells"]
    layers = [("change", "Detected change"), ("probability", "Probability of change")]
    if facts["labelled"]:
        layers += [("label", "Labelled change"), ("outcomes", "Hits and misses")]
    return {
        "id": pair.pair_id,
        "name": pair.name,
        "before": pair.dates[0],
        "after": pair.dates[1],
        "width": width,
        "height": height,
        "cell": facts["cell"],
        "crisp": max(height, width) < CRISP,
        "numbers": [{"name": name, "lines": lines} for name, *lines in _numbers(pair)],
        "layers": [{"file": file, "name": name} for file, name in layers],
        "labelled": facts["labelled"],
        "unlabelled": bool(facts["figures"].get("unlabelled")),
        "north": facts["north"],
        "north_text": "" if facts["north"] is None else COMPASS[round(facts["north"] / 45) % 8],
        "scale": _scale(facts),
        "ramp": ["rgb({} {} {})".format(*color) for color in probability_colors(np.linspace(0, 1, STEPS)[None])[0]],
        "files": [{"name": name, "href": f"../../{path}"} for name, path in pair.files],
    }


def _numbers(pair: PairPage) -> list[tuple[str, ...]]:
    """Name and lines of the facts below the title."""
    facts, figures = pair.facts, pair.facts["figures"]
    height, width = facts["size"]
    pixel = [] if facts["pixel_m"] is None else [f"{facts['pixel_m']:.3g} m per pixel"]
    first, second = pair.sensors
    numbers: list[tuple[str, ...]] = [
        *([("Dates", *(date or "?" for date in pair.dates))] if any(pair.dates) else []),
        ("Sensors" if first != second else "Sensor", f"{first} to {second}" if first != second else first),
        ("Size", f"{width:,} × {height:,} pixels", *pixel),
        ("Observed at both dates", words.area(figures["observed_m2"], figures["observed_px"])),
        ("Changed", words.area(figures["changed_m2"], figures["changed_px"])),
        ("Changed share", words.share(figures["changed_px"], figures["observed_px"])),
    ]
    return [*numbers, ("Split", pair.split)] if pair.split else numbers


def _scale(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """A bar of a round length, as a share of the picture's width."""
    if facts["pixel_m"] is None:
        return None
    whole = facts["pixel_m"] * facts["size"][1]
    power = 10 ** math.floor(math.log10(whole * SCALE_SHARE))
    length = max(step * power for step in (1, 2, 5) if step * power <= whole * SCALE_SHARE)
    # the pictures' last cell may reach beyond the scene
    drawn = facts["pixel_m"] * facts["cells"][1] * facts["cell"]
    return {
        "share": round(100 * length / drawn, 2),
        "text": f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m",
    }


def describe_change(pair: PairPage, change: Mapping[str, Any]) -> dict[str, Any]:
    """A change as a card of the gallery shows it."""
    agreement = change["agreement"]
    return {
        **change,
        "pair_id": pair.pair_id,
        "name": pair.name,
        "page": pair.page,
        "area": words.area(change["area_m2"], change["pixels"]),
        "probability": f"{change['probability_mean']:.2f}",
        "agreement": None if agreement is None else f"{100 * agreement:.0f} %",
        "in_pixels": pair.facts["pixel_m"] is None,
    }


def review_feature(change: Mapping[str, Any]) -> dict[str, Any]:
    """A change as it stands in a saved review, but for the verdict."""
    properties = {"pair_id": change["pair_id"], "change": change["id"], "pixels": change["in_pixels"]}
    return {
        "type": "Feature",
        "id": f"{change['pair_id']}/{change['id']}",
        "geometry": change["outline"],
        "properties": properties,
    }
