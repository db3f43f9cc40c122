"""What few labels teach: from random weights, from those of the model that comes with cdpipe, and shown a detector.

Networks learn from the labels of the first one, two or four of some pairs, and are judged on all others, at a threshold
of 0.5. Work that is done is not done again.

    .venv/bin/python benchmarks/few_labels.py configs/oscd.csv data/few-labels --train beirut hongkong pisa cupertino
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import yaml
from labelled import RECIPE, read_pairs
from rich.console import Console
from rich.table import Table

import cdpipe

STARTS: dict[str, dict[str, Any]] = {
    "random": {},
    "init_from": {"init_from": "cdpipe"},
    "detectors": {"detectors": ["mad"]},
}
FIGURES = ("f1", "precision", "recall")


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalog", type=Path, help="a table with the columns pair_id, before, after, label")
    parser.add_argument("work", type=Path, help="folder for the store, the models and the figures")
    parser.add_argument("--train", nargs="+", required=True, help="ids of the pairs to learn from, in this order")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--bands", default="blue=1,green=2,red=3,nir=4")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for count in options.counts:
        for start in options.starts:
            case = found[f"{count} pair(s), {start}"] = judge(options, count, start)
            print(count, start, case, flush=True)
            (options.work / "few_labels.json").write_text(json.dumps(found, indent=1))
    table = Table("labels of", "F1", "precision", "recall", "best F1", "at")
    for name, case in found.items():
        table.add_row(name, *(f"{value:.3f}" for value in case.values()))
    Console(width=120).print(table)


def judge(options: argparse.Namespace, count: int, start: str) -> dict[str, float]:
    """Train on some pairs, predict the others; figures of all of these pairs' pixels."""
    name = f"few-{count}-{start}"
    table = options.work / f"pairs-{count}.csv"
    write_catalog(options, count, table)
    bands = {role: int(band) for role, band in (each.split("=") for each in options.bands.split(","))}
    network = {
        "encoder": "plain8",
        "bands": ["red", "green", "blue", "nir"],
        "optional_bands": ["nir"],
        **STARTS[start],
    }
    values = {
        "name": name,
        "catalog": str(table.resolve()),
        "workspace": str((options.work / "data").resolve()),
        "sensors": {"given": {"bands": bands}},
        "normalisation": {"method": "robust", "statistics": "per_date", "clip": 4},
        "splits": {"allow_leak": True},
        "resources": {"workers": 2},
        "train": {
            "models": {"siamese_unet": network},
            **RECIPE,
            "samples_per_epoch": RECIPE["global_batch"] * options.steps,
            "learning_rate": options.rate,
            "sampling": "pixels",
        },
        "predict": {"tta": "none", "threshold": 0.5},
    }
    file = options.work / f"{name}.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    run = cdpipe.open_run(file)
    cdpipe.ingest(run)
    cdpipe.train(run)
    cdpipe.predict(run, splits=["test"])
    cdpipe.evaluate(run)
    told = json.loads((run.folder.local() / "report" / "evaluation.json").read_text())
    row = next(each for each in told["rows"] if each["pair_id"] is None and _is_judged(each))
    points = next(each["points"] for each in told["curves"] if _is_judged(each))
    best = max(points, key=lambda point: point["f1"] or 0)
    return {**{figure: row[figure] for figure in FIGURES}, "best_f1": best["f1"], "best_at": best["threshold"]}


def _is_judged(each: dict[str, Any]) -> bool:
    return bool(each["split"] == "test" and each["layer"] == "siamese_unet")


def write_catalog(options: argparse.Namespace, count: int, table: Path) -> None:
    """The catalog with the split of every pair; pairs to learn from that are not wanted yet are left out."""
    wanted = set(options.train[:count])
    kept = [
        {**row, "split": "train" if row["pair_id"] in wanted else "test"}
        for row in read_pairs(options.catalog)
        if row["pair_id"] in wanted or row["pair_id"] not in options.train
    ]
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)


if __name__ == "__main__":
    main()
