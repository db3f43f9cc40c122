"""A pair's picture shows each pixel in its panel and colour, and is the same file every time."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window as RasterioWindow

from cdpipe.formats import palette
from cdpipe.geo.grid import Grid, Window
from cdpipe.report import drawing, pictures, scene
from cdpipe.report.pictures import INK, Layout, PairRasters, Sheet, arrange_panels, draw_pair
from cdpipe.report.scene import decimate
from cdpipe.workspace.location import here


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100), st.sampled_from([(), (3,)]), st.data())
def test_decimating_equals_slicing_the_whole(
    height: int, width: int, max_side: int, bands: tuple[int, ...], data: st.DataObject
) -> None:
    """Whatever the size of the windows that are read."""
    whole = np.arange(height * width * max(1, *bands, 1)).reshape(*bands, height, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "STEP", data.draw(st.integers(1, 128), label="step"))
        kept = decimate(lambda window: whole[(..., *window.slices)], (height, width), max_side)
    every = -(-max(height, width) // max_side)
    np.testing.assert_array_equal(kept, whole[..., ::every, ::every])
    assert kept.dtype == whole.dtype
    assert max(kept.shape[-2:]) <= max_side


def test_decimating_reads_no_more_than_a_window_at_a_time() -> None:
    """A scene of 10 gigapixels is never in memory; each pixel is read once."""
    read: list[Window] = []

    def read_row_numbers(window: Window) -> NDArray[Any]:
        read.append(window)
        return np.broadcast_to(np.arange(window.row, window.stop_row)[:, None], window.shape)

    kept = decimate(read_row_numbers, (100_000, 100_000))
    assert kept.shape == (1021, 1021)
    np.testing.assert_array_equal(kept[:, 0], np.arange(0, 100_000, 98))
    assert max(window.height * window.width for window in read) == (10 * 98) ** 2
    assert sum(window.height * window.width for window in read) == 100_000**2


def make_layers(shape: tuple[int, int] = (60, 80), **changes: Any) -> PairRasters:
    """A pair with every outcome in it: label by columns, change by rows."""
    rng = np.random.default_rng(0)
    change, label = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    change[shape[0] // 3 :], change[shape[0] * 2 // 3 :] = 1, 255
    label[:, shape[1] // 3 :], label[:, shape[1] * 2 // 3 :] = 1, 255
    probability = np.where(change == 255, np.nan, change * 0.8).astype(np.float32)
    valid = np.where(change == 255, 1, 3).astype(np.uint8)
    images = rng.integers(0, 4000, (2, 3, *shape), np.uint16)
    layers = PairRasters("city-1", images[0], images[1], valid, probability, change, label)
    return replace(layers, **changes)


def decode(path: Path) -> NDArray[np.uint8]:
    """Height, width, red-green-blue of a PNG."""
    pixels = matplotlib.image.imread(io.BytesIO(path.read_bytes()), format="png")
    colors: NDArray[np.uint8] = np.rint(pixels[..., :3] * 255).astype(np.uint8)
    return colors


def draw(
    path: Path, layers: PairRasters, monkeypatch: pytest.MonkeyPatch
) -> tuple[NDArray[np.uint8], Layout, list[str]]:
    """Draw, and tell where things went and what was written."""
    layouts: list[Layout] = []
    texts: list[str] = []
    write = Sheet.write

    def remember_layout(*args: Any) -> Layout:
        layouts.append(arrange_panels(*args))
        return layouts[-1]

    def remember_text(sheet: Sheet, place: tuple[float, float], text: str, *args: Any, **options: Any) -> None:
        texts.append(text)
        write(sheet, place, text, *args, **options)

    monkeypatch.setattr(pictures, "arrange_panels", remember_layout)
    monkeypatch.setattr(Sheet, "write", remember_text)
    draw_pair(here(path), layers)
    return decode(path), layouts[-1], texts


def panel_pixel(picture: NDArray[np.uint8], layout: Layout, panel: int, place: tuple[float, float]) -> list[int]:
    """Colour at a place in a panel, given in shares of its height and width."""
    top, left = layout.panels[panel]
    pixel: list[int] = picture[top + int(place[0] * layout.image[0]), left + int(place[1] * layout.image[1])].tolist()
    return pixel


def test_outcomes_have_their_colours_at_their_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change by rows (0, 1, not observed), label by columns (0, 1, ignore)."""
    picture, layout, texts = draw(tmp_path / "pair.png", make_layers(), monkeypatch)
    assert picture.shape == (*layout.size, 3)
    assert len(layout.panels) == 5
    rows, cols = (1 / 6, 1 / 2, 5 / 6), (1 / 6, 1 / 2, 5 / 6)
    detected = [[tuple(panel_pixel(picture, layout, 4, (row, col))) for col in cols] for row in rows]
    assert detected[0][1] == palette.MISS
    assert detected[1] == [palette.FALSE_ALARM, palette.HIT, palette.UNLABELLED]
    no_data = {palette.NO_DATA, palette.NO_DATA_STRIPE}
    assert set(detected[2]) <= no_data
    assert tuple(panel_pixel(picture, layout, 2, (0.5, 0.5))) == palette.LABELLED
    assert tuple(panel_pixel(picture, layout, 2, (0.5, 0.9))) in no_data
    for value, row in ((0, 1 / 6), (0.8, 1 / 2)):
        expected = drawing.probability_colors(np.array([[value]]))[0, 0].tolist()
        assert panel_pixel(picture, layout, 3, (row, 0.5)) == expected
    assert tuple(panel_pixel(picture, layout, 3, (0.9, 0.5))) in no_data
    assert tuple(panel_pixel(picture, layout, 1, (0.9, 0.5))) in no_data
    assert {"Hit", "Missed", "False alarm", "Change without label", "No data"} <= set(texts)


