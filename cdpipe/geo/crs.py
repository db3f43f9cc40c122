"""Coordinate reference systems: one text for each, short names, and places of one in another."""

import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from pyproj import Transformer
from pyproj.database import get_units_map
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.grid import Floats, Grid
from cdpipe.geo.turns import counted_near, meeting_turns, turned

WGS84 = "EPSG:4326"
PROJ_FOLDERS = ("PROJ_DATA", "PROJ_LIB")  # environment variables, the first of which that is set counts
SHARE_PARTS = 64  # each way, of a grid of which it is told how much another covers


def canonical_wkt(crs: CRS) -> str:
    """One text for one CRS: files spell the same EPSG entry in many ways."""
    return _canonical(str(crs.to_wkt()))


@lru_cache(maxsize=256)  # to look a CRS up that EPSG does not know takes a tenth of a second
def _canonical(wkt: str) -> str:
    code = CRS.from_wkt(wkt).to_epsg(confidence_threshold=100)
    return str(CRS.from_epsg(code).to_wkt()) if code else _plane_wkt(wkt) if is_plane(wkt) else wkt


@lru_cache(maxsize=256)
def is_plane(wkt: str) -> bool:
    """Whether a CRS names a plane of its own, such as a site's grid: an engineering CRS, without place on the Earth."""
    try:
        return bool(pyproj.CRS.from_wkt(wkt).is_engineering)
    except pyproj.exceptions.CRSError:
        return False


def _plane_wkt(wkt: str) -> str:
    """A plane's name and unit, for formats keep no more of it: GeoTIFF loses its datum and its axes."""
    crs = pyproj.CRS.from_wkt(wkt)
    name = " ".join(crs.name.split()).replace('"', '""')
    unit = f'UNIT["{crs.axis_info[0].unit_name}",{crs.axis_info[0].unit_conversion_factor:.15g}]'
    return f'LOCAL_CS["{name}",{unit},AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


def _look_up_wgs84() -> str:
    """WKT of WGS 84, if PROJ finds any CRS at all.

    Raises:
        ConfigError: If it finds none, most often since the environment names another installation's folder.
    """
    try:
        with rasterio.Env():
            return canonical_wkt(CRS.from_string(WGS84))
    except CRSError as error:
        reason = str(error).rpartition("PROJ: ")[2].removeprefix("internal_proj_create_from_database: ").rstrip(".")
    name = next((name for name in PROJ_FOLDERS if name in os.environ), None)
    if name is None:
        raise ConfigError(f"PROJ finds no coordinate reference systems ({reason}); install rasterio again")
    value = os.environ[name]
    folder = Path(value)
    if not (folder / "proj.db").is_file():
        reason = "there is no proj.db in it" if folder.is_dir() else "there is no such folder"
    raise ConfigError(
        f"environment variable {name}={value}: expected the data of the PROJ that rasterio has, got another "
        f"installation's ({reason}); run cdpipe without it: unset {name}"
    )


# Looked up at once: with a PROJ that finds nothing, files would have other texts of their CRS, and results other keys.
WGS84_WKT = _look_up_wgs84()


def known_crs(name: str) -> str | None:
    """The one WKT of a CRS by any of its names, None where there is none such."""
    try:
        return _canonical(pyproj.CRS.from_user_input(name).to_wkt())  # rasterio prints what it does not know
    except pyproj.exceptions.CRSError:
        return None


@lru_cache(maxsize=256)
def on_earth(wkt: str | None) -> bool:
    """Whether there is a CRS and it is one of the Earth's surface."""
    crs = None if wkt is None else CRS.from_user_input(wkt)
    return crs is not None and bool(crs.is_projected or crs.is_geographic)


@lru_cache(maxsize=256)
def plane_unit(wkt: str | None) -> float | None:
    """Metres in a unit of an engineering CRS; None where that is no length, and for everything else."""
    if wkt is None or not is_plane(wkt):
        return None
    axis = pyproj.CRS.from_wkt(wkt).axis_info[0]
    lengths = {name.lower() for name in get_units_map(category="linear")} | {"meter", "m"}
    return float(axis.unit_conversion_factor) if axis.unit_name.lower() in lengths else None


def share_coordinates(one: Grid, other: Grid) -> bool:
    """Whether the pixels of both can be laid over each other.

    Both lie on the Earth, in the same named plane, or in planes that neither names; or neither lies anywhere and both
    have the same number of rows and columns.
    """
    if one.placed != other.placed:
        return False
    if not one.placed:
        return one.shape == other.shape
    return one.crs == other.crs or (on_earth(one.crs) and on_earth(other.crs))


def place_name(grid: Grid) -> str:
    """A grid in words: its size, and where its middle lies."""
    x, y = grid.xy(grid.height / 2, grid.width / 2)
    where = "without georeference"
    if grid.placed:
        where = f"{'without a CRS' if grid.crs is None else f'in {crs_name(grid.crs)}'} around {x:.6g}, {y:.6g}"
    return f"{grid.width} x {grid.height} px {where}"


