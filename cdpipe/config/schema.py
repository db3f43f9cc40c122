"""The configuration: one YAML file, every key known, every mistake listed at once."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cdpipe.config.detectors import DETECTORS
from cdpipe.config.label import Label
from cdpipe.config.place import Place
from cdpipe.config.presets import PRESETS
from cdpipe.config.quality import QUALITY_PRESETS, plain_name
from cdpipe.config.resources import Resources
from cdpipe.config.section import Auto, Positive, Section, Share
from cdpipe.config.train import Train
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.geo.tilings import TILE

Backend = Literal["auto", "torch", "openvino"]
NoData = float | Literal["none"]


class Input(Section):
    """Which files may be opened, and how."""

    roots: tuple[Place, ...] = ()
    """Folders in which all files must lie, links followed; by default anywhere."""
    drivers: tuple[str, ...] = ("GTiff",)
    """GDAL's drivers for scenes and labels."""
    variables: tuple[str, ...] = ()
    """Of a netCDF file with several variables (driver ``netCDF``), the first of these that it has is read."""
    sidecars: bool = False
    """Whether files beside scenes (.aux.xml, .ovr, ...) count; world files do in any case."""
    pixel_coordinates: bool = False
    """Compare dates pixel on pixel where neither has a georeference."""


class Quality(Section):
    """What the values of a sensor's quality rasters mean (``quality: scl`` is short for ``quality: {preset: scl}``).

    One of ``unusable``, ``usable``, ``bits``, or ``above`` and ``below`` says what is not used; by default what the
    preset has, or else 0.
    """

    preset: str | None = None
    """A well-known product: scl, qa_pixel, fmask, python_fmask, hls_fmask, s2cloudless, omnicloudmask, udm2, udm,
    qa60 or msk_classi."""
    band: Positive | str | None = None
    """The band's number or description, in files of several."""
    unusable: tuple[int | str, ...] | None = None
    """Values, or names of the preset, that mean "do not use"."""
    usable: tuple[int | str, ...] | None = None
    """Values, or names of the preset, that alone are used."""
    bits: tuple[int | str, ...] | None = None
    """Numbers from 0, or names, of bits of which none may be set."""
    above: float | None = None
    """Values above it are not used: of a probability."""
    below: float | None = None
    """Values below it are not used."""

    @field_validator("preset")
    @classmethod
    def _check_preset(cls, preset: str | None) -> str | None:
        known = None if preset is None else plain_name(preset)  # products call theirs SCL, QA_PIXEL
        if known is not None and known not in QUALITY_PRESETS:
            raise ValueError(f"Input should be one of {', '.join(QUALITY_PRESETS)}")
        return known

    @model_validator(mode="after")
    def _check(self) -> "Quality":
        threshold = self.above is not None or self.below is not None
        ways = [name for name in ("unusable", "usable", "bits") if getattr(self, name) is not None]
        if len(ways) + threshold > 1:
            raise ValueError("expected one of unusable, usable, bits, or above and below")
        empty = [name for name in ("usable", "bits") if getattr(self, name) == ()]
        if empty:
            raise ValueError(f"{empty[0]}: expected at least one")
        if any(isinstance(bit, int) and not 0 <= bit < 32 for bit in self.bits or ()):
            raise ValueError(f"bits: expected numbers from 0, the lowest, to 31, got {list(self.bits or ())}")
        if threshold and self.preset:
            raise ValueError(f"above and below are for a probability, which preset {self.preset} is not; leave one out")
        if self.above is not None and self.below is not None and self.below > self.above:
            raise ValueError(f"below {self.below:g} and above {self.above:g} leave nothing that is usable")
        if self.preset:
            self._check_with_preset(self.preset)
        elif names := [name for name in self._chosen if isinstance(name, str)]:
            raise ValueError(f"expected numbers, got {', '.join(names)}; names are of a preset")
        return self

    @property
    def _chosen(self) -> tuple[int | str, ...]:
        return (*(self.unusable or ()), *(self.usable or ()), *(self.bits or ()))

    def _check_with_preset(self, name: str) -> None:
        preset = QUALITY_PRESETS[name]
        known = ", ".join(preset.flags)
        unknown = [each for each in self._chosen if isinstance(each, str) and plain_name(each) not in preset.flags]
        if unknown:
            raise ValueError(f"expected names of preset {name} ({known}), got {', '.join(unknown)}")
        numbers = [each for each in self._chosen if isinstance(each, int)]
        if preset.has_bands and (numbers or self.band is not None):
            raise ValueError(f"preset {name} knows its bands: choose by name ({known})")
        if not preset.has_classes and numbers and not self.bits:
            raise ValueError(f"preset {name} has bits: choose by name ({known}), or give bits: {numbers}")
        if preset.has_classes and self.bits:
            raise ValueError(f"preset {name} has classes and no bits: give unusable or usable")


