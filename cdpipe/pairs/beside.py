"""What lies beside a raster, speaks of its pixels and is not read: refused or told, never dropped in silence."""

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo, parts_of
from cdpipe.formats.worldfile import georeference_files, nodata_pam, read_world_files
from cdpipe.geo.grid import Grid
from cdpipe.pairs.catalog import Source
from cdpipe.workspace.location import present

FAR_PX = 1.0  # pixels that a world file may lie off: many have corners of pixels for their middles


def require_no_mask_beside(info: RasterInfo, settings: Input, leave: str) -> None:
    """A mask in a file beside a raster, as GDAL writes them without ``GDAL_TIFF_INTERNAL_MASK``, must count or be left.

    Args:
        info: The raster.
        settings: Whether sidecars count.
        leave: What else to do, for the message.

    Raises:
        InputError: If there is one, and sidecars do not count.
    """
    if settings.sidecars:
        return
    # a VRT's mask may be that of its sources
    rasters = [info.path, *(parts_of(info.path, settings) if info.driver == "VRT" else [])]
    if info.mask.shared and info.driver != "VRT":
        return
    for file in present([path.with_name(f"{path.name}{suffix}") for path in rasters for suffix in (".msk", ".MSK")]):
        raise InputError(
            f"{info.path}: its mask lies beside it in {file.name}, which is not read; "
            f"set input.sidecars: true, or {leave}"
        )


def doubt_beside(source: Source, info: RasterInfo, settings: Input) -> list[str]:
    """What beside a date's raster says another thing than what is used of it."""
    doubts = []
    pam = nodata_pam(info.path) if not settings.sidecars and info.nodata is None else None
    if pam is not None and source.sensor.nodata is None:
        doubts.append(
            f"{info.path}: {pam.name} beside it has a nodata value, and is not read; set input.sidecars: true, or "
            f"sensors.{source.sensor_name}.nodata"
        )
    other = _other_place(info)
    if other is not None:
        doubts.append(
            f"{info.path}: its own georeference counts, and {other} beside it says another place; take the world file "
            "away, or the file's own georeference (gdal_edit.py -unsetgt) if that is wrong"
        )
    return doubts


def _other_place(info: RasterInfo) -> str | None:
    """A world file that says another place than the raster's own georeference, which counts."""
    grid, files = info.grid, georeference_files(info.path) if info.grid.placed else []
    try:
        transform = read_world_files(files)
    except InputError:  # it is not needed, whatever it is
        return None
    if transform is None:
        return None
    said = Grid(grid.height, grid.width, transform, grid.crs)
    rows, cols = grid.row_col(*said.xy(*said.outline(2)))
    own_rows, own_cols = said.outline(2)
    off = max(abs(rows - own_rows).max(), abs(cols - own_cols).max())
    return files[0].name if off > FAR_PX else None