def crs_name(wkt: str | None) -> str:
    """A short name for people: "EPSG:32633", or the CRS's own name, or "none"."""
    if wkt is None:
        return "none"
    code = CRS.from_wkt(wkt).to_epsg(confidence_threshold=100)
    return f"EPSG:{code}" if code else wkt.partition('"')[2].partition('"')[0]


# Coordinates are transformed by two libraries, each with a PROJ of its own, whose results differ in their last bits
# (measured in a dozen CRSs: up to 4e-9 m). Pixels and what is burnt into them go with GDAL, which warps the pixels;
# outlines that are published go with pyproj. To change either would change bytes that are stored.


def transform_by_gdal(of: str, to: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates in another CRS as GDAL has them, for what meets pixels that it warps.

    Args:
        of: WKT of the CRS they are in.
        to: WKT of the other.
        x: (points,) in units of the CRS.
        y: Likewise.

    Returns:
        x and y, each (points,); inf where there are none.

    Raises:
        InputError: If one of them is a plane of its own, to and from which there is no way.
    """
    if not (on_earth(of) and on_earth(to)):
        raise InputError(f"there is no way from {crs_name(of)} to {crs_name(to)}; expected two CRSs of the Earth")
    return _transform(CRS.from_wkt(of), CRS.from_wkt(to), x, y)


def _transform(of: CRS, to: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    try:
        xs, ys = transform(of, to, x, y)
        return np.array(xs, np.float64), np.array(ys, np.float64)
    except CPLE_BaseError:
        if len(x) == 1:
            return np.array([np.inf]), np.array([np.inf])
    # one point without an image fails the whole list: halve it until such points are alone
    half = len(x) // 2
    first, second = _transform(of, to, x[:half], y[:half]), _transform(of, to, x[half:], y[half:])
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def transform_by_proj(of: str, to: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates in another CRS as pyproj has them, for outlines and distances.

    Args:
        of: The CRS they are in, as pyproj understands it.
        to: The other, likewise.
        x: (points,) in units of the CRS; longitudes come before latitudes.
        y: Likewise.

    Returns:
        x and y, each (points,); inf where there are none.
    """
    to_x, to_y = _transformer(of, to).transform(x, y)
    return to_x, to_y


def require_places(crs: str, xy: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """What :func:`transform_by_proj` returned, x and y each (points,), if all of it has a place in the CRS.

    Raises:
        InputError: If some has none.
    """
    if not all(np.isfinite(values).all() for values in xy):
        name = pyproj.CRS.from_user_input(crs).name
        raise InputError(f"expected coordinates within the bounds of {name}, got some beyond; choose another CRS")
    return xy


@lru_cache(maxsize=16)
def _transformer(of: str, to: str) -> Transformer:
    return Transformer.from_crs(pyproj.CRS.from_user_input(of), pyproj.CRS.from_user_input(to), always_xy=True)


def project_positions(of: Grid, to: Grid, rows: Floats, cols: Floats) -> tuple[Floats, Floats]:
    """Positions in one grid of positions in another, as GDAL warps.

    Args:
        of: The grid they are in.
        to: The other; where either has no CRS, both are taken to have the same coordinates.
        rows: In pixels, of any shape.
        cols: Likewise.

    Returns:
        Rows and columns in pixels, of that shape; inf or nan where there is none. Longitudes that come from another
        CRS are counted as those of the grid that they are looked up in.
    """
    x, y = (values.ravel() for values in of.xy(rows, cols))
    if of.crs is not None and to.crs is not None and of.crs != to.crs:
        x, y = transform_by_gdal(of.crs, to.crs, x, y)
        x = counted_near(x, to.xy(to.height / 2, to.width / 2)[0], to.crs)
    with np.errstate(invalid="ignore"):
        to_rows, to_cols = to.row_col(x, y)
    return to_rows.reshape(rows.shape), to_cols.reshape(rows.shape)


def covered_share(source: Grid, grid: Grid) -> float:
    """Share of a grid that another raster's extent covers, 0 to 1, told from 64 x 64 points of the grid."""
    covered = np.zeros((SHARE_PARTS, SHARE_PARTS), np.bool_)
    for turns in meeting_turns(source, grid) if source.crs == grid.crs else [0]:
        rows, cols = project_positions(grid, turned(source, turns), *grid.middles(SHARE_PARTS))
        covered |= (rows >= 0) & (rows < source.height) & (cols >= 0) & (cols < source.width)
    return float(covered.mean())


def pixel_ratio(source: Grid, grid: Grid) -> tuple[float, float]:
    """How many source rows and columns one pixel of a grid spans, at the grid's centre; nan if nowhere."""
    row, col = grid.height / 2, grid.width / 2
    rows, cols = np.array([row, row + 1, row]), np.array([col, col, col + 1])
    here, below, right = np.stack(project_positions(grid, source, rows, cols), -1)
    with np.errstate(invalid="ignore"):
        spans = np.hypot(below - here, right - here)
    return (float(spans[0]), float(spans[1])) if np.isfinite(spans).all() else (math.nan, math.nan)
