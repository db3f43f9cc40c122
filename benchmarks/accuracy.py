"""What each choice of a recipe is worth: one changed at a time, each judged by cross-validation.

Every pair of the recipe's catalog is predicted by models that did not learn from its fold, and all pixels are pooled.
The recipe itself is trained with every seed, which tells how much of a difference is chance; each choice with the first
one. Work that is done is not done again: the command may be stopped and given once more.

    .venv/bin/python benchmarks/accuracy.py configs/oscd.yaml work/accuracy --models siamese_unet --epochs 3
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from timing import Row, show

JITTERED = ("gain", "offset", "band_gain", "band_offset")
WEAK, JITTER = ({"BandJitter": dict.fromkeys(JITTERED, size)} for size in (0.1, 0.3))
SWAP, PASTE = {"SwapDates": {"p": 0.3}}, {"Paste": {"p": 0.3}}

# What a recipe is changed by: the choice by name, and the keys it sets.
CHOICES: dict[str, dict[str, Any]] = {
    "D4 alone": {"train": {"augment": ["D4"]}},
    "gain and offset alone": {"train": {"augment": ["D4", JITTER]}},
    "a third of the gain and offset": {"train": {"augment": ["D4", WEAK, SWAP, PASTE]}},
    "not shown what detectors say": {"detectors": None},
    "no pasting": {"train": {"augment": ["D4", JITTER, SWAP]}},
    "robust normalisation": {"normalisation": {"method": "robust"}},
    "common statistics": {"normalisation": {"statistics": "common"}},
    "coregister: report": {"align": {"coregister": "report"}},
    "cross-entropy alone": {"train": {"loss": ["bce"]}},
    "soft Jaccard and cross-entropy": {"train": {"loss": ["soft_jaccard", "bce"]}},
    "pairs by the root of their area": {"train": {"pair_weight": "sqrt"}},
    "pairs all alike": {"train": {"pair_weight": "equal"}},
    "a fifth of the samples at change": {"train": {"changed_share": 0.2}},
    "four fifths at change": {"train": {"changed_share": 0.8}},
    "patches of 64": {"train": {"patch": 64, "global_batch": 36}},
    "plain24": {"encoder": "plain24"},
    "five levels": {"arguments": {"encoder_depth": 5}},
    "float32": {"train": {"precision": "float32"}},
    "no weight average": {"train": {"ema": 0}},
}


def main() -> None:
    """Train, judge and print; the figures go to ``accuracy.json`` in the folder of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a configuration with train.folds")
    parser.add_argument("work", type=Path, help="folder for the store, the models and the figures")
    parser.add_argument("--models", nargs="*", help="only these of its models")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--choices", nargs="*", default=list(CHOICES), help=f"default: {', '.join(CHOICES)}")
    parser.add_argument("--set", nargs="*", default=[], help="keys to set in all of them, as key=value")
    options = parser.parse_args()
    cases: dict[str, tuple[dict[str, Any], int]] = {f"the recipe, seed {seed}": ({}, seed) for seed in options.seeds}
    cases |= {name: (CHOICES[name], options.seeds[0]) for name in options.choices}
    figures = {}
    for name, (change, seed) in cases.items():
        run(options, name, change, seed)
        figures[name] = read_figures(options.work / "data" / "runs" / run_name(name))
        (options.work / "accuracy.json").write_text(json.dumps(figures, indent=1))
        print(name, json.dumps(figures[name]["layers"]), flush=True)
    for layer in next(iter(figures.values()))["layers"]:
        show(f"{layer}, out of fold, all pairs pooled", list(rows(figures, layer, options.seeds)))


def run_name(case: str) -> str:
    """A case's name as one of a run."""
    return "".join(letter if letter.isalnum() else "-" for letter in case)


