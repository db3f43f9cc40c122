"""The report as HTML: what it is made of, what an index and a page a pair show of that, and their files."""

import functools
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cdpipe.formats import palette
from cdpipe.geo.grid import Window
from cdpipe.keys import content_key
from cdpipe.report import charts, drawing, tables, words
from cdpipe.workspace.files import read_sealed, write_if_other, write_sealed
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

TEMPLATES = Path(__file__).resolve().parent / "templates"
INDEX = "index.json"  # what index.html was made of
STYLES, SCRIPTS = ("base.css", "pictures.css"), ("table.js", "viewer.js", "review.js")
COLORS = {
    "changed": palette.CHANGED,
    "labelled": palette.LABELLED,
    "hit": palette.HIT,
    "miss": palette.MISS,
    "false-alarm": palette.FALSE_ALARM,
    "unlabelled": palette.UNLABELLED,
    "no-data": palette.NO_DATA_STRIPE,
}

CRISP = 700  # scenes of fewer pixels a side are shown pixel by pixel
SCALE_SHARE = 0.3  # of the picture's width that a scale bar takes at most
STEPS = 9  # of colour in the probabilities' legend
COMPASS = ("up", "up and right", "right", "down and right", "down", "down and left", "left", "up and left")
TEXT_WIDTH = 18  # a picture is as many letters high, or wide
MAPS = 6  # of scenes that are cut, in the index
TOP = 60  # changes in the index's gallery


@dataclass(frozen=True, slots=True)
class PairPage:
    """What the report knows of a pair.

    Attributes:
        pair_id: The pair.
        name: What its owner calls it.
        split: Its split, empty where it has none as a whole.
        dates: Of both images, empty where they are not known.
        sensors: Of both images.
        facts: See :func:`cdpipe.report.pair.make_pair`.
        files: Name and path, relative to the run's folder, of everything to hand on.
        strips: The pixels of each split, where the pair is cut.
        no_objects: Why it has no change objects; None where it has them, or none are wanted.
        models: How many predicted it.
    """

    pair_id: str
    name: str
    split: str
    dates: tuple[str, str]
    sensors: tuple[str, str]
    facts: Mapping[str, Any]
    files: Sequence[tuple[str, str]]
    strips: Mapping[str, Window] = field(default_factory=dict)
    no_objects: str | None = None
    models: int = 2

    @property
    def splits(self) -> str:
        """Its split, or those that it is cut into, in words."""
        return ", ".join(self.strips) or self.split

    @property
    def page(self) -> str:
        """File of its page."""
        return f"{self.pair_id}.html"


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report is made of.

    Attributes:
        run: ``name``, ``id`` (of its results), ``version``, ``finished``, ``ensemble``, ``threshold``, ``fitted_on``.
        pairs: Finished pairs.
        problems: Name, whether it failed (or was skipped) and reason of all others.
        models: Rows of the table of models.
        training: Charts.
        log: Rows of the table of stages.
        versions: Of libraries.
        configuration: YAML.
        files: Of the run, as those of a pair.
        evaluation: ``evaluation.json``, None without labels.
        audits: ``audits.json``, None without.
        doubts: Ways in which pairs are unlike all that the models learned from.
        to_label: Whether no pair has a label: then changes are ranked by how much a verdict would teach.
    """

    run: Mapping[str, Any]
    pairs: Sequence[PairPage]
    problems: Sequence[Mapping[str, Any]]
    models: Sequence[Mapping[str, Any]]
    training: Sequence[Mapping[str, Any]]
    log: Sequence[Mapping[str, Any]]
    versions: Mapping[str, str]
    configuration: str
    files: Sequence[tuple[str, str]]
    evaluation: Any = None
    audits: Any = None
    doubts: Sequence[str] = ()
    to_label: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the evaluation."""
        return tables.evaluation_rows(self.evaluation)


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
    previous, after = ({"page": other.page, "name": other.name} if other else None for other in neighbours)
    return {
        "run": {name: report.run[name] for name in ("name", "version")},  # the rest would change with other pairs
        "previous": previous,
        "next": after,
        "pair": _describe(pair),
        "changes": [{**change, "rank": rank} for rank, change in enumerate(changes, 1)],
        "no_objects": pair.no_objects,
        "review": [review_feature(change) for change in changes],
        "to_label": report.to_label,
        "table": tables.figures_table(rows, "Against its label.", by_split=bool(pair.strips)) if rows else None,
        "audits": tables.audit_list(tables.audits_of(report.audits, pair.pair_id)),
    }


