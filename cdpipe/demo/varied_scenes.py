"""Varied synthetic pairs as GeoTIFFs with their table, to train networks on."""

import csv
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from cdpipe.demo.varied import VariedPair, draw_pair

COLUMNS = ("pair_id", "before", "after", "label", "split", "before_sensor", "after_sensor")
BANDS = ("red", "green", "blue", "nir")
COLOUR, FULL = "rgb", "rgbn"  # sensors: without near infrared, and with it

_WITHOUT_INFRARED = 0.25  # share of the pairs
_VALIDATION = 10  # one of so many
_CRS, _CORNER, _SPACING, _COLUMNS = "EPSG:32631", (200_000.0, 6_000_000.0), 10_000.0, 50


def make_varied_scenes(folder: Path, *, seed: int = 0, pairs: int = 200, size: int = 256, workers: int = 1) -> Path:
    """Write varied synthetic pairs (:func:`cdpipe.demo.varied.draw_pair`), and the table that lists them.

    Scenes are uint16 GeoTIFFs of red, green, blue and, in three of four pairs, near infrared, without nodata; labels
    uint8, 1 where something came or went, 255 where that cannot be seen. No two pairs lie at one place. One pair of
    ten is of the split val, the others of train.

    Args:
        folder: Where to write; made where missing, files of the same names are replaced.
        seed: Of all randomness; the same seed gives the same pixels with the same library versions.
        pairs: How many.
        size: Rows and columns of a scene.
        workers: Processes that make them.

    Returns:
        The table ``pairs.csv``, with paths relative to ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        rows = list(pool.map(partial(_make_pair, folder, seed, size), range(pairs)))
    table = folder / "pairs.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows])
    return table


def _make_pair(folder: Path, seed: int, size: int, number: int) -> tuple[str, ...]:
    rng = np.random.default_rng([seed, number])
    pair, infrared = draw_pair(rng, size), rng.random() >= _WITHOUT_INFRARED
    name = f"{number:04d}"
    names = [f"{name}-{kind}.tif" for kind in ("before", "after", "label")]
    bands = len(BANDS) if infrared else len(BANDS) - 1
    images: tuple[NDArray[Any], ...] = (pair.before[:bands], pair.after[:bands], pair.label[None])
    for file, image in zip(names, images, strict=True):
        _write(folder / file, image, pair, number)
    sensor = FULL if infrared else COLOUR
    return (name, *names, "val" if number % _VALIDATION == _VALIDATION - 1 else "train", sensor, sensor)


def _write(path: Path, image: NDArray[Any], pair: VariedPair, number: int) -> None:
    row, column = divmod(number, _COLUMNS)
    corner = (_CORNER[0] + column * _SPACING, _CORNER[1] - row * _SPACING)
    place = from_origin(*corner, pair.metres, pair.metres)
    bands, rows, columns = image.shape
    shape = {"count": bands, "height": rows, "width": columns, "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=_CRS, transform=place, compress="deflate", **shape) as dataset:
        dataset.write(image)
        for band, name in enumerate(BANDS if bands > 1 else ("change",), start=1):
            if band <= bands:
                dataset.set_band_description(band, name)
