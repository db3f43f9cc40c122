"""A cloud-optimised GeoTIFF of a change mask: cdpipe's writer against GDAL's COG driver alone.

Cdpipe reads the mask from Zarr, writes what the driver copies, runs the driver, and reads everything back to compare it
with Zarr again. The driver alone is given the uncompressed file ready made, with the same options. Both in one process
with one thread; by CPU seconds. The peak is that of a process of its own that writes the file and nothing else.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from stored_scenes import BLOCK, grid_of
from timing import Row, interleave, median_cpu, median_wall, own_peak, peak_memory, show

from cdpipe.formats import cog  # its private settings too: the driver alone is to get the same
from cdpipe.formats.cog import CHANGE_COLORS, Band, write_cog
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import tiles_in
from cdpipe.store.arrays import open_array, read_window, write_block
from cdpipe.store.groups import CHANGE_ARRAYS, create_group
from cdpipe.workspace.location import here

BAND = Band("uint8", 255, "change", CHANGE_COLORS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192, help="side of the mask in pixels; 20000 is the issue's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)  # group and target: the process that is measured
    options = parser.parse_args()
    grid = grid_of(options.size)
    if options.write:
        write(Path(options.write[0]), Path(options.write[1]), grid)
        print(own_peak())
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _store(root / "group", grid)
        plain = root / "plain.tif"
        with rasterio.Env(**cog._GDAL):
            cog._write_plain(plain, _reader(root / "group"), grid, BAND)
        settings = {**cog._COG, **cog._BY_DTYPE[BAND.dtype], "OVERVIEWS": "AUTO"}

        def driver() -> None:
            with rasterio.Env(**cog._GDAL):
                rasterio.shutil.copy(str(plain), str(root / "driver.tif"), driver="COG", **settings)

        cases = {"driver": driver, "cdpipe": lambda: write(root / "group", root / "cdpipe.tif", grid)}
        timings = interleave(cases, options.rounds)
        peak = peak_memory(
            Path(__file__), "--size", str(options.size), "--write", str(root / "group"), str(root / "child.tif")
        )
    rate = {name: options.size**2 / 1e6 / median_cpu(each) for name, each in timings.items()}
    wall = {name: options.size**2 / 1e6 / median_wall(each) for name, each in timings.items()}
    rows = [
        Row(
            "write_cog",
            f"{rate['cdpipe']:.0f} Mpx/s/core ({wall['cdpipe']:.0f} wall)",
            f"COG driver {rate['driver']:.0f} ({wall['driver']:.0f} wall)",
            rate["cdpipe"] / rate["driver"],
            ">= 0.6",
        ),
        Row("peak memory", f"{peak / 2**20:.0f} MiB", "", None, "<= 512 MiB"),
    ]
    show(f"COG of {options.size}² uint8", rows)


def write(group: Path, target: Path, grid: Grid) -> None:
    """Write the stored mask as a GeoTIFF."""
    write_cog(here(target), _reader(group), grid, BAND)


def _reader(group: Path) -> Callable[[Window], NDArray[np.uint8]]:
    array = open_array(here(group), "change")
    return lambda window: read_window(array, window)


def _store(group: Path, grid: Grid) -> None:
    """A mask as ragged as real ones: blobs with rough edges, a border that was not observed."""
    create_group(here(group), [CHANGE_ARRAYS[1]], grid, BLOCK, {})
    for window in tiles_in(Window(0, 0, *grid.shape), BLOCK):
        rng = np.random.default_rng([window.row, window.col])
        y, x = np.mgrid[window.row : window.stop_row, window.col : window.stop_col].astype(np.float32)
        waves = np.sin(x / 31) * np.cos(y / 43) + np.sin((x + y) / 97)
        mask = (waves + 0.25 * rng.standard_normal(window.shape, np.float32) > 1.3).astype(np.uint8)
        mask[x + y < grid.width / 8] = 255
        write_block(here(group), "change", window, mask)


if __name__ == "__main__":
    main()
