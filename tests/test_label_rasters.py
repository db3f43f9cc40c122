"""Label rasters as people save them: whatever the bands, type and colours, the same pixels changed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from rasters import make_config, utm_grid, write_mask, write_raster

from cdpipe.config.label import Label
from cdpipe.config.schema import Config, Input
from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.grid import Window
from cdpipe.pairs.label_rasters import count_label_raster, label_values
from cdpipe.pairs.labels import read_label
from cdpipe.pairs.layouts.write import guess_meaning
from cdpipe.report.review import raster_values
from cdpipe.workspace.location import here

GRID = utm_grid(40, 60)
WHOLE = Window(0, 0, 40, 60)
MASK = np.zeros((40, 60), np.uint8)
MASK[5:20, 10:31] = 1
BYTES = MASK * np.uint8(255)
RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 0), (255, 255, 255)
COLOURED = {"changed": ["#ff0000"], "unchanged": ["#000000"]}

Write = Callable[[Path], Any]


def drivers(folder: Path, **label: Any) -> Config:
    return make_config(folder, label=label, input={"drivers": ["GTiff", "PNG", "JPEG", "BMP", "GIF"]})


def painted(unchanged: Sequence[float], changed: Sequence[float], dtype: str = "uint8") -> NDArray[Any]:
    """The mask in two colours, (band, row, column)."""
    return np.asarray(np.where(MASK == 1, np.array(changed)[:, None, None], np.array(unchanged)[:, None, None]), dtype)


def picture(bands: ArrayLike, **options: Any) -> Write:
    pixels = np.asarray(bands)
    image = Image.fromarray(pixels if pixels.ndim == 2 else np.moveaxis(pixels, 0, 2))
    return lambda path: image.save(path.with_suffix(".png"), **options)


def indexed(colours: Sequence[Sequence[int]], **options: Any) -> Write:
    def write(path: Path) -> None:
        image = Image.fromarray(MASK, "P")
        image.putpalette([band for colour in colours for band in colour])
        image.save(path.with_suffix(".png"), **options)

    return write


def raster(values: ArrayLike, **profile: Any) -> Write:
    return lambda path: write_raster(path.with_suffix(".tif"), values, GRID, **profile)


SAVED: dict[str, Write] = {
    "grey": picture(BYTES),
    "rgb": picture(np.stack([BYTES] * 3)),
    "rgba": picture(np.stack([BYTES] * 3 + [np.full_like(BYTES, 255)])),
    "grey and alpha": picture(np.stack([BYTES, np.full_like(BYTES, 255)])),
    "one bit": lambda path: Image.fromarray(BYTES).convert("1").save(path.with_suffix(".png")),
    "one bit in a fax": lambda path: (
        Image.fromarray(BYTES).convert("1").save(path.with_suffix(".tif"), compression="group4")
    ),
    "one bit in BMP": lambda path: Image.fromarray(BYTES).convert("1").save(path.with_suffix(".bmp")),
    "indices": indexed([BLACK, WHITE]),
    "indices of any colours": indexed([GREEN, RED]),
    "GIF": lambda path: Image.fromarray(MASK, "P").save(path.with_suffix(".gif")),
    **{kind: raster(MASK.astype(kind)) for kind in ("int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")},
    "float32": raster(MASK.astype(np.float32)),
    "float64": raster(MASK.astype(np.float64)),
    "rgb of 64 bits": raster(np.stack([MASK] * 3).astype(np.int64)),
    "rgb of floats": raster(np.stack([BYTES] * 3).astype(np.float32)),
    "rgb band by band": raster(np.stack([BYTES] * 3), interleave="band", photometric="RGB", compress="deflate"),
    "jpeg of greys": raster(np.stack([np.full_like(BYTES, 255)] * 3) * MASK, photometric="RGB", compress="lzw"),
    "nodata that means something": raster(MASK, nodata=0),
    "64 bits of which one is nodata": raster(MASK.astype(np.int64), nodata=-9999),
    "alpha of 16 bits": raster(np.stack([MASK, np.full_like(MASK, 1)]).astype(np.uint16), alpha="YES"),
}


@pytest.mark.parametrize("saved", SAVED)
def test_a_mask_is_the_same_however_it_was_saved(saved: str, tmp_path: Path) -> None:
    SAVED[saved](tmp_path / "m")
    [path] = tmp_path.glob("m.*")
    config = drivers(tmp_path, changed=[1, 255])
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), MASK)
    assert count_label_raster(here(path), config) == (MASK.size, MASK.sum())
    if path.suffix != ".gif":  # which no layout looks for
        guessed = drivers(tmp_path, **{name: list(values) for name, values in guess_meaning([path]).items()})
        assert np.array_equal(read_label(here(path), GRID, WHOLE, guessed), MASK)


def test_values_of_16_bits_are_values(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "m.tif", np.stack([MASK.astype(np.uint16) * 65535] * 3), GRID)
    assert np.array_equal(read_label(here(path), GRID, WHOLE, make_config(tmp_path, label={"changed": [65535]})), MASK)


@pytest.mark.parametrize(
    "write",
    [
        picture(painted(BLACK, RED)),
        picture(painted((*BLACK, 255), (*RED, 255))),
        picture(painted((*BLACK, 9), (*RED, 1))),  # nearly transparent is not transparent
        indexed([BLACK, RED]),
        lambda path: Image.fromarray(MASK, "P").save(path.with_suffix(".gif"), palette=[0, 0, 0, *RED]),
        raster(painted(BLACK, RED), photometric="RGB"),
        raster(painted(BLACK, RED, "uint16")),
        raster(painted(BLACK, RED, "uint16") * 257),
        raster(painted(BLACK, RED, "int64")),
        raster(painted(BLACK, RED, "float32")),
        raster(painted(BLACK, RED), photometric="RGB", nodata=0),
        raster(painted(BLACK, RED), interleave="band", compress="deflate"),
    ],
)
def test_colours_have_the_meaning_that_the_configuration_gives_them(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "m")
    [path] = tmp_path.glob("m.*")
    if path.suffix != ".gif":
        guessed = {name: list(values) for name, values in guess_meaning([path]).items()}
        indices = path.suffix == ".png" and Image.open(path).mode == "P"
        assert guessed == {"changed": [1 if indices else "#ff0000"], "unchanged": [0]}
    for label in (COLOURED, {"changed": ["#FF0000", 7]}):  # black is 0, which is unchanged if nothing else is said
        config = drivers(tmp_path, **label)
        assert np.array_equal(read_label(here(path), GRID, WHOLE, config), MASK)
        assert count_label_raster(here(path), config) == (MASK.size, MASK.sum())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_colour_goes_where_it_is_listed(tmp_path: Path, data: st.DataObject) -> None:
    colour = st.tuples(*[st.integers(0, 255)] * 3)
    colours = data.draw(st.lists(colour, min_size=2, max_size=12, unique=True))
    classes = data.draw(st.lists(st.sampled_from([0, 1, 255]), min_size=len(colours), max_size=len(colours)))
    wide = data.draw(st.booleans())
    indices = np.random.default_rng(3).integers(0, len(colours), (40, 60))
    pixels = np.moveaxis(np.array(colours)[indices], 2, 0).astype(np.uint16 if wide else np.uint8)
    path = write_raster(tmp_path / "m.tif", pixels * 257 if wide else pixels, GRID)
    names = {0: "unchanged", 1: "changed", 255: "ignore"}
    listed: dict[str, list[str]] = {name: [] for name in names.values()}
    for rgb, value in zip(colours, classes, strict=True):
        listed[names[value]].append("#{:02x}{:02x}{:02x}".format(*rgb))
    got = read_label(here(path), GRID, WHOLE, make_config(tmp_path, label=listed))
    assert np.array_equal(got, np.array(classes, np.uint8)[indices])


def test_a_table_of_colours_counts_where_a_colour_is_named(tmp_path: Path) -> None:
    """Index 0 is white here, as in a fax or a drawing on paper, and means change."""
    path = tmp_path / "m.png"
    indexed([RED, BLACK])(path)
    assert np.array_equal(read_label(here(path), GRID, WHOLE, drivers(tmp_path)), MASK)
    assert np.array_equal(read_label(here(path), GRID, WHOLE, drivers(tmp_path, **COLOURED)), 1 - MASK)
    assert guess_meaning([path]) == {"changed": ("#ff0000",), "unchanged": ("#000000",)}
    fax = write_raster(tmp_path / "f.tif", MASK, GRID, photometric="MINISWHITE", nbits=1)
    assert guess_meaning([fax]) == {"changed": ("#ffffff",), "unchanged": ("#000000",)}


def test_what_is_transparent_has_no_label(tmp_path: Path) -> None:
    hole = np.full_like(MASK, 255)
    hole[:7] = 0
    expected = np.where(hole == 0, 255, MASK)
    rgba = write_raster(tmp_path / "m.tif", np.stack([BYTES] * 3 + [hole]), GRID, alpha="YES", photometric="RGB")
    strange = np.where(hole == 0, 77, BYTES)  # below what is transparent may lie anything
    grey = write_raster(tmp_path / "n.tif", np.stack([strange, hole]), GRID, alpha="YES")
    for path in (rgba, grey):
        config = make_config(tmp_path, label={"changed": [255]})
        assert np.array_equal(read_label(here(path), GRID, WHOLE, config), expected)
        assert count_label_raster(here(path), config) == ((expected != 255).sum(), (expected == 1).sum())
        assert set(label_values(here(path), Input(), Label())) == {0, 255}
    image = Image.fromarray(MASK * 2 + (hole == 0), "P")
    image.putpalette([*BLACK, *GREEN, *RED, *GREEN])
    image.save(tmp_path / "p.png", transparency=bytes([255, 0, 255, 0]))
    assert np.array_equal(
        read_label(here(tmp_path / "p.png"), GRID, WHOLE, drivers(tmp_path, **COLOURED)), np.where(hole == 0, 255, MASK)
    )


def test_nodata_of_three_bands_is_one_colour(tmp_path: Path) -> None:
    values = painted(BLACK, RED)
    values[:, :3] = 200
    path = write_raster(tmp_path / "m.tif", values, GRID, nodata=200)
    expected = MASK.copy()
    expected[:3] = 255
    assert np.array_equal(read_label(here(path), GRID, WHOLE, make_config(tmp_path, label=COLOURED)), expected)


def test_nan_in_any_of_three_bands_is_ignored(tmp_path: Path) -> None:
    values = painted(BLACK, RED, "float32")
    values[1, :3] = np.nan
    path = write_raster(tmp_path / "m.tif", values, GRID)
    expected = MASK.copy()
    expected[:3] = 255
    assert np.array_equal(read_label(here(path), GRID, WHOLE, make_config(tmp_path, label=COLOURED)), expected)


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_values_of_64_bits_are_exact(tmp_path: Path, dtype: str) -> None:
    values = np.where(MASK == 1, 2**53 + 1, 2**53).astype(dtype)
    path = write_raster(tmp_path / "m.tif", values, GRID)
    config = make_config(tmp_path, label={"changed": [2**53 + 1], "unchanged": [2**53, -1]})
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), MASK)
    with pytest.raises(InputError, match=r"value\(s\) 9007199254740993 \(315 px\) are in none"):
        count_label_raster(here(path), make_config(tmp_path, label={"unchanged": [2**53]}))


def test_a_band_may_be_chosen(tmp_path: Path) -> None:
    one_hot = write_raster(tmp_path / "m.tif", np.stack([1 - MASK, MASK]), GRID)
    for band, expected in ((1, 1 - MASK), (2, MASK)):
        config = make_config(tmp_path, label={"band": band})
        assert np.array_equal(read_label(here(one_hot), GRID, WHOLE, config), expected)
    with pytest.raises(InputError, match=r"has 2 band\(s\), so no band 3 \(label.band\)"):
        read_label(here(one_hot), GRID, WHOLE, make_config(tmp_path, label={"band": 3}))


@pytest.mark.parametrize(
    ("values", "profile", "message"),
    [
        (
            np.stack([MASK] * 2),
            {},
            r"expected one band of values in a label, or red, green and blue, got 2 bands; label",
        ),
        (np.stack([MASK] * 4), {"photometric": "MINISBLACK", "alpha": "NO"}, r"got 4 bands; label.band: 1 takes"),
        (np.stack([MASK] * 5), {"photometric": "MINISBLACK", "alpha": "YES"}, r"got 4 bands beside 1 of alpha; label"),
        (painted((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), "float32"), {}, r"three bands of fractions; .* label.band: 1"),
        (painted((0, 0, 0), (-1, 0, 0), "int16"), {}, r"differ \(-1, 0, 0\) and are no colours .* label.band: 1"),
        (painted((0, 0, 0), (70000, 0, 0), "uint32"), {}, r"differ \(70000, 0, 0\) and are no colours"),
        (
            painted((0, 0, 0), RED),
            {},
            r'colour\(s\) #ff0000 \(315 px\) are in none of label: .* as label: {changed: \["#ff0000"\]}',
        ),
        (
            painted((9, 9, 9), GREEN),
            {},
            r"value\(s\) 9 \(2,085 px\) and colour\(s\) #008000 \(315",
        ),
        (painted((0, 0, 0), (1000, 0, 2), "uint16"), {}, r"colour\(s\) 1000/0/2 \(315 px\)"),
    ],
)
def test_what_has_no_meaning_is_named(
    tmp_path: Path, values: NDArray[Any], profile: dict[str, Any], message: str
) -> None:
    path, config = write_raster(tmp_path / "m.tif", values, GRID, **profile), make_config(tmp_path)
    with pytest.raises(InputError, match=message):
        count_label_raster(here(path), config)
    with pytest.raises(InputError, match=r"m\.tif: "):
        read_label(here(path), GRID, WHOLE, config)


def test_images_and_blurred_masks_are_told_from_masks(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (3, 400, 400), np.uint8)
    grid = utm_grid(400, 400)
    path = write_raster(tmp_path / "m.tif", noise, grid)
    with pytest.raises(InputError, match=r"so many come from JPEG or resampling: save the label as PNG") as raised:
        count_label_raster(here(path), make_config(tmp_path, label=COLOURED))
    assert len(str(raised.value)) < 600 + len(str(path))
    assert guess_meaning([path]) == {"changed": (1,), "unchanged": (0,)}
    Image.fromarray(np.dstack([BYTES] * 3)).save(tmp_path / "j.jpg", quality=60)
    with rasterio.open(tmp_path / "j.jpg") as dataset:
        grey = dataset.read(1)
    assert len(np.unique(grey)) > 2
    config = drivers(tmp_path, **{name: list(values) for name, values in guess_meaning([tmp_path / "j.jpg"]).items()})
    assert np.array_equal(read_label(here(tmp_path / "j.jpg"), GRID, WHOLE, config), grey > 127)


@pytest.mark.parametrize(
    ("colours", "meaning"),
    [
        ([BLACK, RED, GREEN], {"changed": ("#008000", "#ff0000"), "unchanged": (0,)}),
        ([BLACK, RED, WHITE], {"changed": (255, "#ff0000"), "unchanged": (0,)}),
        ([WHITE, RED, (128, 128, 128)], {"changed": (128, "#ff0000"), "unchanged": (255,)}),
        ([RED, GREEN], {"changed": (1,), "unchanged": (0,)}),  # which of them is the background?
    ],
)
def test_a_background_is_guessed(tmp_path: Path, colours: list[tuple[int, int, int]], meaning: Any) -> None:
    pixels = np.moveaxis(np.array(colours, np.uint8)[np.arange(2400).reshape(40, 60) % len(colours)], 2, 0)
    assert guess_meaning([write_raster(tmp_path / "m.tif", pixels, GRID)]) == meaning


@pytest.mark.parametrize("value", ["red", "#f00", "#ff00000", None, 0.5, float("inf"), [255, 0, 0]])
def test_a_colour_is_written_in_one_way(tmp_path: Path, value: Any) -> None:
    with pytest.raises(
        ConfigError, match=r'label\.changed\.0: got .* a whole number, or a colour in quotes, as "#ff0000"'
    ):
        make_config(tmp_path, label={"changed": [value]})


@pytest.mark.parametrize("label", [{"changed": ["#000000"]}, {"changed": ["#0a0a0a"], "ignore": [10]}])
def test_a_grey_is_a_number_too(tmp_path: Path, label: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a value may stand in one of changed, unchanged, ignore only"):
        make_config(tmp_path, label=label)


def test_reviews_need_numbers() -> None:
    assert raster_values(Label(changed=("#ff0000", 9), unchanged=("#000000",))) == {0: 0, 1: 9, 255: 255}
    with pytest.raises(ConfigError, match="a number for changed"):
        raster_values(Label(changed=("#ff0000",)))


def test_transparency_may_be_left_aside(tmp_path: Path) -> None:
    """As drawn over a scene: what changed in red, all else transparent."""
    drawn = painted((0, 0, 0, 0), (*RED, 255))
    path = write_raster(tmp_path / "m.tif", drawn, GRID, alpha="YES", photometric="RGB")
    config = make_config(tmp_path, label=COLOURED)
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), np.where(MASK == 1, 1, 255))
    config = make_config(tmp_path, label={**COLOURED, "mask": "ignore"})
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), MASK)
    image = Image.fromarray(MASK, "P")
    image.putpalette([*BLACK, *RED])
    image.save(tmp_path / "p.png", transparency=0)
    config = drivers(tmp_path, **COLOURED, mask="ignore")
    assert np.array_equal(read_label(here(tmp_path / "p.png"), GRID, WHOLE, config), MASK)


def test_a_label_s_own_mask_counts(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "m.tif", MASK, GRID)
    observed = np.full(MASK.shape, True)
    observed[:8, 20:] = False
    write_mask(path, observed)
    expected = np.where(observed, MASK, 255)
    config = make_config(tmp_path)
    assert np.array_equal(read_label(here(path), GRID, WHOLE, config), expected)
    assert count_label_raster(here(path), config) == (observed.sum(), MASK[observed].sum())
    ignoring = make_config(tmp_path, label={"mask": "ignore"})
    assert np.array_equal(read_label(here(path), GRID, WHOLE, ignoring), MASK)