def run(options: argparse.Namespace, name: str, change: Mapping[str, Any], seed: int) -> None:
    """Train, predict and evaluate one case."""
    recipe = yaml.safe_load(options.recipe.read_text())
    catalog = (options.recipe.parent / recipe["catalog"]).resolve()
    recipe |= {"name": run_name(name), "catalog": str(catalog), "workspace": str((options.work / "data").resolve())}
    train = recipe["train"]
    if options.models:
        train["models"] = {model: train["models"][model] for model in options.models}
    if options.epochs:
        train["epochs"] = options.epochs
    train["seed"] = seed
    for section, values in change.items():
        if section in ("encoder", "arguments", "detectors"):
            for model in train["models"].values():
                model[section] = values
        else:
            recipe[section] = {**recipe.get(section, {}), **values}
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.work / f"{run_name(name)}.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False))
    for verb in ("ingest", "train", "predict", "evaluate"):
        keys = [part for each in options.set for part in ("--set", each)]
        command = [sys.executable, "-m", "cdpipe.cli.main", verb, str(file), *keys]
        subprocess.run(command, check=True)  # noqa: S603 (our own)


def read_figures(folder: Path) -> dict[str, Any]:
    """Of each layer the figures at the fitted threshold, pooled and by pair, the best F1, and average precision."""
    found = json.loads((folder / "report" / "evaluation.json").read_text())
    log = json.loads((folder / "log.json").read_text())
    layers: dict[str, Any] = {}
    for row in found["rows"]:
        if row["split"] != "train":
            continue
        layer = layers.setdefault(row["layer"], {"by_pair": {}})
        kept = {name: row[name] for name in ("f1", "precision", "recall")}
        if row["pair_id"] is None:
            layer |= kept
        else:
            layer["by_pair"][row["pair_id"]] = row["f1"]
    for curve in found["curves"]:
        if curve["split"] == "train" and curve["layer"] in layers:
            points = curve["points"]
            best = max(points, key=lambda point: point["f1"] or 0)
            layers[curve["layer"]] |= {"best_f1": best["f1"], "best_at": best["threshold"], "ap": area(points)}
    threshold = json.loads((folder / "threshold.json").read_text())["threshold"]
    minutes = sum(entry["seconds"] for entry in log if entry["stage"] == "train") / 60
    return {"layers": layers, "threshold": threshold, "minutes": minutes}


def area(points: Sequence[Mapping[str, Any]]) -> float:
    """Average precision: precision over recall, in steps from threshold to threshold."""
    known = [point for point in points if point["precision"] is not None]
    recalls = [float(point["recall"]) for point in known]
    steps = zip(known, recalls, [*recalls[1:], 0.0], strict=True)
    return sum(float(point["precision"]) * (low - high) for point, low, high in steps)


def rows(figures: Mapping[str, Any], layer: str, seeds: Sequence[int]) -> list[Row]:
    """The recipe's mean and deviation over seeds, and every choice against its first seed."""
    own = {name: value["layers"][layer] for name, value in figures.items() if layer in value["layers"]}
    base = [own[f"the recipe, seed {seed}"] for seed in seeds if f"the recipe, seed {seed}" in own]
    scores = [each["f1"] for each in base]
    spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
    lines = [Row(f"the recipe, {len(scores)} seed(s)", f"F1 {statistics.mean(scores):.3f}{spread}, {_more(base[0])}")]
    for name, value in own.items():
        if not name.startswith("the recipe"):
            lines.append(Row(name, f"F1 {value['f1']:.3f}, {_more(value)}", f"{value['f1'] - scores[0]:+.3f}"))
    return lines


def _more(layer: Mapping[str, Any]) -> str:
    parts = [f"P {layer['precision']:.2f}", f"R {layer['recall']:.2f}"]
    if "ap" in layer:
        parts += [f"AP {layer['ap']:.3f}", f"best F1 {layer['best_f1']:.3f} at {layer['best_at']:.2f}"]
    return ", ".join(parts)


if __name__ == "__main__":
    main()