def test_every_pixel_of_the_imagery_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing between the arrays and the file blurs or shifts them."""
    layers = make_layers()
    picture, layout, _ = draw(tmp_path / "pair.png", layers, monkeypatch)
    stretched = drawing.stretch_bands(layers.before, layers.valid & 1 > 0)
    (top, left), (height, width) = layout.panels[0], layout.image
    shown = picture[top : top + height, left : left + width]
    np.testing.assert_array_equal(shown, drawing.resize_nearest(stretched, layout.image))


def test_without_label_there_are_four_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change is shown, and nothing is called right or wrong."""
    picture, layout, texts = draw(tmp_path / "pair.png", make_layers(label=None), monkeypatch)
    assert len(layout.panels) == 4
    assert tuple(panel_pixel(picture, layout, 3, (0.5, 0.5))) == palette.CHANGED
    assert not {"Label", "Hit", "Missed", "False alarm"} & set(texts)


def test_legend_names_only_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full label has no change without one."""
    layers = make_layers()
    assert layers.label is not None
    full = replace(layers, label=np.minimum(layers.label, 1))
    assert "Change without label" not in draw(tmp_path / "pair.png", full, monkeypatch)[2]


def test_texts_say_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, dates, figures and threshold; a dollar sign is no formula, and an undefined IoU is left out."""
    known = make_layers(dates=("2016 $1", "2018 $2"), iou=0.6354, f1=0.7771, threshold=0.42)
    texts = draw(tmp_path / "pair.png", known, monkeypatch)[2]
    assert {"city-1", "IoU 0.635   F1 0.777", "Before · 2016 $1", "After · 2018 $2", "0.42"} <= set(texts)
    texts = draw(tmp_path / "pair.png", make_layers(iou=float("nan")), monkeypatch)[2]
    assert {"Before", "After", ""} <= set(texts)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (1024, 40), (3, 1024)])
def test_any_shape_can_be_drawn(tmp_path: Path, shape: tuple[int, int]) -> None:
    """Also with an id of the greatest length."""
    path = tmp_path / "pair.png"
    draw_pair(here(path), make_layers(shape, pair_id="x" * 128, iou=0.5, threshold=0.01))
    picture = decode(path)
    assert (picture[:, [0, -1]] == 255).all()  # nothing runs over the edge


