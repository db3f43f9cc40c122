"""A batch normalisation that would see one value is refused from the configuration alone."""

from pathlib import Path

import numpy as np
import pytest
from project import call
from rasters import make_config, utm_grid, write_raster

from cdpipe.errors import EXIT_CONFIG, ConfigError
from cdpipe.training.batches import check_batches, known_workers

RESNET = {"encoder": "resnet18"}
POOLING = ("deeplabv3", "deeplabv3plus")


def train(model: str, batch: int, patch: int = 64) -> dict[str, object]:
    return {"models": {model: RESNET}, "patch": patch, "global_batch": batch}


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (4, 4)])
@pytest.mark.parametrize("model", POOLING)
def test_networks_that_pool_to_one_pixel_need_two_samples(tmp_path: Path, model: str, batch: int, workers: int) -> None:
    config = make_config(tmp_path, train=train(model, batch))
    with pytest.raises(ConfigError, match=f"train.models.{model}: with train.global_batch: {batch}") as caught:
        check_batches(config, workers)
    assert f"train.global_batch: {2 * workers}" in str(caught.value)
    check_batches(make_config(tmp_path, train=train(model, 2 * batch)), workers)


def test_others_need_them_for_small_patches_only(tmp_path: Path) -> None:
    check_batches(make_config(tmp_path, train=train("unet", 1)), 1)
    with pytest.raises(ConfigError, match="one value of one sample"):
        check_batches(make_config(tmp_path, train=train("unet", 1, 32)), 1)


def test_what_the_configuration_tells_of_workers(tmp_path: Path) -> None:
    for resources, workers in (({}, 1), ({"workers": 4}, 1), ({"workers": 4, "gpus": 0}, 4), ({"gpus": 0}, 1)):
        assert known_workers(make_config(tmp_path, resources=resources)) == workers


@pytest.mark.parametrize("verb", [["pipeline"], ["pipeline", "--dry-run"]])
def test_the_pipeline_refuses_it_before_any_work(tmp_path: Path, verb: list[str]) -> None:
    for name in ("before", "after"):
        write_raster(tmp_path / f"{name}.tif", np.ones((3, 40, 48), np.uint16), utm_grid(40, 48))
    write_raster(tmp_path / "label.tif", np.ones((40, 48), np.uint8), utm_grid(40, 48))  # without one none is trained
    (tmp_path / "pairs.csv").write_text("pair_id,before,after,label\np,before.tif,after.tif,label.tif\n")
    (tmp_path / "c.yaml").write_text(
        "name: t\ncatalog: pairs.csv\nworkspace: work\nsensors: {s: {bands: {red: 1, green: 2, blue: 3}}}\n"
        "train: {models: {deeplabv3plus: {encoder: resnet18}}, patch: 64, global_batch: 1}\nresources: {gpus: 0}\n"
    )
    result = call([*verb, str(tmp_path / "c.yaml")])
    assert result.code == EXIT_CONFIG
    assert result.err.startswith("cdpipe: train.models.deeplabv3plus: with train.global_batch: 1")
    assert not (tmp_path / "work" / "store.zarr").exists()