def _describe(pair: PairPage) -> dict[str, Any]:
    facts = pair.facts
    height, width = facts["cells"]
    (ramp,) = drawing.probability_colors(np.linspace(0, 1, STEPS)[None])
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
        "numbers": [{"name": name, "lines": lines} for name, *lines in _pair_numbers(pair)],
        "layers": [{"file": file, "name": name} for file, name in layers],
        "strips": strip_map(pair),
        "labelled": facts["labelled"],
        "unlabelled": bool(facts["figures"].get("unlabelled")),
        "north": facts["north"],
        "north_text": "" if facts["north"] is None else COMPASS[round(facts["north"] / 45) % 8],
        "scale": _scale(facts),
        "ramp": ["rgb({} {} {})".format(*color) for color in ramp],
        "files": [{"name": name, "href": f"../../{path}"} for name, path in pair.files],
    }


def _pair_numbers(pair: PairPage) -> list[tuple[str, ...]]:
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
    return [*numbers, ("Split", pair.splits)] if pair.splits else numbers


def strip_map(pair: PairPage) -> dict[str, Any] | None:
    """Where the strips of a pair lie in its pictures, in pixels; None where it is not cut."""
    if not pair.strips:
        return None
    rows, cols = (count * pair.facts["cell"] for count in pair.facts["cells"])
    strips = [{"split": split, "x": at.col, "y": at.row, **_sides(at)} for split, at in pair.strips.items()]
    size = min(cols / TEXT_WIDTH, rows / TEXT_WIDTH)
    return {
        "id": pair.pair_id,
        "name": pair.name,
        "width": cols,
        "height": rows,
        "text": round(size, 1),
        "strips": strips,
    }


def _sides(window: Window) -> dict[str, int]:
    return {"width": window.width, "height": window.height}


