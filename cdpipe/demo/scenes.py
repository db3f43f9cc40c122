"""The demo's data: synthetic pairs of scenes with exact labels, written as GeoTIFFs with their table."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from cdpipe.demo.place import MARGIN, Place, change_label, draw_place, photograph, visible
from cdpipe.demo.render import cloud_holes, digitise, draw_conditions
from cdpipe.geo.crs import transform_by_gdal
from cdpipe.geo.grid import Grid

BAND_NAMES = ("red", "green", "blue", "nir")
COLUMNS = (
    "pair_id", "before", "after", "label", "split", "before_date", "after_date", "before_sensor", "after_sensor",
)  # fmt: skip
SENSOR = "demo"
NODATA = 0
SMALLEST_SIZE = 96

_UTM_37N, _UTM_38N = "EPSG:32637", "EPSG:32638"
# On 42 degrees east, where zones 37 and 38 meet: the other zone's pixels lie turned by some 5 degrees.
_FIRST_CORNER = (704_000.0, 5_798_000.0)
_SPACING = 4_000.0
_TILE = 256


@dataclass(frozen=True)
class Recipe:
    """What makes one pair special.

    Attributes:
        name: Ends the pair's id.
        split: train, val or test.
        stretch: Rows and columns relative to the size asked for.
        changed: Part of the pixels that changes.
        shift: How wrong the second scene's georeference is, in pixels along x and y.
        clouds: Part of the second scene that clouds hide.
        after_crs: Coordinate reference system of the second scene.
        after_pixel: Pixel size of the second scene in metres; the first has 1 m.
        after_offset: How far the second scene's corner lies from where it covers the first one, metres.
    """

    name: str
    split: str
    stretch: tuple[float, float] = (1.0, 1.0)
    changed: float = 0.065
    shift: tuple[float, float] = (0.15, -0.1)
    clouds: float = 0.0
    after_crs: str = _UTM_37N
    after_pixel: float = 1.0
    after_offset: tuple[float, float] = (0.0, 0.0)


# In order of need: fewer pairs leave out the later ones, more pairs repeat the last.
RECIPES = (
    Recipe("plain", "train", stretch=(1.2, 1.1)),
    Recipe("plain", "val", stretch=(0.96, 1.05)),
    Recipe("plain", "test", stretch=(1.25, 1.17)),
    Recipe("clouds", "train", stretch=(1.1, 1.15), clouds=0.09),
    Recipe("shifted", "train", stretch=(1.13, 1.07), shift=(0.7, -0.6)),
    Recipe("other-zone", "test", after_crs=_UTM_38N),
    Recipe("coarser", "train", stretch=(1.0, 1.1), after_pixel=1.25, after_offset=(13.6, -9.3)),
    Recipe("unchanged", "train", stretch=(0.9, 0.9), changed=0.0),
    Recipe("plain", "train"),
)


def make_sample_scenes(folder: Path, *, seed: int = 0, pairs: int = 8, size: int = 512) -> Path:
    """Write synthetic pairs of scenes with exact change labels, and the table that lists them.

    Every scene is a tiled, deflated GeoTIFF of red, green, blue and near infrared: uint16 with values of 1 to
    1023 and 0 where nothing was observed. Labels are uint8, 1 where the ground changed, on the first scene's grid.
    Haze, light, season, noise and a small misregistration differ between the dates of every pair. Among eight
    pairs one has clouds, one a misregistration of almost a pixel, one a second scene in another UTM zone, one a
    second scene of coarser pixels, and one no change.

    Args:
        folder: Where to write; made where missing, files of the same names are replaced.
        seed: Of all randomness; the same seed gives the same bytes with the same library versions.
        pairs: How many; from three on there is one of each split.
        size: Rows and columns of an ordinary scene, in pixels of 1 m; some are up to a quarter larger.

    Returns:
        The table `pairs.csv`, a row per pair, with paths relative to `folder`.

    Raises:
        ValueError: If `pairs` is less than 1 or `size` less than 96.
    """
    if pairs < 1 or size < SMALLEST_SIZE:
        raise ValueError(f"expected at least 1 pair and a size of {SMALLEST_SIZE} pixels, got {pairs} and {size}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_make_pair(folder, seed, number, size) for number in range(pairs)]
    table = folder / "pairs.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
    return table


def _make_pair(folder: Path, seed: int, number: int, size: int) -> tuple[str, ...]:
    """Write the rasters of one pair and return its row of the table."""
    recipe = RECIPES[min(number, len(RECIPES) - 1)]
    pair_id = f"{number + 1:02d}-{recipe.name}"
    rng = np.random.default_rng([seed, number])
    shape = (round(size * recipe.stretch[0]), round(size * recipe.stretch[1]))
    place = draw_place(rng, shape, changed_share=recipe.changed)
    before_grid = _before_grid(number, shape)
    days = _acquisition_days(rng)
    (folder / pair_id).mkdir(exist_ok=True)
    paths = [f"{pair_id}/{name}.tif" for name in ("before", "after", "label")]
    _write(folder / paths[0], _first_scene(rng, place), before_grid, days[0])
    after_grid = _after_grid(recipe, before_grid)
    _write(folder / paths[1], _second_scene(rng, place, recipe, before_grid, after_grid), after_grid, days[1])
    _write(folder / paths[2], visible(change_label(place))[None], before_grid, days[1])
    return (pair_id, *paths, recipe.split, *(day.isoformat() for day in days), SENSOR, SENSOR)


def _before_grid(number: int, shape: tuple[int, int]) -> Grid:
    west = _FIRST_CORNER[0] + _SPACING * (number % 4)
    north = _FIRST_CORNER[1] + _SPACING * (number // 4)
    return Grid(*shape, (1.0, 0.0, west, 0.0, -1.0, north), CRS.from_string(_UTM_37N).to_wkt())


def _after_grid(recipe: Recipe, before: Grid) -> Grid:
    """Return the second scene's grid: of the recipe's CRS and pixel size, around the whole first scene."""
    crs = CRS.from_string(recipe.after_crs).to_wkt()
    xs, ys = transform_by_gdal(str(before.crs), crs, *before.xy(*before.outline(2)))
    west, north = math.floor(xs.min()) + recipe.after_offset[0], math.ceil(ys.max()) + recipe.after_offset[1]
    pixel = recipe.after_pixel
    height, width = (math.ceil(float(np.ptp(values)) / pixel) for values in (ys, xs))
    return Grid(height, width, (pixel, 0.0, west, 0.0, -pixel, north), crs)


def _acquisition_days(rng: np.random.Generator) -> tuple[date, date]:
    """Return a day from April to September 2019 and one some years later."""
    first, second = (timedelta(days=int(days)) for days in rng.integers(183, size=2))
    return date(2019, 4, 1) + first, date(int(rng.integers(2021, 2025)), 4, 1) + second


def _first_scene(rng: np.random.Generator, place: Place) -> NDArray[np.uint16]:
    conditions = draw_conditions(rng, place.shape)
    image = visible(photograph(place, 0, conditions))
    return digitise(rng, image, conditions.noise)


def _second_scene(
    rng: np.random.Generator, place: Place, recipe: Recipe, before_grid: Grid, after_grid: Grid
) -> NDArray[np.uint16]:
    conditions = draw_conditions(rng, place.shape)
    image = _resample(photograph(place, 1, conditions), before_grid, after_grid, recipe.shift)
    hidden = np.isnan(image).any(axis=0)
    if recipe.clouds:
        hidden |= cloud_holes(rng, hidden.shape, recipe.clouds)
    scene = digitise(rng, np.nan_to_num(image), conditions.noise)
    scene[:, hidden] = NODATA
    return scene


def _resample(
    image: NDArray[np.float32], before_grid: Grid, after_grid: Grid, shift: tuple[float, float]
) -> NDArray[np.float32]:
    """Resample a whole map onto the second scene's grid, `shift` pixels off; NaN beyond the map."""
    margin = MARGIN
    source = Affine(*before_grid.transform) @ Affine.translation(shift[0] - margin, shift[1] - margin)
    resampled = np.full((image.shape[0], *after_grid.shape), np.nan, np.float32)
    reproject(
        image,
        resampled,
        src_transform=source,
        src_crs=before_grid.crs,
        dst_transform=Affine(*after_grid.transform),
        dst_crs=after_grid.crs,
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=Resampling.bilinear,
        num_threads=1,
    )
    return resampled


def _write(path: Path, image: NDArray[np.generic], grid: Grid, day: date) -> None:
    """Write an image (bands, rows, columns) as a tiled, deflated GeoTIFF; four bands are a scene, one a label."""
    is_scene = image.shape[0] == len(BAND_NAMES)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=image.shape[0],
        height=grid.height,
        width=grid.width,
        dtype=image.dtype,
        crs=grid.crs,
        transform=Affine(*grid.transform),
        nodata=NODATA if is_scene else None,
        tiled=True,
        blockxsize=_TILE,
        blockysize=_TILE,
        compress="deflate",
        predictor=2 if is_scene else 1,
    ) as dataset:
        if is_scene:
            dataset.colorinterp = (
                ColorInterp.red,
                ColorInterp.green,
                ColorInterp.blue,
                ColorInterp.undefined,
            )
        _describe(dataset, BAND_NAMES if is_scene else ("change",))
        dataset.update_tags(TIFFTAG_DATETIME=f"{day:%Y:%m:%d} 08:30:00")
        dataset.write(image)


def _describe(dataset: rasterio.io.DatasetWriter, names: Iterable[str]) -> None:
    for band, name in enumerate(names, start=1):
        dataset.set_band_description(band, name)
