"""Randomly damaged TIFFs: each is stored as rasterio reads it, or refused; none crashes, hangs or eats the memory."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import utm_grid, write_raster
from trials import ACCEPTED, Trial, run_trials

SHAPE = 150, 170
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"tiled": True, "blockxsize": 64, "blockysize": 64},
    {"blockysize": 16},
    {"blockysize": 150, "interleave": "pixel"},
)
COMPRESSIONS: tuple[dict[str, Any], ...] = (
    {},
    {"compress": "deflate"},
    {"compress": "deflate", "predictor": 2},
    {"compress": "lzw"},
)
DTYPES = ("uint8", "uint16", "float32")
HEADER = 1500  # bytes in which small files of rasterio keep their tags


def originals(folder: Path) -> list[tuple[int, bytes]]:
    """Valid files of every kind, each with its number of bands."""
    files = []
    for count, layout, compression, dtype in itertools.product((1, 3), LAYOUTS, COMPRESSIONS, DTYPES):
        values = (np.arange(count * np.prod(SHAPE)).reshape(count, *SHAPE) // 7 % 251).astype(dtype)
        path = write_raster(folder / "original.tif", values, utm_grid(*SHAPE), nodata=0, **layout, **compression)
        files.append((count, path.read_bytes()))
    return files


def mutate(data: bytes, chance: random.Random) -> bytes:
    """The file with one kind of damage."""
    kind = chance.choice(("flips", "tag flips", "tag edits", "cut", "hole"))
    damaged = bytearray(data)
    if kind == "cut":
        return data[: chance.randrange(len(data))]
    if kind == "hole":
        start = chance.randrange(len(data))
        stop = min(len(data), start + chance.randrange(1, 4096))
        damaged[start:stop] = bytes(stop - start)
    elif kind == "tag edits":  # 12 bytes an entry of the directory: tag, type, count, value
        offset = int.from_bytes(data[4:8], "little")
        count = int.from_bytes(data[offset : offset + 2], "little")
        entry = offset + 2 + 12 * chance.randrange(count)
        field, size = chance.choice(((0, 2), (2, 2), (4, 4), (8, 4)))
        number = chance.choice((0, 1, 2, 3, 16, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, chance.randrange(2**32)))
        damaged[entry + field : entry + field + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    else:
        reach = min(len(data), HEADER) if kind == "tag flips" else len(data)
        for _ in range(chance.choice((1, 2, 8, 64))):
            damaged[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def mutants(folder: Path, count: int, seed: int) -> Iterator[Trial]:
    """Trials of damaged files as dates, and as labels if they have one band."""
    chance, files = random.Random(seed), originals(folder)
    for number in range(count):
        bands, original = chance.choice(files)
        path = folder / f"{number}.tif"
        path.write_bytes(mutate(original, chance))
        yield Trial(path, label=bands == 1)


def check(folder: Path, count: int, seed: int) -> None:
    outcomes = run_trials(mutants(folder, count, seed), folder)
    assert len(outcomes) == count
    assert 0 < outcomes.count(ACCEPTED) < count


def test_damaged_files_are_stored_as_rasterio_reads_them_or_refused(tmp_path: Path) -> None:
    check(tmp_path, 50, seed=0)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_two_thousand_damaged_files(tmp_path: Path) -> None:
    check(tmp_path, 2000, seed=1)
