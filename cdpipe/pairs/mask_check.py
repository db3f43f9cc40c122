"""What the check has to say of a date's own alpha band or mask, from samples of it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config
from cdpipe.formats.gate import describe_dataset, open_raster, read_values
from cdpipe.formats.masks import FileMask
from cdpipe.formats.observed import has_data, opaque, open_mask
from cdpipe.geo.grid import Window
from cdpipe.pairs.catalog import Source
from cdpipe.pairs.imagery import date_bands, nodata_values

WHOLE_PIXELS = 2**22  # a raster of so many is read in full
PLACES, SIDE = 5, 256  # of a larger one, windows each way from edge to edge, and their side in pixels
NOTICEABLE = 0.01  # share of what the mask leaves that nodata takes away as well
GRADED = 0.5  # share of alpha values between the extremes above which a band is imagery rather than transparency


@dataclass(frozen=True, slots=True)
class MaskFound:
    """What samples show of a date's own mask.

    Attributes:
        mask: What the file has of it, as far as it counts.
        share: Share of the pixels that it marks as not observed.
        doubts: What may be wrong, without the file's name.
    """

    mask: FileMask
    share: float
    doubts: tuple[str, ...] = ()


def sample_mask(source: Source, config: Config) -> MaskFound | None:
    """Look at a date's own mask: all of it, or where it is large a few hundred thousand pixels.

    Returns:
        What it shows; None where the file has no mask that counts.

    Raises:
        InputError: If the file is missing, damaged or does not fit.
    """
    with open_raster(source.path, config.input) as dataset:
        info = describe_dataset(source.path, dataset, config.input)
        bands, mask = date_bands(source, info)
        if not mask:
            return None
        nodata = nodata_values(source, [dataset.nodatavals[band - 1] for band in bands])
        # by (the mask says observed, nodata says observed)
        counts, graded = np.zeros((2, 2), np.int64), 0
        with open_mask(dataset, source.path, replace(mask, alpha=())) as read:
            for window in _sample_windows(info.grid.shape):
                values = read_values(dataset, source.path, [*bands, *mask.alpha], window)
                alpha = values[len(bands) :]
                seen = opaque(alpha) & read(window)
                present = has_data(values[: len(bands)], nodata)
                counts += np.bincount(2 * seen.ravel() + present.ravel(), minlength=4).reshape(2, 2)
                graded += int(((alpha > 0) & (alpha < alpha.max(initial=1))).any(0).sum())
    return MaskFound(mask, float(counts[0].sum() / counts.sum()), tuple(_doubts(source, mask, counts, graded)))


def _sample_windows(shape: tuple[int, int]) -> list[Window]:
    if shape[0] * shape[1] <= WHOLE_PIXELS:
        return [Window(0, 0, *shape)]
    height, width = (min(SIDE, length) for length in shape)
    rows, cols = (
        sorted({round(share) for share in np.linspace(0, length - side, PLACES)})
        for length, side in zip(shape, (height, width), strict=True)
    )
    return [Window(row, col, height, width) for row in rows for col in cols]


def _doubts(source: Source, mask: FileMask, counts: NDArray[np.int64], graded: int) -> list[str]:
    """What is odd about a mask."""
    setting = f"sensors.{source.sensor_name}"
    [[hidden_missing, hidden], [missing, seen]] = counts.tolist()
    total = hidden_missing + hidden + missing + seen
    if not missing + seen:
        text = f"its {mask} marks every pixel that was looked at as transparent, so nothing is observed"
        return [f"{text}; if that is no transparency, set {setting}.mask: ignore"]
    doubts = []
    if not seen:
        doubts.append(
            f"nothing is observed: where its {mask} does not mark pixels as transparent, all have the nodata value; if "
            f"the mask is the wrong way round, set {setting}.mask: ignore"
        )
    elif missing > NOTICEABLE * (missing + seen):
        share = missing / (missing + seen)
        doubts.append(
            f"{share:.1%} of the pixels that its {mask} leaves have the nodata value and count as not observed, too; "
            f"set {setting}.nodata: none if the mask alone is to decide"
        )
    if mask.alpha and graded > GRADED * total:
        doubts.append(
            f"its {mask} has as many values as imagery, and its zeros count as not observed; if it is a band such as "
            f"near infrared, name it in {setting}.bands, or set {setting}.mask: ignore"
        )
    return doubts