class Sensor(Section):
    """What the bands of a sensor's files mean."""

    bands: dict[str, Positive] = Field(min_length=1)
    """The 1-based band number of each role (red, green, blue, nir, ...)."""
    nodata: NoData | dict[str, NoData] | None = None
    """A pixel with this value in any of the bands is not observed: one value for all, ``none`` if every value
    counts, or either for single roles; by default the file's own tag."""
    mask: Literal["file", "ignore"] = "file"
    """Whether pixels that a file's own alpha band or mask marks as transparent are not observed (``file``), or alpha
    bands and masks are left aside (``ignore``); a band that has a role is never alpha."""
    scale: float = 1.0
    """``value * scale + offset`` is the physical value."""
    offset: float = 0.0
    """See ``scale``."""
    unusable: tuple[int, ...] | None = None
    """Values of a valid or cloud raster that mean "do not use"; by default 0."""
    quality: Quality | None = None
    """Says more of such rasters than ``unusable``."""

    @field_validator("quality", mode="before")
    @classmethod
    def _name_preset(cls, quality: Any) -> Any:
        return {"preset": quality} if isinstance(quality, str) else quality

    @model_validator(mode="after")
    def _check(self) -> "Sensor":
        if self.scale == 0:
            raise ValueError("scale must not be 0")
        if self.unusable is not None and self.quality is not None:
            raise ValueError("expected unusable or quality, got both; quality has a list unusable, too")
        unknown = [role for role in self.nodata if role not in self.bands] if isinstance(self.nodata, dict) else []
        if unknown:
            raise ValueError(f"nodata: expected roles of bands, got {', '.join(unknown)}")
        return self


class Align(Section):
    """How the second date, labels and valid rasters are brought onto the first date's grid."""

    resampling: Literal["nearest", "bilinear", "cubic"] = "bilinear"
    """How imagery is interpolated; labels and valid rasters keep their nearest value."""
    min_overlap: Share = 0.1
    """Share of the first date that the second must cover at least."""
    coregister: Literal["off", "report", "auto"] = "report"
    """``report`` how far the second date seems to lie off, ``auto`` also moves it by a small shift that is sure,
    ``off`` does neither."""
    block: int = Field(default=2048, ge=TILE, multiple_of=TILE)
    """Side in pixels of what is read, computed, stored and continued at a time. No result depends on it."""


class Normalisation(Section):
    """How each date is brought to a common level and contrast."""

    method: Literal["moments", "robust"] = "moments"
    """By mean and deviation (``moments``), or by median and spread between quartiles (``robust``), which clouds and
    single bright roofs do not move."""
    statistics: Literal["common", "per_date"] = "common"
    """Of the pixels observed at both dates (``common``) or at that date (``per_date``)."""
    bands: Literal["each", "together"] = "each"
    """Every band by its own figures (``each``) or all by one (``together``)."""
    clip: Annotated[float, Field(gt=0)] | Literal["none", "auto"] = "auto"
    """Values further than so many deviations from the middle are moved to there; ``none`` leaves them, ``auto`` is 4
    for ``robust`` and ``none`` for ``moments``."""

    @model_validator(mode="after")
    def _check(self) -> "Normalisation":
        if self.method == "robust" and self.bands == "together":
            raise ValueError("bands: together is for method: moments; a robust normalisation is that of each band")
        return self

    @property
    def limit(self) -> float | None:
        """What normalised values are clipped to, None for not at all."""
        if self.clip == "auto":
            return 4.0 if self.method == "robust" else None
        return None if self.clip == "none" else self.clip


