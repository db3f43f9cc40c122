"""PNG and JPEG pairs without georeference go through the whole pipeline in pixel coordinates."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from project import Project, array, draw_change, succeed, untrained_model
from rasters import write_raster

from cdpipe.config.load import load_config
from cdpipe.pairs.catalog import read_catalog

DRIVERS = {"png": "PNG", "jpg": "JPEG"}
SHAPE = (70, 90)


def write_data_set(folder: Path) -> None:
    """A pair in PNG, one in JPEG, both with labels of 0 and 255; one whose label is all zero; one without."""
    random = np.random.default_rng(0)
    for name, suffix, changed in (
        ("Кама", "png", True),
        ("two", "jpg", True),
        ("three", "png", False),
        ("4", "jpg", None),
    ):
        before, after, label = draw_change(random, SHAPE)
        images = {"A": (before // 12).astype(np.uint8), "B": (after // 12).astype(np.uint8)}
        for date, pixels in images.items():
            (folder / date).mkdir(parents=True, exist_ok=True)
            write_raster(folder / date / f"{name}.{suffix}", pixels, driver=DRIVERS[suffix])
        if changed is not None:
            (folder / "label").mkdir(exist_ok=True)
            write_raster(folder / "label" / f"{name}.png", label * np.uint8(255 if changed else 0), driver="PNG")


def read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


@pytest.mark.usefixtures("local_ray")
@pytest.mark.heavy
def test_pixels_come_through_and_results_lie_on_them(tmp_path: Path) -> None:
    write_data_set(tmp_path / "data")
    config = tmp_path / "run.yaml"
    succeed(["catalog", "folders", str(tmp_path / "data"), "--out", str(tmp_path / "p.csv"), "--config", str(config)])
    values = yaml.safe_load(config.read_text()) | {
        "name": "run",
        "predict": {"models": [str(untrained_model(tmp_path, "m"))], "tta": "none", "threshold": 0.5},
        "resources": {"workers": 1, "gpus": 0},
    }
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    project = Project(config, tmp_path / "work")
    for verb in ("ingest", "predict", "evaluate"):
        succeed(project.arguments(verb))
    pairs = {pair.name: pair for pair in read_catalog(load_config(config))}
    assert set(pairs) == {"Кама", "two", "three", "4"}
    for pair in pairs.values():
        [key] = [folder.name for folder in (project.workspace / "store.zarr" / "pairs" / pair.pair_id).glob("*/")]
        for date in ("before", "after"):
            source = getattr(pair, date).path
            assert np.array_equal(array(project, "pairs", pair.pair_id, key, date), read(source))
        assert (array(project, "pairs", pair.pair_id, key, "valid") == 3).all()  # 0 and 255 are values, not nodata
        if pair.label is not None:
            [key] = [folder.name for folder in (project.workspace / "store.zarr" / "labels" / pair.pair_id).glob("*/")]
            assert np.array_equal(
                array(project, "labels", pair.pair_id, key, "label"), read(pair.label.local())[0] // 255
            )
        with rasterio.open(project.outputs / "rasters" / f"{pair.pair_id}_change.tif") as change:
            assert change.shape == SHAPE
            assert change.crs is None
            assert change.transform.is_identity
            assert set(np.unique(change.read())) <= {0, 1}
    pictures = {path.stem for path in (project.outputs / "report" / "pictures").iterdir()}
    assert {pairs[name].pair_id for name in ("Кама", "two", "three")} <= pictures
