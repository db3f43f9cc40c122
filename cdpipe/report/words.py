"""The report's words and numbers: areas, shares and figures as people read them, and the summary in sentences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from cdpipe.units import three_digits

UNKNOWN = "–"
ENSEMBLE, BASELINE = "ensemble", "grey difference"  # layers that are no models


def area(square_metres: float | None, pixels: float | None = None) -> str:
    """An area in the unit that suits it, of three digits; in pixels where it is not known in metres."""
    if square_metres is None:
        return UNKNOWN if pixels is None else f"{pixels:,.0f} px"
    # a hectare is a field, a square kilometre a village
    large = [(unit, size) for unit, size in (("km²", 1e6), ("ha", 1e4)) if square_metres >= size]
    unit, size = large[0] if large else ("m²", 1.0)
    return f"{three_digits(square_metres / size)} {unit}"


def share(part: float | None, whole: float | None) -> str:
    """A part in percent; small ones keep two digits."""
    if not whole or part is None:
        return UNKNOWN
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent >= 1 or percent == 0 else f"{percent:.2g} %"


def degrees(place: Sequence[float], pixel_m: float | None) -> str:
    """Longitude and latitude of WGS 84 as people write them, to a pixel or finer."""
    lon, lat = place
    digits = min(7, max(3, math.ceil(5.05 - math.log10(pixel_m or 1.0))))
    lon -= 360 * math.floor((lon + 180) / 360)
    north, east = "S" if lat < 0 else "N", "W" if lon < 0 else "E"
    return f"{abs(lat):.{digits}f}° {north}, {abs(lon):.{digits}f}° {east}"


def figure(value: Any) -> str:
    """A score with three decimals, a count with none."""
    if value is None or not isinstance(value, int | float) or not math.isfinite(value):
        return UNKNOWN if value is None or isinstance(value, int | float) else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number of things."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def took(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def enumerate_names(names: Sequence[str]) -> str:
    """Names as a list in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def summarise(
    totals: Mapping[str, float | None],
    states: Mapping[str, int],
    pooled: Sequence[Mapping[str, Any]],
    threshold: tuple[str, float, str],
    cut: tuple[Sequence[str], Sequence[str]] = ((), ()),
    models: int = 2,
) -> list[str]:
    """The run in sentences.

    Args:
        totals: ``observed_px``, ``changed_px``, ``observed_m2``, ``changed_m2`` of all pairs; the last two None where
            they are not known of every pair.
        states: How many pairs are ``finished``, ``failed`` and ``skipped``.
        pooled: Rows of the evaluation pooled over splits.
        threshold: Kind of ensemble, its threshold, and what that was fitted on.
        cut: Names of pairs that are cut into strips, and of the splits that these are.
        models: How many there are.
    """
    kind, value, fitted_on = threshold
    seen = f"{area(totals['observed_m2'], totals['observed_px'])} observed at both dates"
    changed = (
        f"{area(totals['changed_m2'], totals['changed_px'])}, {share(totals['changed_px'], totals['observed_px'])}"
    )
    sentences = [_states(states)]
    if states["finished"]:
        sentences.append(f"Of {seen}, {changed}, changed.")
        sentences += _scores(pooled, cut[1])
        if cut[0]:
            scenes = f"the same scene, {cut[0][0]}" if len(cut[0]) == 1 else f"the same {len(cut[0])} scenes"
            sentences.append(
                f"{enumerate_names(cut[1]).capitalize()} are strips of {scenes}, with a patch in between: figures on "
                "them say what to expect on the rest of it, and less of any other."
            )
        rule = (
            "more than half of the models see it"
            if kind == "vote"
            else f"the {'ensemble' if models > 1 else 'model'}'s probability reaches {value:.3g}"
        )
        sentences.append(f"A pixel counts as changed where {rule} ({fitted_on}).")
    return sentences


def _states(states: Mapping[str, int]) -> str:
    total = sum(states.values())
    if states["finished"] == total == 1:
        return "One pair of scenes was compared; it is finished."
    if states["finished"] == total:
        return f"{count(total, 'pair')} of scenes were compared; all are finished."
    others = [f"{states[state]:,} {state}" for state in ("failed", "skipped") if states[state]]
    finished = f"Of {count(total, 'pair')} of scenes {states['finished']:,} are finished"
    return f"{finished}, {enumerate_names(others)}; reasons are below."


def _scores(pooled: Sequence[Mapping[str, Any]], cut: Sequence[str]) -> list[str]:
    """What the ensemble and the best model reached on the most telling split there is."""
    sentences = list[str]()
    for split, meaning in (
        ("test", "test {}, which neither training nor selection saw"),
        ("val", "validation {}, on which epochs and threshold were chosen"),
        ("unsplit", "labelled {}, of no split"),
    ):
        what = "strip" if split in cut else "pair"
        rows = {row["layer"]: row for row in pooled if row["split"] == split and is_known(row.get("iou"))}
        barren = [row for row in pooled if row["split"] == split and row["layer"] != BASELINE and _is_barren(row)]
        if barren:
            pairs = count(barren[0]["pairs"], f"{'labelled' if split == 'unsplit' else split} {what}")
            sentences.append(f"No pixel of the labels of {pairs} changed, so their figures say nothing.")
            continue
        models = [row for name, row in rows.items() if name not in (ENSEMBLE, BASELINE)]
        if ENSEMBLE not in rows and len(models) != 1:
            continue
        subject = ENSEMBLE if ENSEMBLE in rows else "model"  # an ensemble of one model has no row of its own
        whole = rows[ENSEMBLE] if ENSEMBLE in rows else models.pop()
        judged = count(whole["pairs"], meaning.format(what), meaning.format(f"{what}s"))
        text = f"On {judged}, the {subject}'s IoU is "
        text += f"{whole['iou']:.3f}{_interval(whole, 'iou')}, its F1 {whole['f1']:.3f}"
        if models:
            best = max(models, key=lambda row: float(row["iou"]))
            text += f"; the best single model, {best['layer']}, has IoU {best['iou']:.3f}"
        base = rows.get(BASELINE)
        text += f"; thresholding the difference of the dates could reach {base['iou']:.3f}" if base else ""
        return [*sentences, text + "."]
    return sentences


def _is_barren(row: Mapping[str, Any]) -> bool:
    """Whether no labelled pixel of a row changed."""
    return row.get("tp") == 0 and row.get("fn") == 0


def _interval(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return "" if low is None or high is None else f" (interval over pairs {low:.3f} to {high:.3f})"


def is_known(value: Any) -> TypeGuard[float]:
    """Whether a figure is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
