"""A PNG or JPEG that was cut off or changed is refused, never filled up."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import open_raster, read_values
from cdpipe.geo.grid import Window
from cdpipe.workspace.location import here

SIDE = 64
SETTINGS = Input(drivers=("PNG", "JPEG", "BMP"), pixel_coordinates=True)
DRIVERS = ("PNG", "JPEG", "BMP")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
    for driver in DRIVERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            profile = {"driver": driver, "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
            with rasterio.open(folder / driver, "w", **profile) as dataset:
                dataset.write(pixels)
    return {driver: folder / driver for driver in DRIVERS}


def read(path: Path) -> None:
    with open_raster(here(path), SETTINGS) as dataset:
        read_values(dataset, here(path), (1, 2, 3), Window(0, 0, SIDE, SIDE))


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_whole_image_is_read(images: dict[str, Path], driver: str) -> None:
    read(images[driver])


@pytest.mark.parametrize("driver", DRIVERS)
@given(share=st.floats(0, 0.999))
def test_an_image_that_was_cut_off_is_refused(images: dict[str, Path], driver: str, share: float) -> None:
    data = images[driver].read_bytes()
    path = images[driver].with_name(f"{driver}-cut")
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=str(path)):
        read(path)


@given(place=st.integers(8, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_png_goes_unseen(images: dict[str, Path], place: int, bit: int) -> None:
    data = bytearray(images["PNG"].read_bytes())
    data[place % (len(data) - 8) + 8] ^= 1 << bit
    path = images["PNG"].with_name("flipped")
    path.write_bytes(data)
    with pytest.raises(InputError, match=str(path)):
        read(path)
