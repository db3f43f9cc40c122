"""The pixels of one date on a pair's grid, and which of them were observed."""

from dataclasses import replace

from cdpipe.config.schema import Config
from cdpipe.formats.gate import RasterInfo, describe_dataset, narrowed, open_raster, read_values, require_imagery
from cdpipe.formats.masks import FileMask
from cdpipe.formats.observed import has_data, opaque, open_mask
from cdpipe.formats.warp import Pixels, WarpSource, read_warped
from cdpipe.geo.grid import Grid, Window
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.quality import read_usable
from cdpipe.workspace.location import Location


def read_on_grid(
    source: Source,
    valid: Location | None,
    grid: Grid,
    window: Window,
    config: Config,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Pixels:
    """Read a window of one date on the pair's grid.

    A pixel is observed if none of the needed bands has nodata there (the sensor's value if it names one for
    that band, else the file's tag; for floating point also NaN and infinity), if the file's own alpha band and mask
    say so, unless the sensor ignores them, and if the valid raster, where there is one, has a usable value. The same
    pixel comes out the same, bit for bit, whatever the window.

    Args:
        source: The date.
        valid: Its valid or cloud raster; by its own georeference, or else of the date's raster's size.
        grid: The pair's grid; resampled onto it by ``config.align.resampling`` if the raster's differs.
        window: Pixels of ``grid``.
        config: Its sections ``input`` and ``align``.
        shift: Rows and columns of ``grid`` that the date, and so its valid raster, lies off; that is put right.

    Returns:
        Values (band, height, width) in the raster's own type, integers of 64 bits as 32, bands in the order of the
        pair's roles, 0 where there is no data; and (height, width), True where observed.

    Raises:
        InputError: If a file is missing, damaged or does not fit.
    """
    # a pixel's content lies so far from where it should be
    target = grid if shift == (0.0, 0.0) else grid.moved(*shift)
    with open_raster(source.path, config.input) as dataset:
        info = require_imagery(describe_dataset(source.path, dataset, config.input), config.input)
        bands, mask = date_bands(source, info)
        nodata = nodata_values(source, [dataset.nodatavals[band - 1] for band in bands])
        alpha = [band for band in mask.alpha if info.dtypes[band - 1] == info.dtypes[bands[0] - 1]]
        with open_mask(dataset, source.path, mask.without(alpha)) as read_mask:

            def read(part: Window) -> Pixels:
                # alpha lies in the same blocks as the bands, or costs as much as one of them
                values = read_values(dataset, source.path, [*bands, *alpha], part)
                values, opacity = values[: len(bands)], values[len(bands) :]
                present = has_data(values, nodata) & opaque(opacity) & read_mask(part)
                return narrowed(values, present, source.path, part), present

            raster = WarpSource(str(source.path), info.grid, len(bands), info.stored_dtype(bands), read)
            values, observed = read_warped(raster, target, window, config.align.resampling)
    if valid is not None:
        own_grid = info.grid if info.grid.placed else grid
        observed &= read_usable(valid, source, own_grid, (target, window), config.input)
    return values, observed


def read_dates(
    pair: Pair, grid: Grid, window: Window, config: Config, shift: tuple[float, float] = (0.0, 0.0)
) -> tuple[Pixels, Pixels]:
    """Read a window of both dates: of each what :func:`read_on_grid` returns.

    Args:
        pair: The pair.
        grid: Its grid.
        window: Pixels of ``grid``.
        config: Its sections ``input`` and ``align``.
        shift: Rows and columns of ``grid`` that the second date lies off.

    Raises:
        InputError: If a file is missing, damaged or does not fit.
    """
    return (
        read_on_grid(pair.before, pair.before_valid, grid, window, config),
        read_on_grid(pair.after, pair.after_valid, grid, window, config, shift),
    )


def date_bands(source: Source, info: RasterInfo) -> tuple[tuple[int, ...], FileMask]:
    """Numbers of a date's bands in its file, and what of the file says which of its pixels were not observed.

    A band that the sensor names is data, also where the file declares it as alpha. Of a composite, each half may have
    an alpha band at the same place, or both share one that comes last.

    Args:
        source: The date.
        info: What its file says of itself.

    Raises:
        InputError: If the file has too few bands, or a composite has an odd number of them.
    """
    alpha, count = info.mask.alpha, info.count
    shared = (count,) if source.half is not None and count % 2 and count in alpha else ()
    count -= len(shared)
    own = count if source.half is None else count // 2
    offset = own * (source.half or 0)
    bands = source.band_numbers(count)
    if source.sensor.mask == "ignore":
        return bands, FileMask()
    places = {(band - 1) % own + 1 for band in alpha if band - offset <= own and band not in shared}
    named = {band + offset for band in source.sensor.bands.values()}
    mask = replace(info.mask, alpha=(*sorted(place + offset for place in places), *shared)).without(named)
    return bands, replace(
        mask,
        single=tuple(band for band in mask.single if band in bands),
        combined=mask.combined and source.sensor.nodata is None,
    )


def nodata_values(source: Source, tags: list[float | None]) -> list[float | None]:
    """The value of each of a date's bands that means no data, given the file's own tags for them."""
    given = source.sensor.nodata
    if given is None:
        return tags
    of_role = given if isinstance(given, dict) else dict.fromkeys(source.sensor.bands, given)
    of_band = {source.sensor.bands[role]: value for role, value in of_role.items()}
    chosen = [of_band.get(band, tag) for band, tag in zip(source.bands, tags, strict=True)]
    return [None if value == "none" else value for value in chosen]
