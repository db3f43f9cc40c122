"""What was found in one pair on one page: a picture, figures, where to look first, how far to trust it, what to do."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdpipe.report import words
from cdpipe.report.changes import PER_PAIR, read_top_changes
from cdpipe.report.pages import COLORS, TEMPLATES, templates
from cdpipe.report.pair import read_overview
from cdpipe.report.pictures import PictureJob, picture_of
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

DETECTORS: Mapping[str, str] = {
    "mad": "multivariate alteration detection (Nielsen, Conradsen and Simpson, 1998)",
    "irmad": "iteratively reweighted multivariate alteration detection (Nielsen, 2007)",
    "cva": "change vector analysis (Malila, 1980; Bruzzone and Prieto, 2000)",
    "difference": "the difference of both dates' grey",
}
# What is known of each from pairs with labels; see docs/accuracy.md.
MEASURED: Mapping[tuple[str, ...], str] = {
    ("mad", "cva"): "42 of 100 pixels that they marked, and they marked 43 of 100 that had changed (F1 0.43)",
    ("mad",): "43 of 100 pixels that it marked, and it marked 45 of 100 that had changed (F1 0.44)",
    ("irmad",): "33 of 100 pixels that it marked, and it marked 44 of 100 that had changed (F1 0.38)",
    ("cva",): "32 of 100 pixels that it marked, and it marked 43 of 100 that had changed (F1 0.37)",
    ("difference",): "40 of 100 pixels that it marked, and it marked 28 of 100 that had changed (F1 0.33)",
}
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


WHATEVER = (
    "Marked is whatever looks different and is neither another light over the whole scene nor a shift of part of a "
    "pixel: new buildings and roads, cleared or flooded land, and just as well ploughed fields, other seasons, clouds "
    "and their shadows, ships. Nobody said which of these matter."
)
COARSE = (
    "That suits pixels of ten metres to thirty. In images of half a metre, where roofs and trees lean another way, "
    "next to nothing that is marked is right."
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
STEPS: Sequence[tuple[str, str]] = (
    (IN_QGIS, ""),
    ("Too much or too little is marked: move the threshold; that takes seconds.", "--set predict.threshold=0.7"),
    ("Clouds: name the quality raster that came with the scene.", "--after-valid SCL.tif --quality scl"),
    ("Ask one detector alone, or others.", "--model irmad"),
    (LABEL_SOME, "cdpipe init project"),
)


def trust(detectors: Sequence[str]) -> list[str]:
    """What detectors can be trusted for, in sentences."""
    together = tuple(detectors)
    known = [MEASURED[together]] if together in MEASURED else [f"{name}: {MEASURED[name,]}" for name in detectors]
    measured = (
        "On fourteen pairs of cities from Sentinel-2, of which construction alone counted, the labels agreed with "
        f"{'; '.join(known)}."
    )
    return [WHATEVER, measured, COARSE, FIRST_LOOK]


def write_answer(path: Location, job: AnswerJob) -> None:
    """Write the page, which needs no file beside it; the same results give the same bytes.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    figures = read_overview(job.workspace, job.pair, job.change_key, None).figures
    title = f"{job.files[0]} to {job.files[1]}"
    picture = picture_of(
        PictureJob(job.workspace, path, job.pair, None, job.change_key, None, job.threshold, None, title)
    )
    tops = read_top_changes(job.objects, job.pair.grid, PER_PAIR) if job.objects is not None else []
    changed, observed = figures["changed_px"] or 0.0, figures["observed_px"] or 0.0
    palette = "".join(f"--{name}: rgb({red} {green} {blue}); " for name, (red, green, blue) in COLORS.items())
    context = {
        "style": f":root {{ {palette}}}\n" + (TEMPLATES / "base.css").read_text(encoding="utf-8"),
        "files": job.files,
        "picture": base64.b64encode(picture).decode(),
        "numbers": [
            ("Changed", words.area(figures["changed_m2"], changed), words.share(changed, observed)),
            ("Observed at both dates", words.area(figures["observed_m2"], observed), ""),
        ],
        "nothing": changed <= LITTLE * observed,
        "changes": [
            {
                "id": top.id,
                "area": words.area(top.area_m2, top.pixels),
                "probability": f"{top.probability_mean:.2f}",
                "place": _place(top.outline),
            }
            for top in tops
        ],
        "detectors": [
            {
                "name": name,
                "what": DETECTORS[name],
                "bands": ", ".join(fit["bands"]),
                "pixels": f"{fit['pixels']:,}",
                "step": fit["step"],
            }
            for name, fit in job.fits.items()
        ],
        "others": list(job.others),
        "remarks": list(job.remarks),
        "trust": trust(list(job.fits)) if job.fits else [],
        "steps": STEPS,
        "threshold": f"{job.threshold:g}",
    }
    path.write(templates().get_template("answer.html.j2").render(context).encode())


def _place(outline: Mapping[str, Any]) -> str:
    """A point of an outline: longitude and latitude, or column and row."""
    ring = outline["coordinates"]
    while isinstance(ring[0], list | tuple):
        ring = ring[0]
    return f"{ring[0]:.5f}, {ring[1]:.5f}"
