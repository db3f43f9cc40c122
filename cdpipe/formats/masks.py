"""What of a raster says which pixels were not observed, beside nodata: alpha bands and masks.

GDAL's rule decides (raster data model, "Mask Bands"): 0 is not observed, anything above it is. Unlike GDAL's own mask
bands, an alpha band counts in a file of any number of bands, and together with nodata.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from rasterio.enums import ColorInterp, MaskFlags

# Descriptions that say nothing against a band that is declared as alpha; the number must be the band's own.
_OPACITY = re.compile(r"alpha|opacity|opaque|transparen|mask|valid|coverage", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:b|band|layer|channel|bd)?[\s_.#:-]*0*(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileMask:
    """What a raster has to say which pixels were not observed, beside nodata.

    Attributes:
        alpha: 1-based numbers of the bands that are alpha.
        shared: Whether it has a mask for all its bands: inside a TIFF, of a JPEG, or in a file beside it.
        single: Bands that have a mask each.
        combined: Whether it names a nodata value for each band (``NODATA_VALUES``), that count all together.
        renamed: Bands that are declared as alpha, with descriptions that say another thing: they are data.
    """

    alpha: tuple[int, ...] = ()
    shared: bool = False
    single: tuple[int, ...] = ()
    combined: bool = False
    renamed: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.alpha or self.shared or self.single or self.combined)

    def without(self, data: Collection[int]) -> "FileMask":
        """What is left where some bands are data, and so no alpha."""
        return replace(self, alpha=tuple(band for band in self.alpha if band not in data))

    def __str__(self) -> str:
        """In words, for people; empty where there is none."""
        parts = [f"alpha band {band}" for band in self.alpha]
        parts += ["mask of the file"] if self.shared else []
        parts += ["masks of single bands"] if self.single else []
        return " and ".join([*parts, *(["nodata values of all bands together"] if self.combined else [])])


def describe_mask(dataset: Any) -> FileMask:
    """What an open raster has to say which pixels were not observed, by its header."""
    bands = dataset.indexes
    declared = [band for band, kind in zip(bands, dataset.colorinterp, strict=True) if kind is ColorInterp.alpha]
    alpha = [band for band in declared if _may_be_alpha(band, dataset.descriptions[band - 1])]
    if len(alpha) == len(bands):  # a file of nothing else is a mask, which is read as such
        alpha = []
    flags = {band: set(kinds) for band, kinds in zip(bands, dataset.mask_flag_enums, strict=True)}
    return FileMask(
        tuple(alpha),
        any(kinds == {MaskFlags.per_dataset} for kinds in flags.values()),
        tuple(band for band, kinds in flags.items() if not kinds),
        any(kinds == {MaskFlags.per_dataset, MaskFlags.nodata} for kinds in flags.values()),
        tuple(band for band in declared if not _may_be_alpha(band, dataset.descriptions[band - 1])),
    )


def _may_be_alpha(band: int, description: str | None) -> bool:
    text = (description or "").strip()
    numbered = _NUMBERED.fullmatch(text)
    return not text or bool(_OPACITY.search(text)) or (numbered is not None and int(numbered[1]) == band)
