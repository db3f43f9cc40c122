"""A small shift that is sure is put right, whatever the blocks; what is not sure is left alone, and why is said."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from project import call, make_project
from rasters import make_config, source_of, utm_grid, write_raster

from cdpipe.config.schema import Config
from cdpipe.demo.place import Place, bare_surface, change_label, draw_place, photograph, visible
from cdpipe.demo.render import draw_conditions
from cdpipe.errors import InputError
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import block_keys
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.coregistration import Correction, find_correction, known_corrections
from cdpipe.pairs.imagery import read_on_grid
from cdpipe.pairs.ingest import IngestJob, create_pair_groups, finish_pair, ingest_block
from cdpipe.pairs.plan import coregistration_key, plan_pair, source_files
from cdpipe.store.arrays import open_array, read_all
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

RGB = ("red", "green", "blue")
SHAPE = (600, 700)
GRID = utm_grid(*SHAPE)

Image = NDArray[np.float32]
Scene = tuple[Image, Image, Place]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A made-up place at two dates, with light, haze and seasons of their own, taken at one hour of the day."""
    random = np.random.default_rng(4)
    place = draw_place(random, SHAPE, changed_share=0.03)
    first, second = (draw_conditions(random, place.shape) for _ in range(2))
    taken = first, dataclasses.replace(second, sun=first.sun)  # shadows that moved would be a shift too
    before, after = (visible(photograph(place, date, each))[:3] for date, each in enumerate(taken))
    return before, after, place


def move(image: Image, rows: float, cols: float) -> Image:
    """Move what an image shows down and right."""
    matrix = np.array([[1, 0, cols], [0, 1, rows]], np.float32)
    bands = [cv2.warpAffine(band, matrix, band.shape[::-1], flags=cv2.INTER_LANCZOS4, borderMode=4) for band in image]
    return np.asarray(bands, np.float32)


def pair_of(
    folder: Path, before: Image, after: Image, grid: Grid | None = GRID, after_grid: Grid | None = None
) -> Pair:
    config = make_config(folder)
    first, second = (
        write_raster(folder / f"{name}.tif", image.clip(1, 60000).round().astype(np.uint16), own)
        for name, image, own in (("before", before, grid), ("after", after, after_grid or grid))
    )
    return Pair("p", "p", source_of(first, config, (1, 2, 3)), source_of(second, config, (1, 2, 3)), RGB)


def decided(pair: Pair, grid: Grid = GRID) -> Correction:
    return find_correction(pair, grid, make_config(pair.before.path.parent.local()))


@pytest.mark.parametrize("shift", [(0.5, -0.7), (-1.4, 0.3), (2.2, 1.6)])
def test_a_known_shift_is_found(tmp_path: Path, scene: Scene, shift: tuple[float, float]) -> None:
    found = decided(pair_of(tmp_path, scene[0], move(scene[1], *shift)))
    assert (found.rows, found.cols) == pytest.approx(shift, abs=0.1)
    assert found.moved
    assert found.agreeing > 0.8


def test_a_pair_that_lies_well_is_left(tmp_path: Path, scene: Scene) -> None:
    found = decided(pair_of(tmp_path, scene[0], scene[1]))
    assert not found.moved
    assert found.reason.startswith("lies well")


def best_iou(before: Image, after: Image, label: NDArray[np.uint8]) -> float:
    """What thresholding the difference of normalised greys reaches at most."""
    grey = [image.astype(float).mean(0) for image in (before, after)]
    first, second = ((each - each.mean()) / each.std() for each in grey)
    difference, truth = np.abs(first - second), label == 1
    masks = (difference >= threshold for threshold in np.linspace(0.1, 5, 60))
    return max(float((mask & truth).sum() / (mask | truth).sum()) for mask in masks)


def test_correction_mends_the_difference(tmp_path: Path, scene: Scene) -> None:
    """Of two dates in one light and season, which differ where something changed and nowhere else."""
    place = scene[2]
    before, after = (visible(bare_surface(place, date, season=0))[:3] for date in (0, 1))
    label = visible(change_label(place))
    pair, config, whole = pair_of(tmp_path, before, move(after, 1.4, -0.9)), make_config(tmp_path), Window(0, 0, *SHAPE)
    found = find_correction(pair, GRID, config)
    shifts = (0.0, 0.0), (found.rows, found.cols)
    read = [read_on_grid(pair.after, None, GRID, whole, config, shift) for shift in shifts]
    inside = slice(4, -4), slice(4, -4)
    wrong, right = (best_iou(before[:, *inside], values[:, *inside], label[inside]) for values, _ in read)
    assert right > wrong + 0.1
    # what moved in from outside was not observed
    assert (~read[1][1]).sum() == pytest.approx(1.4 * 700 + 0.9 * 600, abs=700)