class Splits(Section):
    """Which pairs are ``train``, ``val`` and ``test`` where the catalog does not say so."""

    by: Literal["auto", "places", "strips"] = "auto"
    """``places`` shares out whole places; ``strips`` cuts every labelled scene into a strip for each split, with a
    patch between them; ``auto`` does that only where there are too few places: fewer than three, or where all pairs
    have the split ``train`` and an epoch is to be chosen."""
    allow_leak: bool = False
    """Let training pairs lie nearer than a patch to those that models are judged on."""


class Aim(Section):
    """What a fitted threshold is to reach, one of the two."""

    precision: Share | None = None
    """Share of the marked pixels that are right."""
    recall: Share | None = None
    """Share of the changed pixels that are marked."""

    @model_validator(mode="after")
    def _check(self) -> "Aim":
        if (self.precision is None) == (self.recall is None):
            raise ValueError("expected precision or recall, one of the two")
        return self

    @property
    def wanted(self) -> tuple[str, float]:
        """The figure, and how much of it."""
        return ("precision", self.precision) if self.precision is not None else ("recall", self.recall or 0.0)


RUNTIMES = {".onnx": "onnx", ".pt2": "pt2"}  # of networks that come as one file, by its ending


class Predict(Section):
    """How models are applied.

    With members that are all detectors or files nothing is trained.
    """

    models: tuple[Place, ...] = ()
    """Model folders, or files as in ``members``, to use instead of the models that ``train`` names (``cdpipe``: the
    model that comes with it); or the folder of one ensemble, whose weights, threshold, overlap, tta and precision
    then are the defaults."""
    members: tuple[str, ...] = ()
    """Which of these models take part; by default all. Detectors that need no training may be named among them,
    ``mad``, ``irmad``, ``cva`` and ``difference``, and files that ``cdpipe export`` wrote, ``.onnx`` and ``.pt2``:
    these go by the file's name, and run in float32 on the CPU, whatever ``backend`` and ``precision`` say."""
    ensemble: Literal["mean", "vote"] = "mean"
    """The ``mean`` of the members, or a ``vote``: change where more than half of them see it, each at its own
    threshold."""
    weights: dict[str, Annotated[float, Field(gt=0)]] | Auto = Field(default={})
    """Shares of the members in the mean, by name; equal by default. ``auto``: fitted on pairs that the models did not
    learn from, before the threshold."""
    temperature: Literal["none", "auto"] = "none"
    """``auto``: what a model's logits are divided by before they are averaged, fitted on the same pairs."""
    detectors_from_m: Annotated[float, Field(gt=0)] | None = None
    """Metres: beside networks, detectors take part only in pairs of pixels at least so wide; 8-bit pictures in colour
    that lie nowhere count as finer. By default in all pairs, and 3 where nobody names a model."""
    overlap: float = Field(default=0.25, ge=0, lt=1)
    """Of neighbouring patches, as a share of a patch; 0: they lie side by side."""
    tta: Literal["d4", "none"] = "d4"
    """``d4``: the mean over the eight flips and rotations of each patch."""
    backend: Backend = "auto"
    """What runs the networks: ``torch``, or ``openvino``, which is made for CPUs; ``auto`` is ``openvino`` on the
    CPUs of x86-64, else ``torch``."""
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """What networks compute in: ``auto`` is float32 on CPUs and bfloat16 on GPUs; ``int8`` is of OpenVINO alone, and
    calibrated on the training pairs."""
    threshold: Share | Auto | dict[str, Share | Auto] = "auto"
    """From which probability on a pixel is changed: one number, one for each model that votes, or ``auto``: fitted
    on pairs that the models did not learn from, for what ``aim`` says."""
    aim: Literal["f1", "mean_f1"] | Aim = "f1"
    """The best F1 of all pairs' pixels (``f1``), the best mean of the pairs' own F1 (``mean_f1``), which a few pairs
    with much change or many false alarms do not decide alone, or a precision or recall."""
    model_rasters: bool = False
    """Publish each model's probability as a GeoTIFF, too."""

    @property
    def detectors(self) -> tuple[str, ...]:
        """The detectors among ``members``."""
        return tuple(name for name in dict.fromkeys(self.members) if name in DETECTORS)

    @property
    def files(self) -> tuple[str, ...]:
        """The exported networks among ``members``, by their paths."""
        return tuple(name for name in dict.fromkeys(self.members) if PurePosixPath(name).suffix.lower() in RUNTIMES)

    @property
    def member_names(self) -> tuple[str, ...]:
        """What ``members`` go by in a run: an exported network by its file's name."""
        return tuple(PurePosixPath(name).stem if name in self.files else name for name in self.members)

    @property
    def takes_trained(self) -> bool:
        """Whether models that ``train`` names take part."""
        others = len(self.detectors) + len(self.files)
        return not self.models and (not self.members or others < len(set(self.members)))

    @model_validator(mode="after")
    def _check(self) -> "Predict":
        if isinstance(self.threshold, dict) and self.ensemble == "mean":
            raise ValueError("threshold: a mean has one threshold; for one of each model choose ensemble: vote")
        if self.ensemble == "vote" and (self.temperature == "auto" or self.weights == "auto"):
            raise ValueError("ensemble: temperature: auto and weights: auto are of a mean; a vote has thresholds")
        if self.precision == "int8" and self.backend == "torch":
            raise ValueError("precision: int8 needs backend: openvino, got backend: torch")
        return self


