"""What was found in one pair on one page: a picture, figures, where to look first, how far to trust it, what to do."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import shapely
import shapely.geometry

from cdpipe.config.detectors import SHIPPED
from cdpipe.geo.grid import Grid
from cdpipe.processors import usable_cpus
from cdpipe.report import drawing, words
from cdpipe.report.changes import ON_PAGE, PER_PAIR, Ranked, outline_changes, rank_changes, top_change
from cdpipe.report.drawing import Limits
from cdpipe.report.pages import make_script, make_style, templates
from cdpipe.report.pair import (
    Overview,
    describe_shown,
    describe_view,
    draw_overview,
    draw_tiles,
    read_overview,
    remove_others,
    shown_limits,
)
from cdpipe.report.pair_page import describe_viewer, describe_worth
from cdpipe.report.scene import open_scene
from cdpipe.report.worth import Worth
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

ANSWERING: Mapping[str, str] = {
    SHIPPED: "a network that comes with cdpipe and learned from made-up scenes alone",
    "mad": "multivariate alteration detection (Nielsen, Conradsen and Simpson, 1998)",
    "irmad": "iteratively reweighted multivariate alteration detection (Nielsen, 2007)",
    "cva": "change vector analysis (Malila, 1980; Bruzzone and Prieto, 2000)",
    "difference": "the difference of both dates' grey",
}
# What is known of each from pairs with labels; see docs/accuracy.md.
MEASURED: Mapping[tuple[str, ...], str] = {
    (SHIPPED, "mad", "cva"): "53 of 100 pixels that they marked, and they marked 41 of 100 that had changed (F1 0.47)",
    (SHIPPED,): "38 of 100 pixels that it marked, and it marked 41 of 100 that had changed (F1 0.39)",
    ("mad", "cva"): "42 of 100 pixels that they marked, and they marked 43 of 100 that had changed (F1 0.43)",
    ("mad",): "43 of 100 pixels that it marked, and it marked 45 of 100 that had changed (F1 0.44)",
    ("irmad",): "33 of 100 pixels that it marked, and it marked 44 of 100 that had changed (F1 0.38)",
    ("cva",): "32 of 100 pixels that it marked, and it marked 43 of 100 that had changed (F1 0.37)",
    ("difference",): "40 of 100 pixels that it marked, and it marked 28 of 100 that had changed (F1 0.33)",
}
WAITING = 2  # threads to a processor that draw tiles: half of the time they wait for the disk
LITTLE = 1e-4  # share of a scene: less than this is what noise and glints leave


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """The page of one pair.

    Attributes:
        workspace: Where the pair lies.
        pair: The pair.
        change_key: Key of its change.
        threshold: Of the change.
        objects: File of its change objects, None where there is none.
        files: Names of both dates' files.
        fits: What each detector found out, by its name: see :func:`cdpipe.runs.publish.describe_fit`.
        others: Names of models that are no detectors.
        remarks: What was said of the pair on the way, such as which bands are compared.
        doubts: In which ways it is unlike all that a model learned from.
    """

    workspace: Workspace
    pair: StoredPair
    change_key: str
    threshold: float
    objects: Location | None
    files: tuple[str, str]
    fits: Mapping[str, Mapping[str, Any]]
    others: Sequence[str]
    remarks: Sequence[str]
    doubts: Sequence[str] = ()


WHATEVER = (
    "Marked is whatever looks different and is neither another light over the whole scene nor a shift of part of a "
    "pixel: new buildings and roads, cleared or flooded land, and just as well ploughed fields, other seasons, clouds "
    "and their shadows, ships. Nobody said which of these matter."
)
COARSE = (
    "That suits pixels of ten metres to thirty. In images of half a metre, where roofs and trees lean another way, "
    "next to nothing that detectors mark is right."
)
LEARNED = (
    "The network has learned from made-up scenes what buildings, works, roads and clearings look like, and that "
    "fields, seasons and haze are no change of interest."
)
TOGETHER = (
    "Beside it detectors mark whatever looks different: there are fewer false alarms than of detectors alone, and "
    "what the network does not know has to differ much to be marked."
)
ALONE = (
    "On samples of images of half a metre, of which new buildings alone counted, F1 was 0.32. Where fields or light "
    "differ much between the dates it marks far too much."
)
UNKNOWN = "Nobody labelled anything, so nobody knows how much of this is right: a first look, no measurement."
MODELS = (
    "No label says how right this is here. How right its models were on the pairs that they were tried on is in their "
    "cards, model.md."
)
FIRST_LOOK = "So this says where to look first. A changed area to report needs labels."
IN_QGIS = (
    "Look at it in QGIS: change.tif, in red, over both dates; the layer of objects has a row for each change, with its "
    "area and probability."
)
LABEL_SOME = (
    "To find one kind of change alone, label some of it: polygons over a part of this scene are enough to begin with "
    "(docs/howto/one-scene.md)."
)
# What to do next, and what to add to the command for it.
ASK_ONE = ("Ask one detector alone, or others.", "--model irmad")
LABEL = (LABEL_SOME, "cdpipe init project")
UNTAUGHT = (ASK_ONE, LABEL)  # steps where nothing was learned
STEPS: Sequence[tuple[str, str]] = (
    (IN_QGIS, ""),
    ("Too much or too little is marked: move the threshold; that takes seconds.", "--set predict.threshold=0.7"),
    ("Clouds: name the quality raster that came with the scene.", "--after-valid SCL.tif --quality scl"),
    ASK_ONE,
    LABEL,
)


def trust(names: Sequence[str]) -> list[str]:
    """What those who need no labels can be trusted for together, in sentences."""
    together = tuple(names)
    known = [MEASURED[together]] if together in MEASURED else [f"{name}: {MEASURED[name,]}" for name in names]
    measured = (
        "On fourteen pairs of cities from Sentinel-2, of which construction alone counted, the labels agreed with "
        f"{'; '.join(known)}."
    )
    if SHIPPED not in names:
        return [WHATEVER, measured, COARSE, FIRST_LOOK]
    return [LEARNED, *([TOGETHER, measured, COARSE] if len(names) > 1 else [measured, ALONE]), FIRST_LOOK]


def write_answer(path: Location, job: AnswerJob) -> None:
    """Write the page; the same results give the same bytes.

    It needs no file beside it, but that single pixels of a scene of more than 1,280 a side lie in a folder of its name.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    grid = job.pair.grid
    overview = read_overview(job.workspace, job.pair, job.change_key, None, threads=usable_cpus())
    limits, figures = shown_limits(overview), overview.figures
    changes, total = rank_changes(job.objects, grid, ON_PAGE) if job.objects is not None else (list[Ranked](), 0)
    tiles_at = path.with_name(f"{path.stem}_files")
    scene = open_scene(job.workspace, job.pair, job.change_key, None)
    tiles, levels = draw_tiles(tiles_at, scene, grid.shape, overview, limits, WAITING * usable_cpus())
    remove_others(tiles_at, tiles)
    shown = describe_shown(grid, overview, tiles)
    facts = {**shown, "object_count": None if job.objects is None else total, "outlined": len(changes)}
    changed, observed = figures["changed_px"] or 0.0, figures["observed_px"] or 0.0
    models = len(job.fits) + len(job.others)
    named = sorted({*job.fits, *job.others} & set(ANSWERING), key=list(ANSWERING).index)
    taught = len(named) < models  # whether any of them is a model of the user's
    context = {
        "style": make_style(),
        "script": make_script(),
        "view": describe_view(grid, overview.cell, levels, outline_changes(changes, grid)),
        "pair": {**describe_viewer(job.pair.pair_id, facts, ("", ""), models), "verdicts": False},
        "images": f"{tiles_at.name}/" if tiles else "",
        "pictures": _embedded(overview, limits, shown["aspect"]),
        "files": job.files,
        "worth": describe_worth(Worth(MODELS if taught and not job.fits else UNKNOWN, bool(job.doubts), job.doubts)),
        "numbers": [
            ("Changed", words.area(figures["changed_m2"], changed), words.share(changed, observed)),
            ("Observed at both dates", words.area(figures["observed_m2"], observed), ""),
        ],
        "nothing": changed <= LITTLE * observed,
        "changes": [_describe_change(each, grid, shown["pixel_m"]) for each in changes[:PER_PAIR]],
        "detectors": [
            {
                "name": name,
                "bands": ", ".join(fit["bands"]),
                "pixels": f"{fit['pixels']:,}",
                "step": fit["step"],
            }
            for name, fit in job.fits.items()
        ],
        "found_by": [(name, ANSWERING.get(name, "")) for name in (*named, *(n for n in job.others if n not in named))],
        "remarks": list(job.remarks),
        "trust": trust(named) if named else [],
        "steps": STEPS if named else [step for step in STEPS if step not in UNTAUGHT],
        "threshold": f"{job.threshold:g}",
    }
    path.write(templates().get_template("answer.html.j2").render(context).encode())


def _embedded(overview: Overview, limits: tuple[Limits, Limits], aspect: float) -> dict[str, str]:
    """Pictures of the whole scene as part of a page."""
    embedded = {}
    for layer, picture in draw_overview(overview, limits).items():
        shown = drawing.to_ground(picture, aspect)
        photo = layer in drawing.PHOTOS
        data = base64.b64encode(drawing.encode_photo(shown) if photo else drawing.encode_overlay(shown))
        embedded[layer] = f"data:image/{'jpeg' if photo else 'webp'};base64,{data.decode()}"
    return embedded


def _describe_change(each: Ranked, grid: Grid, pixel_m: float | None) -> dict[str, str]:
    top = top_change(each, grid)
    middle = shapely.geometry.shape(top.outline).representative_point()
    place = words.degrees((middle.x, middle.y), pixel_m)
    return {
        "id": top.id,
        "area": words.area(top.area_m2, top.pixels),
        "probability": f"{top.probability_mean:.2f}",
        "place": place if pixel_m is not None else f"column {middle.x:.0f}, row {middle.y:.0f}",
    }