def _scale(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """A bar of a round length, as a share of the picture's width."""
    if facts["pixel_m"] is None:
        return None
    whole = facts["pixel_m"] * facts["size"][1]
    length, name = drawing.round_length(whole * SCALE_SHARE)
    # the pictures' last cell may reach beyond the scene
    drawn = facts["pixel_m"] * facts["cells"][1] * facts["cell"]
    return {"share": round(100 * length / drawn, 2), "text": name}


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


def describe_index(report: Report) -> dict[str, Any]:
    """Everything that the index's template names."""
    totals = _totals(report.pairs)
    states = {
        "finished": len(report.pairs),
        "failed": sum(bool(problem["failed"]) for problem in report.problems),
        "skipped": sum(not problem["failed"] for problem in report.problems),
    }
    pooled = tables.without_twins(row for row in report.rows if row["pair_id"] is None)
    run = report.run
    # of a pair that is cut the last strip's: that of test, where there is one
    scores = {row["pair_id"]: row for row in report.rows if row["layer"] == "ensemble" and row["pair_id"]}
    cut = [each for pair in report.pairs if (each := strip_map(pair)) is not None]
    cut_splits = list(dict.fromkeys(split for pair in report.pairs for split in pair.strips))
    every = _ranked(report)
    changes = every[:TOP]
    most = max((changed_share(pair) for pair in report.pairs), default=0.0) or 1.0
    caption = "Pooled over the pairs of each split: every pixel counts once."
    return {
        "run": {**run, "threshold": f"{run['threshold']:.3g}"},
        "sentences": words.summarise(
            totals,
            states,
            pooled,
            (run["ensemble"], run["threshold"], run["fitted_on"]),
            ([each["name"] for each in cut], cut_splits),
            models=len(report.models),
        ),
        "alerts": [*tables.evaluation_doubts(report.evaluation), *report.doubts],
        "numbers": _run_numbers(
            totals,
            states,
            pooled,
            cut=cut_splits,
            doubted=bool(tables.evaluation_doubts(report.evaluation)),
        ),
        "cut": cut[:MAPS],
        "pairs": [_pair_row(pair, scores.get(pair.pair_id, {}), most) for pair in report.pairs],
        "splits": sorted({pair.splits for pair in report.pairs}),
        "dated": any(any(pair.dates) for pair in report.pairs),
        "scored": bool(scores),
        "changes": [{**change, "rank": rank} for rank, change in enumerate(changes, 1)],
        "object_count": len(every),
        "to_label": report.to_label,
        "no_objects": [
            {"page": pair.page, "name": pair.name, "reason": pair.no_objects}
            for pair in report.pairs
            if pair.no_objects
        ],
        "review": [review_feature(change) for change in changes],
        "tables": [tables.figures_table(pooled, caption, by_split=True)] if pooled else [],
        "curves": charts.evaluation_charts(report.evaluation),
        "training": report.training,
        "audits": tables.audits_table(
            [(pair.page, pair.name, tables.audits_of(report.audits, pair.pair_id)) for pair in report.pairs]
        ),
        "problems": report.problems,
        "models": report.models,
        "log": report.log,
        "configuration": report.configuration,
        "versions": report.versions,
        "files": [{"name": name, "href": f"../{path}"} for name, path in report.files],
    }


def _ranked(report: Report) -> list[dict[str, Any]]:
    """All changes with chips, best first; where they are to be labelled by turns of each pair, so that all are seen."""
    turns = [
        (turn if report.to_label else 0, describe_change(pair, change))
        for pair in report.pairs
        for turn, change in enumerate(pair.facts["objects"])
    ]
    order = sorted(turns, key=lambda each: (each[0], -each[1]["score"], each[1]["pair_id"], each[1]["id"]))
    return [change for _, change in order]


def _totals(pairs: Sequence[PairPage]) -> dict[str, float | None]:
    names = ("observed_px", "changed_px", "observed_m2", "changed_m2")
    values = {name: [pair.facts["figures"][name] for pair in pairs] for name in names}
    return {name: None if None in of_pairs else math.fsum(of_pairs) for name, of_pairs in values.items()}


def _run_numbers(
    totals: Mapping[str, float | None],
    states: Mapping[str, int],
    pooled: Sequence[Mapping[str, Any]],
    *,
    cut: Collection[str],
    doubted: bool,
) -> list[dict[str, str]]:
    """What stands large beside the summary; an area never stands alone that its labels say is none."""
    others = ", ".join(f"{states[state]} {state}" for state in ("failed", "skipped") if states[state])
    numbers = [{"name": "Pairs finished", "value": f"{states['finished']:,}", "note": others}]
    changed = words.area(totals["changed_m2"], totals["changed_px"])
    seen = words.area(totals["observed_m2"], totals["observed_px"])
    part = words.share(totals["changed_px"], totals["observed_px"])
    rows = [
        (row, f"{meaning} {'strips' if split in cut else 'pairs'}")
        for split, meaning in (("test", "unseen test"), ("val", "validation"), ("unsplit", "labelled"))
        for row in _judged(pooled, split)
        if row.get("iou") is not None
    ]
    doubt = f"; not to be believed, with an IoU of {words.figure(rows[0][0]['iou'])}" if rows and doubted else ""
    numbers.append({"name": "Changed", "value": changed, "note": f"{part} of {seen} observed{doubt}"})
    for row, meaning in rows[:1]:
        name = f"IoU of the {'ensemble' if row['layer'] == words.ENSEMBLE else 'model'}"
        numbers.append({"name": name, "value": words.figure(row["iou"]), "note": f"pooled over {meaning}"})
    return numbers


def _judged(pooled: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    """The row of a split's ensemble; of an ensemble of one model, which has none, that of the model."""
    own = [row for row in pooled if row["split"] == split and row["layer"] != words.BASELINE]
    return [row for row in own if row["layer"] == words.ENSEMBLE] or (own if len(own) == 1 else [])


def changed_share(pair: PairPage) -> float:
    """Changed share of what was observed, 0 where nothing was."""
    figures = pair.facts["figures"]
    return float(figures["changed_px"] / figures["observed_px"]) if figures["observed_px"] else 0.0


def _pair_row(pair: PairPage, scores: Mapping[str, Any], most: float) -> dict[str, Any]:
    figures = pair.facts["figures"]
    return {
        "id": pair.pair_id,
        "name": pair.name,
        "page": pair.page,
        "split": pair.splits or words.UNKNOWN,
        "dates": pair.dates,
        "observed": words.area(figures["observed_m2"], figures["observed_px"]),
        "observed_value": figures["observed_m2"] or figures["observed_px"],
        "changed": words.area(figures["changed_m2"], figures["changed_px"]),
        "changed_value": figures["changed_px"] if figures["changed_m2"] is None else figures["changed_m2"],
        "share": words.share(figures["changed_px"], figures["observed_px"]),
        "share_value": changed_share(pair),
        "meter": round(100 * changed_share(pair) / most, 1),
        **{name: words.figure(scores.get(name)) for name in ("iou", "f1")},
        **{f"{name}_value": "" if scores.get(name) is None else scores[name] for name in ("iou", "f1")},
    }


@functools.cache
def templates() -> Environment:
    """Names of pairs are other people's text, so everything is escaped; a variable that is missing is a mistake."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """A page, before it is written. What it shows follows from its template and these values alone.

    Attributes:
        path: Its file.
        template: Name of its template.
        context: Everything that the template names, as JSON values.
    """

    path: Location
    template: str
    context: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Content key of the page."""
        return content_key(
            "page",
            {
                "file": self.path.name,
                "template": self.template,
                "templates": _templates_digest(),
                "context": dict(self.context),
            },
        )


def plan_pages(folder: Location, report: Report) -> list[Page]:
    """A page for each pair, in their order.

    Args:
        folder: The report's, in which pictures of pairs lie already.
        report: What to show.
    """
    neighbours = zip([None, *report.pairs], report.pairs, [*report.pairs[1:], None], strict=False)
    return [
        Page(
            folder / "pairs" / pair.page,
            "pair.html.j2",
            {"root": "../", **describe_pair(report, pair, (before, after))},
        )
        for before, pair, after in neighbours
    ]


def write_page(page: Page) -> dict[Location, str]:
    """Write a page; the same values give the same bytes.

    Returns:
        Its file with its SHA-256.
    """
    page.path.write(templates().get_template(page.template).render(page.context).encode())
    return hash_stored([page.path])


def write_index(folder: Location, report: Report) -> Location:
    """Write the first page, and the style and the script of all.

    Args:
        folder: The report's.
        report: What to show.

    Returns:
        The page.
    """
    palette = "".join(f"--{name}: rgb({red} {green} {blue}); " for name, (red, green, blue) in COLORS.items())
    style = [f":root {{ {palette}}}\n", *((TEMPLATES / name).read_text(encoding="utf-8") for name in STYLES)]
    # here and not in the pages of pairs, each of which would be another with every pair that changes
    script = [f"const REPORT = {json.dumps(report.run['id'])};"]
    script += [(TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    write_if_other(folder / "report.css", "".join(style).encode())
    write_if_other(folder / "report.js", "\n".join(script).encode())
    page = Page(folder / "index.html", "index.html.j2", {"root": "", **describe_index(report)})
    # no record of the workspace: it tells how long things took, which the same results need not have in common
    known, made = read_sealed(folder / INDEX), page.path.sha256() if page.path.is_file() else None
    if known != {"key": page.key, "sha256": made}:
        write_sealed(folder / INDEX, {"key": page.key, "sha256": write_page(page)[page.path]})
    return page.path


@functools.cache
def _templates_digest() -> str:
    """SHA-256 of all templates: a page is made of its own and of those that this one takes parts from."""
    sums = hashlib.sha256()
    for path in sorted(TEMPLATES.glob("*.j2")):
        sums.update(path.read_bytes())
    return sums.hexdigest()