class Evaluate(Section):
    """How results are judged."""

    tolerance: Annotated[int, Field(ge=0, le=64)] = 2
    """Pixels that borders may be off in the figures that forgive that."""


class Audit(Section):
    """How a run is audited without labels."""

    patches: Annotated[int, Field(ge=0)] = 16
    """Of each pair, on which models are run again, at most; 0: none."""


MAX_OBJECTS = 100_000  # of a pair: maps of whole cities have fewer, and tools that people look at them with bear it


class Vectors(Section):
    """How change becomes objects, polygons in ``vectors/``.

    Lengths are metres on the ground, whatever the coordinate reference system; without one a pixel counts as a metre.
    """

    format: Literal["gpkg", "geoparquet", "geojson", "none"] = "gpkg"
    """Of the layers; ``none`` leaves them out."""
    min_area_m2: float = Field(default=0, ge=0)
    """Smaller objects are left out."""
    opening_m: float = Field(default=0, ge=0)
    """Radius of an opening, which removes what is narrower than twice that."""
    closing_m: float = Field(default=0, ge=0)
    """Radius of a closing after that, which fills gaps that are narrower than twice that."""
    simplify_m: float = Field(default=0, ge=0)
    """Corners go whose triangle with their neighbours is smaller than this squared."""
    max_objects: Positive = MAX_OBJECTS
    """A pair with more gets none, and console, manifest and report say so: that many are noise."""
    crs: str = "auto"
    """Of the layer of the whole run: ``auto`` is the pairs' own where they share it, else EPSG:4326."""
    also: tuple[Literal["flatgeobuf", "pmtiles"], ...] = ()
    """Formats for web maps that the layer of the whole run is written in besides."""

    @field_validator("crs")
    @classmethod
    def _check(cls, crs: str) -> str:
        if not re.fullmatch("auto|EPSG:[0-9]+", crs):
            raise ValueError("Input should be auto or an EPSG code such as EPSG:32633")
        return crs


class Tracking(Section):
    """Where trained models are logged besides; never bears on results."""

    mlflow: str | None = None
    """The address of an MLflow server, or a folder."""


class Config(Section):
    """A whole configuration; paths are absolute once loaded."""

    name: str = Field(pattern=f"^{ID_PATTERN.pattern}$")
    """Of the run; its outputs lie in a folder of that name."""
    catalog: Place
    """The table of pairs: CSV, Parquet or a workbook."""
    workspace: Place
    """The one folder, or address in object storage, for all that is made."""
    sensors: dict[str, Sensor] = Field(min_length=1)
    """What the bands of files are, by the names that the catalog has for their sensors."""
    preset: str | None = None
    """A recipe to start from, such as ``original/headline``; what the file says counts."""
    input: Input = Input()
    tracking: Tracking = Tracking()
    align: Align = Align()
    label: Label = Label()
    normalisation: Normalisation = Normalisation()
    splits: Splits = Splits()
    train: Train = Train()
    predict: Predict = Predict()
    evaluate: Evaluate = Evaluate()
    audit: Audit = Audit()
    vectors: Vectors = Vectors()
    resources: Resources = Resources()

    @property
    def split_buffer(self) -> int:
        """Pixels that must lie between training pairs and others; 0: they must not touch, where splits are made."""
        return 0 if self.splits.allow_leak else self.train.patch

    @field_validator("preset")
    @classmethod
    def _check(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"Input should be one of {', '.join(PRESETS)}")
        return preset
