"""Presets for quality rasters: what the values of well-known cloud masks and quality bands mean."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

WHOLE = -1  # a mask that compares the whole value


@dataclass(frozen=True, slots=True)
class Flag:
    """A class, a bit or a field of bits: it holds where ``value & mask == equals``.

    Attributes:
        equals: What the masked value must be.
        mask: Which bits count; ``WHOLE`` for a class.
        band: 1-based number of the band it is in.
    """

    equals: int
    mask: int = WHOLE
    band: int = 1

    @property
    def whole(self) -> bool:
        """Whether it is a class: one value, and nothing else."""
        return self.mask == WHOLE


@dataclass(frozen=True, slots=True)
class QualityPreset:
    """What the values of one kind of quality raster mean.

    Attributes:
        what: The product.
        flags: What its names mean; of two names for the same the first is the one to show.
        unusable: Names that are not used unless the user chooses others.
        usable: Names that alone are used; of the two one is empty.
        fill: Names that are never used, whatever the user chooses: nothing was observed.
    """

    what: str
    flags: Mapping[str, Flag]
    unusable: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()
    fill: tuple[str, ...] = ()

    @property
    def has_classes(self) -> bool:
        """Whether every value is one class; else bits are set side by side, or in bands."""
        return all(flag.whole and flag.band == 1 for flag in self.flags.values())

    @property
    def has_bands(self) -> bool:
        """Whether its flags are in bands of their own."""
        return any(flag.band > 1 for flag in self.flags.values())

    def name_of(self, value: float) -> str:
        """The class of a whole value, or the bits that are set in it; empty where it has none."""
        classes = [name for name, flag in self.flags.items() if flag.whole and flag.equals == value]
        if classes or self.has_classes or self.has_bands:
            return classes[0] if classes else ""
        # fields of bits have levels, of which bits of their own say enough
        bits = {flag.mask: name for name, flag in reversed(list(self.flags.items())) if flag.mask.bit_count() == 1}
        return " + ".join(bits[mask] for mask in sorted(bits) if int(value) & mask)


def plain_name(name: str) -> str:
    """A name as presets spell theirs: ``Cloud Shadow`` is ``cloud_shadow``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _classes(**values: int) -> dict[str, Flag]:
    return {name: Flag(value) for name, value in values.items()}


def _bits(**numbers: int) -> dict[str, Flag]:
    return {name: Flag(1 << number, 1 << number) for name, number in numbers.items()}


def _levels(name: str, low_bit: int, **levels: int) -> dict[str, Flag]:
    """Names of a field of two bits."""
    return {f"{name}_{level}": Flag(value << low_bit, 3 << low_bit) for level, value in levels.items()}


# ESA, Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD), Scene Classification of Level-2A;
# the names are those of STAC's classification of Sentinel-2, sen2cor's beside them.
_SCL = QualityPreset(
    "Sentinel-2 L2A scene classification (SCL)",
    _classes(
        no_data=0,
        saturated_or_defective=1,
        cast_shadow=2,
        dark_area=2,
        dark_area_pixels=2,
        cloud_shadow=3,
        cloud_shadows=3,
        vegetation=4,
        not_vegetated=5,
        bare_soil=5,
        water=6,
        unclassified=7,
        cloud_medium_probability=8,
        cloud_high_probability=9,
        thin_cirrus=10,
        snow_or_ice=11,
        snow=11,
    ),
    unusable=(
        *("saturated_or_defective", "cloud_shadow", "cloud_medium_probability", "cloud_high_probability"),
        *("thin_cirrus", "snow_or_ice"),
    ),
    fill=("no_data",),
)

# USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619), table "QA_PIXEL"; Landsat 4-7 (LSDS-1618)
# have the same bits and leave cirrus unset.
_QA_PIXEL = QualityPreset(
    "Landsat Collection 2 QA_PIXEL",
    {
        **_bits(fill=0, dilated_cloud=1, cirrus=2, cloud=3, cloud_shadow=4, snow=5, clear=6, water=7),
        **_levels("cloud_confidence", 8, low=1, medium=2, high=3),
        **_levels("cloud_shadow_confidence", 10, low=1, high=3),
        **_levels("snow_confidence", 12, low=1, high=3),
        **_levels("cirrus_confidence", 14, low=1, high=3),
    },
    unusable=("dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow"),
    fill=("fill",),
)

# Zhu and Woodcock's own program, https://github.com/GERSL/Fmask: "clear land 0, clear water 1, cloud shadow 2, snow 3,
# cloud 4, no observation 255".
_FMASK = QualityPreset(
    "Fmask (of its authors)",
    _classes(clear_land=0, clear_water=1, cloud_shadow=2, snow=3, cloud=4, no_data=255, fill=255),
    unusable=("cloud_shadow", "snow", "cloud"),
    fill=("no_data",),
)

# https://www.pythonfmask.org, module fmask.fmask: OUTCODE_NULL 0, CLEAR 1, CLOUD 2, SHADOW 3, SNOW 4, WATER 5. Digital
# Earth Australia and Africa use these numbers, too.
_PYTHON_FMASK = QualityPreset(
    "python-fmask, Digital Earth Australia's fmask",
    _classes(no_data=0, clear=1, cloud=2, cloud_shadow=3, snow=4, water=5),
    unusable=("cloud", "cloud_shadow", "snow"),
    fill=("no_data",),
)

