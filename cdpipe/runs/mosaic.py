"""Change of all pairs of a run as one raster: a VRT (https://gdal.org/drivers/raster/vrt.html) over their GeoTIFFs.

It holds no pixels, so it costs nothing whatever the number of pairs, and it moves with its folder.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from cdpipe.formats.cog import CHANGE_COLORS
from cdpipe.geo.crs import crs_name
from cdpipe.geo.grid import Grid
from cdpipe.geo.tilings import TILE
from cdpipe.keys import content_key
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.runs.products import Product
from cdpipe.runs.rasters import PairRasters
from cdpipe.runs.styles import style_path, write_style
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Change masks of a run as one raster for each coordinate reference system.

    Attributes:
        workspace: Where all lies.
        run: The run's name.
        pairs: Rasters of the pairs, the topmost last; all have a CRS, and north up.
    """

    workspace: Workspace
    run: str
    pairs: tuple[PairRasters, ...]

    @property
    def key(self) -> str:
        """Content key of the files."""
        return content_key(
            "mosaic", {"run": self.run, "rasters": [[pair.pair.pair_id, pair.key] for pair in self.pairs]}
        )

    @property
    def files(self) -> dict[Location, list[PairRasters]]:
        """The rasters of each file; where all pairs are of one CRS there is one file."""
        of_crs: dict[str, list[PairRasters]] = {}
        for pair in self.pairs:
            of_crs.setdefault(str(pair.pair.grid.crs), []).append(pair)
        folder = self.workspace.run(self.run) / "rasters"
        if len(of_crs) == 1:
            return {folder / "change.vrt": list(self.pairs)}
        names = {crs: re.sub(r"\W+", "_", crs_name(crs)) for crs in of_crs}
        number = dict.fromkeys(names.values(), 0)
        files = {}
        for crs, pairs in of_crs.items():
            number[names[crs]] += 1  # CRSs that have a name alone may share it
            again = f"_{number[names[crs]]}" if number[names[crs]] > 1 else ""
            files[folder / f"change_{names[crs]}{again}.vrt"] = pairs
        return files


def mosaic_product(products: Iterable[tuple[Product, ...]]) -> Product | None:
    """The mosaic of a run's pairs by their products; None where fewer than two have a place with north up."""
    specs = [product.spec for of_pair in products for product in of_pair]
    pairs = tuple(spec for spec in specs if isinstance(spec, PairRasters) and _fits(spec.pair.grid))
    if len(pairs) < 2:
        return None
    mosaic = Mosaic(pairs[0].workspace, pairs[0].run, pairs)
    replaces = (*mosaic.files, *map(style_path, mosaic.files))
    return Product(mosaic.workspace, "mosaics", mosaic.run, mosaic.key, replaces, mosaic, write_mosaic)


def _fits(grid: Grid) -> bool:
    a, b, _, d, e, _ = grid.transform
    return grid.crs is not None and b == d == 0 and a > 0 > e


def write_mosaic(mosaic: Mosaic) -> dict[Location, str]:
    """Write a run's mosaics and their styles; those of CRSs that no pair has any more go.

    Returns:
        Every file with its SHA-256.
    """
    files = mosaic.files
    kept = {*files, *map(style_path, files)}
    folder = mosaic.workspace.run(mosaic.run) / "rasters"
    for old in folder.glob("*.vrt"):
        for file in (old, style_path(old)):
            if file not in kept:
                file.unlink(missing_ok=True)
    for path, pairs in files.items():
        path.write(ET.tostring(_describe(pairs), encoding="utf-8"))
        write_style(path, "change")
    return hash_stored(sorted(kept))


def _describe(pairs: list[PairRasters]) -> ET.Element:
    """The VRT of some rasters of one CRS, at the finest of their pixels."""
    grids = [pair.pair.grid for pair in pairs]
    dx = min(grid.transform[0] for grid in grids)
    dy = max(grid.transform[4] for grid in grids)
    left, top = min(grid.transform[2] for grid in grids), max(grid.transform[5] for grid in grids)
    right = max(grid.transform[2] + grid.width * grid.transform[0] for grid in grids)
    bottom = min(grid.transform[5] + grid.height * grid.transform[4] for grid in grids)
    # a pixel's hundredth is what adding up pixels in floating point may make of nothing
    width, height = (max(1, math.ceil(length - 0.01)) for length in ((right - left) / dx, (bottom - top) / dy))
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    _add(root, "SRS", str(grids[0].crs))  # eastings first, as GDAL understands it where nothing else is said
    _add(root, "GeoTransform", ", ".join(map(repr, (left, dx, 0.0, top, 0.0, dy))))
    band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    _add(band, "Description", "change: 0 no, 1 yes, 255 not observed")
    _add(band, "NoDataValue", str(NOT_OBSERVED))
    _add(band, "ColorInterp", "Palette")
    table = ET.SubElement(band, "ColorTable")
    for value in range(256):
        color = CHANGE_COLORS.get(value, (0, 0, 0, 255))
        ET.SubElement(table, "Entry", {f"c{number}": str(part) for number, part in enumerate(color, 1)})
    for pair in pairs:
        grid = pair.pair.grid
        source = ET.SubElement(band, "ComplexSource", resampling="nearest")
        _add(source, "SourceFilename", pair.paths[0].name, relativeToVRT="1")
        _add(source, "SourceBand", "1")
        size = {"RasterXSize": str(grid.width), "RasterYSize": str(grid.height)}
        ET.SubElement(source, "SourceProperties", size, DataType="Byte", BlockXSize=str(TILE), BlockYSize=str(TILE))
        ET.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=str(grid.width), ySize=str(grid.height))
        col, row = (grid.transform[2] - left) / dx, (grid.transform[5] - top) / dy
        across, down = grid.width * grid.transform[0] / dx, grid.height * grid.transform[4] / dy
        place = {"xOff": _pixels(col), "yOff": _pixels(row), "xSize": _pixels(across), "ySize": _pixels(down)}
        ET.SubElement(source, "DstRect", place)
        _add(source, "NODATA", str(NOT_OBSERVED))
    return root


def _pixels(value: float) -> str:
    """A position in pixels, without what adding up pixels in floating point leaves behind."""
    return repr(round(value, 6))


def _add(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text
