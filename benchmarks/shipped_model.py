"""Makes the model that comes with cdpipe: made-up scenes, `cdpipe train` by configs/shipped.yaml, weights of 16 bits.

The last layer is scaled and moved, so that on the made-up validation scenes a probability is one, and 0.5 the threshold
with the highest F1; and then raised, since on real scenes the network is less sure: by as much as makes it mark as many
pixels of the fourteen pairs of OSCD as `mad` and `cva` do on average (benchmarks/without_labels.py measures it). No
label of a real image has a part in that, and no real image in anything else. On two cores it takes about an hour; what
is done is not done again.

    .venv/bin/python benchmarks/shipped_model.py --work data/shipped
"""

import argparse
import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import nn

import cdpipe
from cdpipe.config.detectors import SHIPPED, named_folder
from cdpipe.demo.varied_scenes import make_varied_scenes
from cdpipe.metrics.counts import best_threshold, counts_by_threshold, score_histogram
from cdpipe.models.familiarity import span_text
from cdpipe.models.folder import ModelCard, load_network, read_card, save_model
from cdpipe.models.stac_item import stac_files
from cdpipe.prediction.temperature import fit_temperature, logit_histogram, soften
from cdpipe.workspace.location import Location, here

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "configs" / "shipped.yaml"
BINS = 1000
RAISED = 1.1  # logits


def main() -> None:
    """Make the scenes and the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "data" / "shipped", help="folder for scenes and training")
    parser.add_argument("--out", type=Path, default=named_folder(SHIPPED).local(), help="folder for the model")
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that make scenes")
    parser.add_argument("--set", nargs="*", default=[], help="keys of the recipe to set, as key=value")
    options = parser.parse_args()
    scenes = options.work / "scenes"
    if not (scenes / "pairs.csv").is_file():
        make_varied_scenes(scenes, seed=options.seed, pairs=options.pairs, workers=options.workers)
    overrides = [f"catalog={scenes.resolve() / 'pairs.csv'}", f"workspace={options.work.resolve()}", *options.set]
    run = cdpipe.open_run(RECIPE, overrides=overrides, progress=print_line)
    cdpipe.ingest(run)
    trained = cdpipe.train(run)[0]
    print(trained)
    print(publish(trained.folder, here(options.out), scenes, f"{options.pairs} made-up pairs, seed {options.seed}"))


def publish(trained: Location, out: Location, scenes: Path, source: str) -> ModelCard:
    """Write the folder of the model that comes with cdpipe.

    Args:
        trained: The folder of what was trained.
        out: Where to.
        scenes: The folder of the scenes, of which it is judged on the validation pairs.
        source: The scenes in words.
    """
    card, state = balance(trained, scenes)
    return pack(card, state, out, scenes, source)


def pack(card: ModelCard, state: dict[str, torch.Tensor], out: Location, scenes: Path, source: str) -> ModelCard:
    """Write the folder of a balanced model, with weights of 16 bits; see :func:`publish`."""
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    about = {
        "scenes": f"{source}: no real image, no real label",
        "raised": f"{RAISED:g} logits, so that on 14 real pairs, without their labels, it marks as much as detectors",
        "licence": "that of cdpipe",
        "made_by": f"benchmarks/shipped_model.py of cdpipe {cdpipe.__version__}",
    }
    learned = {**(card.learned or {}), **about}
    del learned["values"]  # each date is brought to one level by its own quartiles, whatever its units
    kept = dataclasses.replace(card, name=SHIPPED, learned=learned, threshold=0.5, training_key=None, metrics={})
    save_model(out, kept, half)  # to be judged
    kept = save_model(out, dataclasses.replace(kept, metrics=judge(out, scenes)), half, stac_files)
    (out / "model.md").write(describe(kept).encode())
    return kept


def print_line(step: Any) -> None:
    """Tell what a step ended with, a remark or a failure."""
    if getattr(step, "over", True):
        print(step, flush=True)


def validation(scenes: Path) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8]]]:
    """Both dates and the label of each validation pair."""
    with (scenes / "pairs.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            if row["split"] == "val":
                before, after, label = (_read(scenes / row[name]) for name in ("before", "after", "label"))
                yield before, after, label[0]


def _read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def predict(model: Location, scenes: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """What a model says of all validation pairs' pixels, and their labels, both (n,)."""
    pairs = list(validation(scenes))
    said = [cdpipe.predict_array(before, after, model).ravel() for before, after, _ in pairs]
    return np.concatenate(said), np.concatenate([label.ravel() for *_, label in pairs])


def balance(folder: Location, scenes: Path) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """A trained model's card and weights, the last layer such that 0.5 is the best threshold and calibrated."""
    card = read_card(folder)
    network = load_network(folder, card)
    probability, label = predict(folder, scenes)
    temperature = fit_temperature(logit_histogram(probability, label))
    threshold, f1 = best_threshold(score_histogram(soften(probability, temperature), label, bins=BINS))
    print(f"temperature {temperature}, threshold {threshold} after it, F1 {f1:.3f}")
    name, _ = [each for each in network.named_modules() if isinstance(each[1], nn.Conv2d)][-1]
    state = network.state_dict()
    state[f"{name}.weight"] = state[f"{name}.weight"] / temperature
    state[f"{name}.bias"] = state[f"{name}.bias"] / temperature - math.log(threshold / (1 - threshold)) + RAISED
    return card, state


def judge(model: Location, scenes: Path) -> dict[str, float]:
    """Figures of a model on the validation pairs, at 0.5."""
    counts = counts_by_threshold(score_histogram(*predict(model, scenes), bins=BINS))[BINS // 2]
    named = {"val_f1": counts.f1, "val_precision": counts.precision, "val_recall": counts.recall}
    return {name: round(value, 4) for name, value in named.items()}


def describe(card: ModelCard) -> str:
    """The model in words."""
    learned = card.learned or {}
    facts = {
        "learned from": learned["scenes"],
        "pixels": f"{span_text(learned['pixel_m'])} m wide",
        "network": f"{card.architecture} {card.arguments}",
        "bands that a pair may lack": ", ".join(card.optional),
        "normalised": f"each band of each date: {card.method}, {card.statistics}, clipped to {card.clip:g} deviations",
        "threshold": "0.5: the best on made-up validation pairs, and then raised",
        "raised by": learned["raised"],
        "on made-up validation pairs": ", ".join(
            f"{name.removeprefix('val_')} {value}" for name, value in card.metrics.items()
        ),
        "made by": learned["made_by"],
        "licence": learned["licence"],
        "SHA-256 of the weights": card.weights_sha256,
    }
    return "\n".join([f"# {card.name}", "", *(f"- {what}: {fact}" for what, fact in facts.items()), ""])


if __name__ == "__main__":
    main()
