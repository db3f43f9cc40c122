"""A small run with everything that a report may show, made without Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import rasterio.features
import shapely
from affine import Affine
from stored import bright_squares, store_change, store_pair

from cdpipe.formats.vectors import encode, write_features
from cdpipe.geo.grid import Grid
from cdpipe.objects.features import SCHEMA
from cdpipe.report.charts import training_charts
from cdpipe.report.facts import PairPage, Report
from cdpipe.report.pages import plan_pages, write_index, write_page
from cdpipe.report.pair import PairJob, make_pair, read_facts
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here

SHAPE = (140, 180)
EVIL = '</script><script>alert("x")</script> & <b>Прага</b>'
CHANGE = "123456abcdef"


def write_objects(path: Path, change: np.ndarray[Any, Any], probability: np.ndarray[Any, Any], grid: Grid) -> None:
    """The changed squares as a GeoPackage with the columns that change objects have."""
    transform = Affine(*grid.transform)
    outlines = [
        shapely.geometry.shape(shape)
        for shape, value in rasterio.features.shapes(change, change == 1, connectivity=8, transform=transform)
        if value == 1
    ]
    inside = [
        rasterio.features.rasterize([each], change.shape, transform=transform, dtype=np.uint8) == 1 for each in outlines
    ]
    columns = {
        "geometry": encode(np.array(outlines, object)),
        "id": [f"{number:04d}" for number in range(len(outlines))],
        "pair_id": [path.name.partition("_")[0]] * len(outlines),
        "area_m2": [each.area for each in outlines],
        "pixels": [int(each.sum()) for each in inside],
        "probability_mean": [float(probability[each].mean()) for each in inside],
        "probability_max": [float(probability[each].max()) for each in inside],
        "agreement": [0.5] * len(outlines),
        **{name: [None] * len(outlines) for name in ("observed", "before_date", "after_date")},
    }
    batch = pa.RecordBatch.from_pydict(columns, SCHEMA)
    write_features(here(path), [batch], SCHEMA, grid.crs, {})


def make_job(workspace: Workspace, pair_id: str, seed: int, shape: tuple[int, int] = SHAPE) -> PairJob:
    """A stored pair with label, change and objects; a quarter of the first date is not observed."""
    dates, label = bright_squares(shape, seed)
    valid = np.full(shape, 3, np.uint8)
    valid[: shape[0] // 4] = 2
    found = store_pair(workspace, pair_id, dates, label, valid)
    change = np.roll(label, 4, axis=1)
    probability = np.where(change == 1, np.float32(0.9), np.float32(0.1))
    probability[valid != 3], change[valid != 3] = np.nan, 255
    store_change(workspace, found.pair, CHANGE, probability, change)
    run = workspace.run("run")
    objects = run / "vectors" / f"{pair_id}_change.gpkg"
    write_objects(objects.local(), change, np.nan_to_num(probability), found.pair.grid)
    images = run / "report" / "images" / pair_id
    return PairJob(workspace, "run", images, found.pair, found.label_key, CHANGE, (objects, objects.sha256()))


def make_page(job: PairJob, name: str, split: str = "test") -> PairPage:
    """The pair with its pictures drawn."""
    files = [(f"{job.pair.pair_id}_change.gpkg", f"vectors/{job.pair.pair_id}_change.gpkg")]
    make_pair(job)
    return PairPage(job.pair.pair_id, name, split, ("2019-06-01", "2023-06-01"), ("s", "s"), read_facts(job), files)


def write_report(folder: Location, report: Report) -> Location:
    """All pages; the index is given."""
    for page in plan_pages(folder, report):
        write_page(page)
    return write_index(folder, report)


def figures(split: str, pair_id: str | None, layer: str, iou: float | None) -> dict[str, Any]:
    """A row of ``evaluation.json``."""
    head = {"split": split, "pair_id": pair_id, "pairs": 1, "layer": layer, "threshold": None}
    low, high = (None, None) if iou is None else (iou - 0.1, iou + 0.1)
    return {**head, "iou": iou, "f1": iou, "precision": iou, "recall": iou, "iou_low": low, "iou_high": high}


def make_report(pages: list[PairPage], **changes: Any) -> Report:
    """A report of pairs with all its parts."""
    layers = {"net": 0.4, "ensemble": 0.5, "grey difference": 0.2}
    points = [{"threshold": at, "precision": at, "recall": 1 - at, "f1": 0.5} for at in (0.1, 0.5, 0.9)]
    bins = [{"low": 0.0, "high": 0.5, "pixels": 9, "probability": 0.2, "changed": 0.1}]
    evaluation = {
        "rows": [
            *(figures("test", page.pair_id, layer, iou) for page in pages for layer, iou in layers.items()),
            *(figures("test", None, layer, iou) for layer, iou in layers.items()),
        ],
        "curves": [{"split": "test", "layer": "ensemble", "points": points}],
        "calibration": [{"split": "test", "layer": "ensemble", "ece": 0.03, "bins": bins}],
    }
    history = [{"epoch": float(at), "loss": 1 / (at + 1), "val_iou": 0.1 * at, "val_f1": 0.2 * at} for at in range(4)]
    run = {"name": "run", "id": "0123456789ab", "version": "0", "finished": "2024-05-06"}
    values: dict[str, Any] = {
        "run": {**run, "ensemble": "mean", "threshold": 0.5, "fitted_on": "best F1 on p"},
        "pairs": pages,
        "problems": [
            {"name": "broken", "failed": True, "reason": f"{EVIL}: not readable"},
            {"name": "other", "failed": False, "reason": "not among the run's pairs"},
        ],
        "models": [
            {"name": name, "architecture": "unet", "folder": f"models/{name}", "weight": "1", "threshold": "0.5"}
            for name in ("net", "other")
        ],
        "training": training_charts("net", history, 3.0),
        "log": [{"stage": "predict", "started": "2024-05-06 07:08:09", "took": "3 s", "facts": "2 pairs"}],
        "versions": {"torch": "2"},
        "configuration": f"name: run\n# {EVIL}\n",
        "files": [("manifest.json", "manifest.json")],
        "evaluation": evaluation,
        "audits": {
            page.pair_id: {"seam": {"score": 1.25, "patches": {"lines": 3}}, "shift": None, "odd": {"share": 0.2}}
            for page in pages
        },
    }
    return Report(**{**values, **changes})


def make_report_files(workspace: Workspace) -> Path:
    """A report of two pairs, one of them with a name that must not be taken for HTML; returns its folder."""
    pages = [make_page(make_job(workspace, "p", 0), EVIL), make_page(make_job(workspace, "q", 1), "q", "val")]
    folder = workspace.run("run") / "report"
    write_report(folder, make_report(pages))
    return folder.local()