def unrelated(seed: int) -> Image:
    random = np.random.default_rng(seed)
    return visible(
        photograph(place := draw_place(random, SHAPE, changed_share=0.0), 0, draw_conditions(random, place.shape))
    )[:3]


def noise(seed: int) -> Image:
    return np.random.default_rng(seed).normal(1000, 100, (3, *SHAPE)).astype(np.float32)


def torn(image: Image) -> Image:
    """Left half moved one way, right half another: no one shift mends that."""
    half = image.shape[2] // 2
    return np.concatenate([move(image, 1.5, 0)[:, :, :half], move(image, -1.5, 0)[:, :, half:]], 2)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda *_: (noise(1), noise(2)), "windows agree"),
        (lambda before, _: (before, noise(1)), "windows agree"),
        (lambda before, _: (before, unrelated(9)), "windows agree"),
        (lambda before, after: (before, torn(after)), "agree|apart"),
        (lambda before, after: (before, move(after, 6, 3)), "too far off: 6"),
        (lambda before, _: (before * 0 + 7, before), "agree"),
    ],
    ids=["noise", "half noise", "change everywhere", "torn", "far", "flat"],
)
def test_what_is_not_sure_is_left_and_why_is_said(
    tmp_path: Path,
    scene: Scene,
    make: Callable[[Image, Image], tuple[Image, Image]],
    reason: str,
) -> None:
    found = decided(pair_of(tmp_path, *make(*scene[:2])))
    assert not found.moved
    assert any(part in found.reason for part in reason.split("|")), found


def test_scenes_with_too_few_windows_are_left(tmp_path: Path, scene: Scene) -> None:
    before, after = (image[:, :200, :150] for image in scene[:2])
    found = decided(pair_of(tmp_path, before, after, utm_grid(200, 150)), utm_grid(200, 150))
    assert (found.moved, found.windows) == (False, 1)
    assert "1 window(s) to compare, expected at least 4" in found.reason


def stored(
    pair: Pair, config: Config, correction: Correction
) -> tuple[IngestJob, NDArray[np.uint16], NDArray[np.uint8]]:
    """The second date and what is observed, as ingested."""
    hashes = {path: path.sha256() for path in source_files(pair, config)}
    planned = plan_pair(pair, config, hashes, {coregistration_key(pair, GRID, config, hashes): correction})
    block = config.align.block
    job = IngestJob(Workspace(config.workspace / str(block)), config, planned)
    create_pair_groups(job)
    for each in block_keys("p", GRID.shape, block):
        ingest_block(job, each, imagery=True, label=False)
    finish_pair(job)
    group = job.workspace.group("pairs", "p", planned.key)
    return job, read_all(open_array(group, "after")), read_all(open_array(group, "valid"))


def test_a_corrected_pair_is_the_same_for_every_size_of_blocks(tmp_path: Path, scene: Scene) -> None:
    """The second date lies on a grid of its own besides, and is warped once."""
    other = Grid(*SHAPE, (10.0, 0.0, 500_003.0, 0.0, -10.0, 4_000_002.0), GRID.crs)
    pair = pair_of(tmp_path, scene[0], move(scene[1], 1.3, -0.8), after_grid=other)
    configs = [make_config(tmp_path, align={"coregister": "auto", "block": block}) for block in (512, 1024)]
    correction = find_correction(pair, GRID, configs[0])
    assert (correction.rows, correction.cols) == pytest.approx((1.3 - 0.2, -0.8 + 0.3), abs=0.1)
    (job, after, valid), (_, again, valid_again) = (stored(pair, each, correction) for each in configs)
    np.testing.assert_array_equal(after, again)
    np.testing.assert_array_equal(valid, valid_again)
    group = job.workspace.group("pairs", "p", job.planned.key)
    attributes = json.loads((group / "zarr.json").read_text())["attributes"]
    assert attributes["coregistration"] == correction.to_json()
    assert not decided(pair_of(tmp_path, scene[0], after.astype(np.float32))).moved


def test_pixel_coordinates_can_be_corrected_too(tmp_path: Path, scene: Scene) -> None:
    plain = Grid(*SHAPE)
    pair = pair_of(tmp_path, scene[0], move(scene[1], -0.8, 1.2), None)
    config = make_config(tmp_path, input={"pixel_coordinates": True})
    found = find_correction(pair, plain, config)
    assert (found.rows, found.cols) == pytest.approx((-0.8, 1.2), abs=0.1)
    window, shift = Window(0, 0, *SHAPE), (found.rows, found.cols)
    values, _ = read_on_grid(pair.after, None, plain, window, config, shift)
    with_map = pair_of(tmp_path, scene[0], move(scene[1], -0.8, 1.2))
    expected, _ = read_on_grid(with_map.after, None, GRID, window, config, shift)
    np.testing.assert_allclose(values, expected, atol=1)  # coordinates on a map have fewer digits left


