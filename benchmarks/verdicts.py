"""What verdicts on the gallery's changes are worth to a training: in the gallery's order, and as many random ones.

Some pairs are given without their labels, and detectors find changes in them. A reviewer, made up from the labels,
accepts what is mostly change, rejects what is hardly any and is unsure of the rest. `cdpipe review` makes labels of
these verdicts, a network learns from them alone, and is judged on other pairs, which nobody reviewed, at a threshold of
0.5: by itself, and averaged with a detector. Work that is done is not done again.

    .venv/bin/python benchmarks/verdicts.py configs/oscd.csv data/verdicts --judge beirut hongkong nantes pisa
"""

import argparse
import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from labelled import RECIPE, read_pairs
from rich.console import Console
from rich.table import Table

import cdpipe
from cdpipe.formats.polygons import burn_polygons
from cdpipe.report.changes import read_top_changes
from cdpipe.report.review import VERDICTS
from cdpipe.runs.pairs import finished_run, result_pairs

DETECTORS = ["mad", "cva"]  # that find what is reviewed
NETWORK, BESIDE = "siamese_unet", "mad"  # what learns, and the detector that it is shown and averaged with
ACCEPTED, REJECTED = 0.5, 0.1  # from which share of changed pixels on an object is, up to which it is none
FIGURES = ("f1", "precision", "recall")
Feature = dict[str, Any]


def main() -> None:
    """Find changes, give verdicts, train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path, help="a table with the columns pair_id, before, after, label")
    parser.add_argument("work", type=Path, help="folder for the store, the models and the figures")
    parser.add_argument("--judge", nargs="+", required=True, help="ids of the pairs that take no verdicts")
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 50, 100, 200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--bands", default="blue=1,green=2,red=3,nir=4")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.rows = read_pairs(options.catalog)
    gallery, every = look(options)
    told = options.work / f"verdicts-{options.steps}.json"
    found: dict[str, Any] = json.loads(told.read_text()) if told.is_file() else {}
    for seed in options.seeds:
        random = [every[place] for place in np.random.default_rng(seed).permutation(len(every))]
        for count in options.counts:
            for order, changes in (("gallery", gallery), ("random", random)):
                name = f"{order}-{count}-{seed}-{options.steps}"
                case = found[name] = judge(options, changes[:count], name, seed)
                print(name, case, flush=True)
                told.write_text(json.dumps(found, indent=1))
    show(found)


def look(options: argparse.Namespace) -> tuple[list[Feature], list[Feature]]:
    """Changes that detectors find, each with its verdict: those of the gallery, in its order; and all of them."""
    rows = {row["pair_id"]: row for row in options.rows if row["pair_id"] not in options.judge}
    catalog = [{key: row[key] for key in ("pair_id", "before", "after")} for row in rows.values()]
    run = open_run(options, "unlabelled", catalog, {"predict": {"members": DETECTORS, "tta": "none"}})
    cdpipe.ingest(run)
    cdpipe.predict(run)
    page = cdpipe.write_report(run).read_text(encoding="utf-8")
    saved = re.search(r'<script type="application/json" id="review-data">(.*?)</script>', page, re.DOTALL)
    every = {}
    for pair in result_pairs(run, finished_run(run)):
        grid = pair.stored.grid
        with rasterio.open(rows[pair.pair.pair_id]["label"]) as label:
            changed = label.read(1) == 1
        for top in read_top_changes(run.folder / "vectors" / f"{pair.pair.pair_id}_change.gpkg", grid, 10**6):
            share = changed[burn_polygons(np.array([top.shape], object), grid) == 1].mean()
            verdict = "accepted" if share >= ACCEPTED else "rejected" if share <= REJECTED else "unsure"
            every[f"{pair.pair.pair_id}/{top.id}"] = {
                "type": "Feature",
                "geometry": top.outline,
                "properties": {"pair_id": pair.pair.pair_id, "change": top.id, "pixels": False, "verdict": verdict},
            }
    return [every[each["id"]] for each in json.loads(saved[1] if saved else "[]")], list(every.values())


def judge(options: argparse.Namespace, verdicts: Sequence[Feature], name: str, seed: int) -> dict[str, Any]:
    """Make labels of verdicts, train on them, and predict the other pairs; figures of all of these pairs' pixels."""
    looked = open_run(options, "unlabelled")
    file = options.work / f"{name}.geojson"
    head = {"type": "FeatureCollection", "cdpipe": {"format": 1, "run": "unlabelled"}}
    file.write_text(json.dumps({**head, "features": list(verdicts)}))
    reviewed = cdpipe.review(looked, file, options.work / name).catalog
    with reviewed.local().open(newline="") as stream:
        learned = [{**row, "split": "train"} for row in csv.DictReader(stream) if row["label"]]
    for row in learned:
        row.update({key: str((options.work / name / row[key]).resolve()) for key in ("before", "after", "label")})
    judged = [{**row, "split": "test"} for row in options.rows if row["pair_id"] in options.judge]
    run = open_run(options, name, [*learned, *judged], recipe(options, seed))
    cdpipe.ingest(run)
    cdpipe.train(run)
    cdpipe.predict(run, splits=["test"])
    cdpipe.evaluate(run)
    told = json.loads((run.folder / "report" / "evaluation.json").read_text())
    rows = {each["layer"]: each for each in told["rows"] if each["pair_id"] is None and each["split"] == "test"}
    counts = Counter(each["properties"]["verdict"] for each in verdicts)
    figures = {layer: {figure: rows[layer][figure] for figure in FIGURES} for layer in rows}
    return {"verdicts": dict(counts), **figures}


def recipe(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """How a network learns from verdicts."""
    network = {"encoder": "plain8", "bands": ["red", "green", "blue", "nir"], "detectors": [BESIDE]}
    return {
        "normalisation": {"method": "robust", "statistics": "per_date", "clip": 4},
        "splits": {"allow_leak": True},
        "resources": {"workers": 1},
        "train": {
            "models": {NETWORK: network},
            **RECIPE,
            "samples_per_epoch": RECIPE["global_batch"] * options.steps,
            "seed": seed,
            "learning_rate": 2e-3,
            "sampling": "cells",  # else a few large objects would teach all
        },
        "predict": {"members": [NETWORK, BESIDE], "tta": "none", "threshold": 0.5},
    }


def open_run(
    options: argparse.Namespace,
    name: str,
    rows: Sequence[dict[str, Any]] | None = None,
    values: dict[str, Any] | None = None,
) -> cdpipe.Run:
    """A run of a catalog and a configuration; of those that were written before, where none are given."""
    file, table = (options.work / f"{name}.{ending}" for ending in ("yaml", "csv"))
    if rows is not None:
        with table.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        bands = {role: int(band) for role, band in (each.split("=") for each in options.bands.split(","))}
        common = {
            "name": name,
            "catalog": str(table.resolve()),
            "workspace": str((options.work / "data").resolve()),
            "sensors": {"given": {"bands": bands}},
            "align": {"coregister": "auto"},
        }
        file.write_text(yaml.safe_dump({**common, **(values or {})}, sort_keys=False))
    return cdpipe.open_run(file)


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    table = Table("verdicts", *VERDICTS, "F1 of the network", f"with {BESIDE}", f"of {BESIDE}")
    for name, case in found.items():
        counts = (str(case["verdicts"].get(verdict, 0)) for verdict in VERDICTS)
        table.add_row(name, *counts, *(f"{case[layer]['f1']:.3f}" for layer in (NETWORK, "ensemble", BESIDE)))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
