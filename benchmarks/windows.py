"""Random training windows from the store: cdpipe's reader against zarr-python's default reads of the same arrays.

A triplet is a window of both dates (4 bands, uint16) and the label, and what tells which pixels were observed, which
both sides read too. Zarr-python has its arrays open beforehand; cdpipe opens them for every window, as it does.
Augmented samples are what training gets: the window drawn, read, normalised and turned; or, of 96 pixels, drawn around
changed pixels and augmented in every way that change detection has of its own. One thread; CPU seconds.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from stored_scenes import store_scene
from timing import Row, interleave, median_cpu, median_wall, show

from cdpipe.config.augment import OWN, check_transform
from cdpipe.geo.grid import Window
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.normalisation import Recipe
from cdpipe.training.augment import make_augmentation
from cdpipe.training.samples import Sampler, draw_sample, index_cells, index_pixels
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

PATCH, SMALL = 256, 96
ARRAYS = (("pairs", "before"), ("pairs", "after"), ("pairs", "valid"), ("labels", "label"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side of the scene in pixels")
    parser.add_argument("--windows", type=int, default=100, help="windows a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(here(Path(folder)))
        item = store_scene(workspace.root.local(), options.size)
        key = item.pair.key
        folders = [(workspace.group(kind, "p", key), name) for kind, name in ARRAYS]  # type: ignore[arg-type]
        arrays = [zarr.open_array((group / name).local(), mode="r") for group, name in folders]
        rng = np.random.default_rng(0)
        places = rng.integers(0, options.size - PATCH + 1, (options.windows, 2))
        windows = [Window(int(row), int(col), PATCH, PATCH) for row, col in places]
        recipes = {
            "difference": Recipe("difference", ("red", "green", "blue"), "common", together=False),
            "stacked": Recipe("stacked", ("red", "green", "blue"), "common", together=False),
        }
        pools = index_cells(workspace, (item,))
        samplers = {name: Sampler(workspace, (item,), pools, PATCH, 0.5, recipe, 0) for name, recipe in recipes.items()}
        everything = make_augmentation([check_transform(name) for name in OWN])
        pixels = index_pixels(workspace, (item,), "area")
        samplers[f"{SMALL}², everything"] = Sampler(
            workspace, (item,), pixels, SMALL, 0.5, recipes["stacked"], 0, everything
        )

        def by_zarr() -> None:
            for window in windows:
                for array in arrays:
                    array[(..., *window.slices)]

        def by_cdpipe() -> None:
            for window in windows:
                for group, name in folders:
                    read_window(open_array(group, name), window)

        def samples(name: str) -> None:
            for number in range(options.windows):
                draw_sample(samplers[name], 0, number)

        cases: dict[str, Callable[[], None]] = {
            "zarr-python": by_zarr,
            "cdpipe": by_cdpipe,
            **{f"samples, {name}": partial(samples, name) for name in samplers},
        }
        timings = interleave(cases, options.rounds)
    rate = {name: options.windows / median_cpu(each) for name, each in timings.items()}
    wall = {name: options.windows / median_wall(each) for name, each in timings.items()}
    base = f"zarr-python {rate['zarr-python']:.0f}/s"
    rows = [
        Row(
            name,
            f"{rate[name]:.0f}/s/core ({wall[name]:.0f} wall)",
            base if name == "cdpipe" else "",
            rate[name] / rate["zarr-python"] if name == "cdpipe" else None,
            ">= 2.5, >= 400/s" if name == "cdpipe" else "stated",
        )
        for name in ("cdpipe", *(f"samples, {name}" for name in samplers))
    ]
    show(f"random windows of {PATCH}², 4 bands × 2 dates + label + valid", rows)


if __name__ == "__main__":
    main()