def test_a_valid_raster_moves_with_its_date(tmp_path: Path) -> None:
    """Three rows down and two columns right, so that every pixel is one of the source's."""
    image = np.arange(3 * 40 * 50, dtype=np.float32).reshape(3, 40, 50) + 1
    grid = utm_grid(40, 50)
    pair, config = pair_of(tmp_path, image, image, grid), make_config(tmp_path)
    usable = np.ones((40, 50), np.uint8)
    usable[10, 20] = 0
    valid = write_raster(tmp_path / "valid.tif", usable, grid)
    values, observed = read_on_grid(pair.after, here(valid), grid, Window(0, 0, 40, 50), config, (3.0, 2.0))
    assert not observed[7, 18]
    assert (~observed).sum() == 1 + 40 * 50 - 37 * 48
    np.testing.assert_array_equal(values[:, :37, :48][:, observed[:37, :48]], image[:, 3:, 2:][:, observed[:37, :48]])


def test_keys_change_only_where_coregistration_is_asked_for(tmp_path: Path, scene: Scene) -> None:
    pair = pair_of(tmp_path, scene[0], scene[1])
    hashes = {path: path.sha256() for path in source_files(pair, make_config(tmp_path))}
    configs = {mode: make_config(tmp_path, align={"coregister": mode}) for mode in ("off", "report")}
    keys = {mode: plan_pair(pair, config, hashes).key for mode, config in configs.items()}
    auto = make_config(tmp_path, align={"coregister": "auto"})
    assert keys["off"] == keys["report"] == plan_pair(pair, make_config(tmp_path), hashes).key
    with pytest.raises(InputError, match="not coregistered yet; run cdpipe ingest"):
        plan_pair(pair, auto, hashes)
    key = coregistration_key(pair, GRID, auto, hashes)
    assert key == coregistration_key(pair, GRID, make_config(tmp_path, align={"block": 512}), hashes)
    assert key != coregistration_key(pair, GRID, make_config(tmp_path, align={"resampling": "cubic"}), hashes)
    assert plan_pair(pair, auto, hashes, {key: decided(pair)}).key != keys["off"]


def test_a_real_pair_that_was_moved_is_moved_back(shared: Path, tmp_path: Path) -> None:
    """What was added is found on top of what the dates lie off anyway."""
    folder, shift = shared / "data" / "oscd" / "saclay_e", (0.5, -0.7)
    with rasterio.open(folder / "after.tif") as dataset:
        profile, image = dataset.profile, dataset.read().astype(np.float32)
    with rasterio.open(tmp_path / "moved.tif", "w", **profile) as dataset:
        dataset.write(move(image, *shift).clip(0, 65535).round().astype(profile["dtype"]))
    config = make_config(tmp_path, sensors={"s": {"bands": {"blue": 1, "green": 2, "red": 3}}})
    files = folder / "before.tif", folder / "after.tif", tmp_path / "moved.tif"
    before, after, moved = (source_of(path, config, (1, 2, 3)) for path in files)
    with rasterio.open(folder / "before.tif") as dataset:
        grid = Grid(dataset.height, dataset.width, tuple(dataset.transform)[:6], dataset.crs.to_wkt())
    own, added = (find_correction(Pair("p", "p", before, each, RGB), grid, config) for each in (after, moved))
    assert (added.rows - own.rows, added.cols - own.cols) == pytest.approx(shift, abs=0.1)


@pytest.mark.usefixtures("in_threads")
@pytest.mark.timeout(900)
def test_ingest_says_what_it_does_and_remembers_it(tmp_path: Path, scene: Scene) -> None:
    project = make_project(tmp_path, ["row"], align={"block": 512, "coregister": "auto"})
    pair_of(tmp_path, scene[0], move(scene[1], 1.2, 0.6))
    with (tmp_path / "pairs.csv").open("a") as stream:
        stream.write("moved,,before.tif,after.tif\n")
    checked = call(project.arguments("check"))
    told = call(project.arguments("ingest"))
    assert told.code == 0, told
    for said in (checked.out, told.out):
        assert "coregister: moved is moved: lies off by +1.2" in said
        assert "coregister: row is left as it is: unsure" in said
        assert "1 of 2 pair(s) are moved" in said
    assert len(known_corrections(Workspace(here(project.workspace)))) == 2
    again = call(project.arguments("ingest"))
    assert "0 block(s) written now" in again.out
