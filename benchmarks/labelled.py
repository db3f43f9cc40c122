"""What benchmarks of few labels share: the pairs of a catalog, and how a small network learns from them."""

import csv
from pathlib import Path
from typing import Any

# Beside a model's own, the keys of ``train``; steps and learning rate are each benchmark's.
RECIPE: dict[str, Any] = {
    "patch": 64,
    "global_batch": 16,
    "epochs": 1,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "clip_norm": 1,
    "ema": 0.99,
    "keep": "last",
    "loss": ["dice", "bce"],
    "augment": ["D4", {"BandJitter": dict.fromkeys(("gain", "offset", "band_gain", "band_offset"), 0.1)}],
}


def read_pairs(catalog: Path) -> list[dict[str, str]]:
    """The rows of a catalog, with the columns before, after and label as absolute paths."""
    with catalog.open(newline="") as stream:
        rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
    return [
        {**row, **{key: str((catalog.parent / row[key]).resolve()) for key in ("before", "after", "label")}}
        for row in rows
    ]
