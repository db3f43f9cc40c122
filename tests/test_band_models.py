"""Networks that start at the full size, on bands of which one alone shows the change: trained, predicted, looked at."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from project import CONFIG, Project, array, succeed, write_catalog
from rasters import utm_grid, write_raster

from cdpipe import predict_array

pytestmark = [pytest.mark.usefixtures("in_threads"), pytest.mark.timeout(600)]

BANDS = ["nir", "red"]
MODELS = {"siamese_unet": {"encoder": "plain8", "bands": BANDS}}


def make_scenes(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Pairs of four bands with fields that appear in the fourth; the label of each."""
    labels, rows = {}, []
    for number, (pair_id, split) in enumerate((("one", "train"), ("two", "train"), ("three", "val"), ("four", "test"))):
        random, grid = np.random.default_rng(number), utm_grid(100, 130)
        before = random.normal(1000, 100, (4, *grid.shape))
        label = np.zeros(grid.shape, np.uint8)
        for row, col in zip(random.integers(0, 90, 12), random.integers(0, 120, 12), strict=True):
            label[row : row + 7, col : col + 6] = 1
        after = before + random.normal(0, 20, before.shape)
        after[3] += 700.0 * label
        (folder / pair_id).mkdir()
        columns = {"pair_id": pair_id, "split": split}
        for name, values in (
            ("before", before.astype(np.uint16)),
            ("after", after.astype(np.uint16)),
            ("label", label),
        ):
            columns[name] = f"{pair_id}/{name}.tif"
            write_raster(folder / columns[name], values, grid)
        labels[pair_id] = label
        rows.append(columns)
    write_catalog(folder / "pairs.csv", rows)
    return labels


def test_small_changes_of_one_band_are_learned_and_found(tmp_path: Path) -> None:
    labels = make_scenes(tmp_path)
    train = {"models": MODELS, "patch": 40, "global_batch": 8, "epochs": 2, "samples_per_epoch": 160}
    config = {
        **CONFIG,
        "sensors": {"s": {"bands": {"red": 1, "green": 2, "blue": 3, "nir": 4}}},
        "normalisation": {"method": "robust"},
        "train": {**train, "learning_rate": 3e-3, "decay": 0.9},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    project = Project(tmp_path / "config.yaml", tmp_path / "work")
    for verb in ("ingest", "train", "predict"):
        succeed(project.arguments(verb))
    with rasterio.open(project.outputs / "rasters" / "four_change.tif") as dataset:
        change = dataset.read(1)
    label = labels["four"]
    hits = np.count_nonzero((change == 1) & (label == 1))
    assert 2 * hits / (np.count_nonzero(change == 1) + label.sum()) > 0.8
    for name in MODELS:
        _check_model(project, tmp_path, name, label)


def _check_model(project: Project, scenes: Path, name: str, label: NDArray[np.uint8]) -> None:
    [folder] = (file.parent for file in (project.workspace / "models" / name).glob("*/model.json"))
    card = json.loads((folder / "model.json").read_text())
    assert (card["roles"], card["method"], card["clip"], card["patch"]) == (BANDS, "robust", 4.0, 40)
    assert "nir, red, normalised by common quantiles of each band, clipped to 4" in (folder / "model.md").read_text()
    dates = []
    for date in ("before", "after"):
        with rasterio.open(scenes / "four" / f"{date}.tif") as dataset:
            dates.append(dataset.read([4, 1]))
    probability = predict_array(dates[0], dates[1], folder, tta="none")
    assert probability[label == 1].mean() > probability[label == 0].mean() + 0.3
    [pair] = (pair for pair in project.manifest.pairs if pair.pair_id == "four")
    stored = array(project, "probabilities", "four", pair.probabilities[name], "probability")
    np.testing.assert_allclose(probability, stored, atol=1e-5)