# Harmonized Landsat and Sentinel-2 product user guide, version 2.0, table "Description of the bits in the QA band".
_HLS_FMASK = QualityPreset(
    "HLS Fmask",
    {
        **_classes(clear=0, fill=255, no_data=255),
        **_bits(cirrus=0, cloud=1, adjacent_to_cloud_or_shadow=2, cloud_shadow=3, snow_or_ice=4, water=5),
        **_levels("aerosol", 6, climatology=0, low=1, moderate=2, high=3),
    },
    unusable=("cirrus", "cloud", "adjacent_to_cloud_or_shadow", "cloud_shadow", "snow_or_ice"),
    fill=("fill",),
)

# https://github.com/sentinel-hub/sentinel2-cloud-detector: a mask of 0 and 1; Sentinel Hub's band CLM has 255, too.
_S2CLOUDLESS = QualityPreset(
    "s2cloudless, Sentinel Hub's CLM",
    _classes(clear=0, cloud=1, no_data=255),
    unusable=("cloud",),
    fill=("no_data",),
)

# https://github.com/DPIRD-DMA/OmniCloudMask: "0 = Clear, 1 = Thick Cloud, 2 = Thin Cloud, 3 = Cloud Shadow". Where the
# scene has no data it says 0 as well, which a mask inside of the file tells in newer versions.
_OMNICLOUDMASK = QualityPreset(
    "OmniCloudMask",
    _classes(clear=0, thick_cloud=1, thin_cloud=2, cloud_shadow=3),
    unusable=("thick_cloud", "thin_cloud", "cloud_shadow"),
)

# https://docs.planet.com, UDM 2.1: one band for each, 1 where it holds; band 7 is a confidence in percent, band 8 the
# older mask of bits, the first of which says that nothing was recorded.
_UDM2 = QualityPreset(
    "Planet UDM2",
    {
        "clear": Flag(1, band=1),
        "snow": Flag(1, band=2),
        "shadow": Flag(1, band=3),
        "cloud_shadow": Flag(1, band=3),
        "haze_light": Flag(1, band=4),
        "light_haze": Flag(1, band=4),
        "haze_heavy": Flag(1, band=5),
        "heavy_haze": Flag(1, band=5),
        "cloud": Flag(1, band=6),
        "blackfill": Flag(1, 1, band=8),
    },
    usable=("clear",),
    fill=("blackfill",),
)

# https://docs.planet.com, Unusable Data Mask: bits of a byte, none of which is set where all is well.
_UDM = QualityPreset(
    "Planet UDM, the older mask",
    {
        **_classes(clear=0),
        **_bits(blackfill=0, cloud=1, blue=2, green=3, red=4, red_edge=5, nir=6, other=7),
    },
    unusable=("cloud", "blue", "green", "red", "red_edge", "nir", "other"),
    fill=("blackfill",),
)

# ESA, Sentinel-2 Level-1C, as Earth Engine's band QA60: bits 10 and 11.
_QA60 = QualityPreset(
    "Sentinel-2 QA60",
    {**_classes(clear=0), **_bits(opaque_cloud=10, cloud=10, cirrus=11)},
    unusable=("opaque_cloud", "cirrus"),
)

# ESA, Sentinel-2 Products Specification Document, masks of Level-1C from baseline 04.00 on: MSK_CLASSI_B00.jp2.
_MSK_CLASSI = QualityPreset(
    "Sentinel-2 L1C MSK_CLASSI",
    {"opaque_cloud": Flag(1, band=1), "cirrus": Flag(1, band=2), "snow": Flag(1, band=3)},
    unusable=("opaque_cloud", "cirrus", "snow"),
)

QUALITY_PRESETS: Mapping[str, QualityPreset] = {
    "scl": _SCL,
    "qa_pixel": _QA_PIXEL,
    "fmask": _FMASK,
    "python_fmask": _PYTHON_FMASK,
    "hls_fmask": _HLS_FMASK,
    "s2cloudless": _S2CLOUDLESS,
    "omnicloudmask": _OMNICLOUDMASK,
    "udm2": _UDM2,
    "udm": _UDM,
    "qa60": _QA60,
    "msk_classi": _MSK_CLASSI,
}

# What the names of files tell, the most telling first: several presets where a name is not enough, None where 0 may
# well be what is not used.
_NAMES = (
    (r"cld_?prb|(?<![a-z])(cloud_?)?prob(ability|abilities)?(?![a-z])|(?<![a-z0-9])clp(?![a-z0-9])", ()),
    (r"(?<![a-z0-9])scl(?![a-z])", ("scl",)),
    (r"qa_?pixel", ("qa_pixel",)),
    (r"udm_?2", ("udm2",)),
    (r"(?<![a-z0-9])udm(?![a-z0-9])", ("udm",)),
    (r"(?<![a-z0-9])hls.*fmask", ("hls_fmask",)),
    (r"fmask", ("fmask", "python_fmask")),
    (r"qa_?60", ("qa60",)),
    (r"omnicloudmask|(?<![a-z0-9])ocm(?![a-z0-9])", ("omnicloudmask",)),
    (r"s2_?cloudless|(?<![a-z0-9])clm(?![a-z0-9])", ("s2cloudless",)),
    (r"msk_?classi", ("msk_classi",)),
    (r"cloud_?free|no_?clouds?(?![a-z])", None),
    (r"cloud_?mask|(?<![a-z])clouds?(?![a-z])", ("s2cloudless", "omnicloudmask")),
)


def named_presets(file_name: str) -> tuple[str, ...] | None:
    """Presets that a file's name points to; an empty tuple for a probability, None where it tells nothing."""
    return next((presets for pattern, presets in _NAMES if re.search(pattern, file_name.lower())), None)
