"""The model that comes with cdpipe: found by name, whole, small, and content with three bands."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

import cdpipe
from cdpipe.config.detectors import SHIPPED, named_folder, named_model
from cdpipe.config.load import parse_config, to_yaml
from cdpipe.demo.varied import draw_pair
from cdpipe.errors import ConfigError
from cdpipe.geo.grid import Window
from cdpipe.models.folder import WEIGHTS, check_weights, read_card
from cdpipe.models.stac_item import stac_files
from cdpipe.store.normalisation import Recipe, date_scaling, model_input
from cdpipe.store.statistics import measure
from cdpipe.training.plan import needed_bands
from cdpipe.workspace.files import read_json
from cdpipe.workspace.location import here

ROOT = Path(__file__).parents[1]
LARGEST = 2 * 2**20  # bytes that a wheel may grow by
CONFIG: dict[str, Any] = {
    "name": "run",
    "catalog": "pairs.csv",
    "workspace": "work",
    "sensors": {"s": {"bands": {"red": 1, "green": 2, "blue": 3}}},
}


def test_the_folder_is_whole_small_and_of_16_bits() -> None:
    folder = named_folder(SHIPPED)
    card = read_card(folder)
    check_weights(folder, card)
    weights = folder.local() / WEIGHTS
    assert weights.stat().st_size <= LARGEST
    with safe_open(weights, "pt") as file:
        kinds = {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    assert kinds == {"torch.float16", "torch.int64"}
    assert card.weights_sha256 in (folder.local() / "model.md").read_text()
    assert {"pixel_m", "raised", "scenes", "licence", "made_by"} <= set(card.learned or {})
    assert "values" not in (card.learned or {})  # which do not matter: each date is scaled by its own quartiles


def test_the_folder_is_part_of_the_wheel() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cdpipe"]
    assert f"{named_folder(SHIPPED).local().relative_to(ROOT / 'cdpipe')}/*" in data


def test_its_name_is_a_place_wherever_a_model_is_asked_for(tmp_path: Path) -> None:
    model = {"siamese_unet": {"init_from": SHIPPED}}
    values = {**CONFIG, "predict": {"models": [SHIPPED, "other"]}, "train": {"models": model}}
    config = parse_config(values, tmp_path)
    assert config.predict.models == (named_folder(SHIPPED), here(tmp_path / "other"))
    assert config.train.models["siamese_unet"].init_from == named_folder(SHIPPED)
    text = to_yaml(config, here(tmp_path))
    assert f"init_from: {SHIPPED}\n" in text
    assert str(named_folder(SHIPPED)) not in text


def test_an_own_model_of_its_name_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / SHIPPED).mkdir()
    assert named_model(SHIPPED, here(tmp_path)) == named_folder(SHIPPED)
    (tmp_path / SHIPPED / "model.json").write_text("{}")
    with pytest.raises(ConfigError, match="rename"):
        named_model(SHIPPED, here(tmp_path))
    assert named_model(tmp_path / SHIPPED, here(tmp_path)) == here(tmp_path / SHIPPED)


@pytest.mark.parametrize("method", ["moments", "robust"])
def test_a_band_that_need_not_be_there_is_zero(method: str) -> None:
    date = np.random.default_rng(0).integers(1, 1000, (3, 20, 20)).astype(np.uint16)
    observed = np.ones((20, 20), np.bool_)
    levels = [tuple(np.quantile(band, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))) for band in date]
    roles = ("red", "green", "blue")
    recipe = Recipe("stacked", (*roles, "nir"), "per_date", False, 4.0, method, ("nir",))
    moments = measure(date, observed, Window(0, 0, 20, 20))
    scaling = date_scaling(moments, roles, (1.0, 0.0), recipe, levels)
    scene = model_input((date, date), observed, (scaling, scaling))
    without = date_scaling(moments, roles, (1.0, 0.0), replace(recipe, roles=roles, optional=()), levels)
    expected = model_input((date, date), observed, (without, without))
    assert np.array_equal(scene[[0, 1, 2, 4, 5, 6]], expected)
    assert not scene[[3, 7]].any()
    with pytest.raises(ValueError, match="nir"):
        date_scaling(moments, roles, (1.0, 0.0), replace(recipe, optional=()), levels)


def made_up(number: int, size: int = 128) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8]]:
    pair = draw_pair(np.random.default_rng([99, number]), size)  # a seed that it did not learn from
    return pair.before, pair.after, pair.label


def test_three_bands_are_seen_as_four_of_which_one_says_nothing() -> None:
    before, after, _ = made_up(0, 64)
    constant = np.full_like(before[:1], 7)
    four = [np.concatenate([date[:3], constant]) for date in (before, after)]
    three = cdpipe.predict_array(before[:3], after[:3], SHIPPED, tta="none")
    assert np.array_equal(three, cdpipe.predict_array(four[0], four[1], SHIPPED, tta="none"))
    with pytest.raises(ValueError, match="expected two arrays"):
        cdpipe.predict_array(before[:2], after[:2], SHIPPED)


def test_it_finds_made_up_changes_and_none_between_equal_images() -> None:
    hits = false_alarms = missed = 0
    for number in range(6):
        before, after, label = made_up(number)
        change = cdpipe.predict_array(before, after, SHIPPED, tta="none") >= 0.5
        hits += int((change & (label == 1)).sum())
        false_alarms += int((change & (label == 0)).sum())
        missed += int((~change & (label == 1)).sum())
        assert (cdpipe.predict_array(before, before, SHIPPED, tta="none") >= 0.5).mean() < 0.001
    assert 2 * hits / (2 * hits + false_alarms + missed) > 0.4


def test_optional_bands_are_not_required_of_pairs(tmp_path: Path) -> None:
    network = {"bands": ["red", "green", "blue", "nir", "swir16"], "optional_bands": ["nir"]}
    values = {**CONFIG, "train": {"models": {"siamese_unet": network}}}
    assert needed_bands(parse_config(values, tmp_path)) == ("red", "green", "blue", "swir16")
    given = parse_config({**CONFIG, "predict": {"models": [SHIPPED]}}, tmp_path)
    assert needed_bands(given) == ("red", "green", "blue")


@pytest.mark.parametrize("optional", [["swir16"], ["red", "nir"]])
def test_optional_bands_are_some_of_the_bands(tmp_path: Path, optional: list[str]) -> None:
    network = {"bands": ["red", "nir"], "optional_bands": optional}
    with pytest.raises(ConfigError, match="optional_bands"):
        parse_config({**CONFIG, "train": {"models": {"siamese_unet": network}}}, tmp_path)


def test_a_card_without_optional_bands_keeps_its_key() -> None:
    card = replace(read_card(named_folder(SHIPPED)), optional=())
    assert card.key != read_card(named_folder(SHIPPED)).key
    assert replace(card, learned={"scenes": "others"}).key == card.key
    assert replace(card, weights_sha256="0" * 64).key != card.key


def test_the_folder_has_its_stac_item() -> None:
    """As it would be written today, by another version."""
    folder = named_folder(SHIPPED)
    ((name, expected),) = stac_files(read_card(folder), (folder / WEIGHTS).stat().size).items()
    found = read_json(folder / name)
    for each in (found, expected):
        del each["properties"]["cdpipe:contract"]["made_by"]
    assert found == expected