def test_the_same_layers_give_the_same_bytes(tmp_path: Path) -> None:
    """The user's own style and an older file do not enter either; nothing else is left in the folder."""
    path = tmp_path / "new" / "pair.png"
    draw_pair(here(path), make_layers())
    first = path.read_bytes()
    with matplotlib.rc_context({"savefig.bbox": "tight", "font.size": 30, "figure.dpi": 50}):
        draw_pair(here(path), make_layers())
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_one_band_is_shown_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panchromatic imagery has no colours."""
    layers = make_layers()
    grey = replace(layers, before=layers.before[:1], after=layers.after[:1])
    picture, layout, _ = draw(tmp_path / "pair.png", grey, monkeypatch)
    assert len(set(panel_pixel(picture, layout, 0, (0.3, 0.3)))) == 1


def test_layers_of_two_places_are_refused() -> None:
    """They would be drawn over each other."""
    with pytest.raises(ValueError, match="city-1: expected layers of one height and width"):
        make_layers(label=np.zeros((60, 81), np.uint8))


def grid_at(epsg: int, x: float, y: float, pixel: float = 10.0) -> Grid:
    """A scene of 600 x 800 pixels with its upper left corner at a place."""
    return Grid(600, 800, (pixel, 0.0, x, 0.0, -pixel, y), CRS.from_epsg(epsg).to_wkt())


@pytest.mark.parametrize(
    ("grid", "metres"),
    [
        (grid_at(32636, 500_000, 4_000_000), 10 / 0.9996),  # the central meridian's scale
        (grid_at(3857, 0, 8_399_738), 5.0),  # 60 degrees north: Mercator shows double length
        (grid_at(2263, 980_000, 200_000), 10 * 0.3048006),  # New York, in feet
        (grid_at(4326, 30, 60.03, 1e-4), 5.583),  # half as wide as high
    ],
)
def test_scale_bar_is_as_long_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: Grid, metres: float
) -> None:
    """On the ground, not in the units of the CRS."""
    painted: list[tuple[int, ...]] = []
    paint = Sheet.paint

    def remember_bar(sheet: Sheet, corner: tuple[int, int], image: NDArray[np.uint8]) -> None:
        if (image == np.array(INK)).all():
            painted.append(image.shape)
        paint(sheet, corner, image)

    monkeypatch.setattr(Sheet, "paint", remember_bar)
    _, layout, texts = draw(tmp_path / "pair.png", make_layers(grid=grid), monkeypatch)
    number, unit = texts[-1].split()
    length = float(number) * {"m": 1, "km": 1000}[unit]
    on_ground = painted[0][1] * metres * grid.width / layout.image[1]
    assert on_ground == pytest.approx(length, rel=0.015)
    assert number[0] in "125"


@pytest.mark.parametrize(("latitude", "ratio"), [(0.03, 600 / 800), (60.03, 2 * 600 / 800)])
def test_pixels_of_degrees_are_as_high_as_the_ground(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latitude: float, ratio: float
) -> None:
    grid = grid_at(4326, 30, latitude, 1e-4)
    _, layout, _ = draw(tmp_path / "pair.png", make_layers(grid=grid), monkeypatch)
    assert layout.image[0] / layout.image[1] == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize("grid", [None, Grid(600, 800)])
def test_no_scale_bar_where_none_would_be_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: Grid | None
) -> None:
    texts = draw(tmp_path / "pair.png", make_layers(grid=grid), monkeypatch)[2]
    assert not any(text.endswith((" m", " km")) for text in texts)


def test_real_pair(tmp_path: Path, shared: Path) -> None:
    """A city of the Onera set: decimated, drawn, and of the size that was laid out."""
    city = shared / "data" / "oscd" / "beirut"
    if not city.exists():
        pytest.skip(f"{city} is not here")

    def read(name: str, bands: Any) -> NDArray[Any]:
        with rasterio.open(city / f"{name}.tif") as dataset:

            def read_window(window: Window) -> NDArray[Any]:
                at = RasterioWindow(window.col, window.row, window.width, window.height)
                pixels: NDArray[Any] = dataset.read(bands, window=at)
                return pixels

            return decimate(read_window, dataset.shape, 600)

    label = read("mask", 1)
    change = np.roll(label, 3, axis=1)
    layers = PairRasters(
        "beirut",
        read("before", [3, 2, 1]),
        read("after", [3, 2, 1]),
        np.full(label.shape, 3, np.uint8),
        change.astype(np.float32),
        change,
        label,
    )
    draw_pair(here(tmp_path / "pair.png"), layers)
    colors = decode(tmp_path / "pair.png").reshape(-1, 3)
    hits = (colors == palette.HIT).all(axis=1).sum()
    assert hits > 1000
