"""The configuration: one YAML file, every key known, every mistake listed at once."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cdpipe.config.augment import SYMMETRIES, Transform
from cdpipe.config.detectors import DETECTORS
from cdpipe.config.label import Label
from cdpipe.config.losses import DICE_BCE, Losses
from cdpipe.config.place import Place
from cdpipe.config.presets import PRESETS
from cdpipe.config.quality import QUALITY_PRESETS, plain_name
from cdpipe.config.resources import Resources
from cdpipe.config.section import Auto, Positive, Section, Share
from cdpipe.config.weights import EncoderWeights
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.geo.tilings import TILE

Backend = Literal["auto", "torch", "openvino"]
Precision = Literal["auto", "auto_gpu", "float32", "bfloat16"]
NoData = float | Literal["none"]


class Input(Section):
    """Which files may be opened, and how.

    ``drivers`` are the GDAL drivers for scenes and labels; ``roots`` the folders in which all of them must lie, links
    followed (default: anywhere); ``sidecars`` says whether files beside them (.aux.xml, .ovr, ...) count; world files
    do in any case. ``pixel_coordinates`` compares dates pixel on pixel where neither has a georeference.
    ``variables``: of a netCDF file with several variables (driver ``netCDF``), the first of these that it has is read.
    """

    roots: tuple[Place, ...] = ()
    drivers: tuple[str, ...] = ("GTiff",)
    variables: tuple[str, ...] = ()
    sidecars: bool = False
    pixel_coordinates: bool = False


class Quality(Section):
    """What the values of a sensor's quality rasters mean (``quality: scl`` is short for ``quality: {preset: scl}``).

    ``preset`` is a well-known product: scl, qa_pixel, fmask, python_fmask, hls_fmask, s2cloudless, omnicloudmask, udm2,
    udm, qa60 or msk_classi. ``unusable`` are the values, or names of the preset, that mean "do not use" (default: what
    the preset has, else 0); or ``usable`` those that alone are used; or ``bits`` the numbers from 0, or names, of bits
    of which none may be set. Of a probability, values ``above`` or ``below`` a threshold are not used. ``band`` is a
    number or description, for files of several bands.
    """

    preset: str | None = None
    band: Positive | str | None = None
    unusable: tuple[int | str, ...] | None = None
    usable: tuple[int | str, ...] | None = None
    bits: tuple[int | str, ...] | None = None
    above: float | None = None
    below: float | None = None

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
    """What the bands of a sensor's files mean.

    ``bands`` maps roles (red, green, blue, nir, ...) to 1-based band numbers. A pixel whose value is
    ``nodata`` in any of them is not observed: one value for all bands, ``none`` if every value counts, or either
    for single roles (default: the file's own tag). ``value * scale + offset`` is the physical value.
    ``mask``: whether pixels that a file's own alpha band or mask marks as transparent are not observed (``file``), or
    alpha bands and masks are left aside (``ignore``); a band that has a role is never alpha.
    ``unusable`` are the values of a valid or cloud raster that mean "do not use" (default: 0); ``quality`` says more.
    """

    bands: dict[str, Positive] = Field(min_length=1)
    nodata: NoData | dict[str, NoData] | None = None
    mask: Literal["file", "ignore"] = "file"
    scale: float = 1.0
    offset: float = 0.0
    unusable: tuple[int, ...] | None = None
    quality: Quality | None = None

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
    """How the second date, labels and valid rasters are brought onto the first date's grid.

    ``coregister``: ``report`` how far the second date seems to lie off, ``auto`` also moves it by a small shift that is
    sure, ``off`` does neither.
    """

    resampling: Literal["nearest", "bilinear", "cubic"] = "bilinear"
    min_overlap: Share = 0.1
    coregister: Literal["off", "report", "auto"] = "report"
    block: int = Field(default=2048, ge=TILE, multiple_of=TILE)


class Normalisation(Section):
    """How each date is brought to a common level and contrast.

    ``method``: by mean and deviation (``moments``), or by median and spread between quartiles (``robust``), which
    clouds and single bright roofs do not move. ``statistics``: of the pixels observed at both dates (``common``) or at
    that date (``per_date``). ``bands``: every band by its own figures (``each``) or all by one (``together``).
    ``clip``: values further than so many deviations from the middle are moved to there; ``none`` leaves them, ``auto``
    is 4 for ``robust`` and ``none`` for ``moments``.
    """

    method: Literal["moments", "robust"] = "moments"
    statistics: Literal["common", "per_date"] = "common"
    bands: Literal["each", "together"] = "each"
    clip: Annotated[float, Field(gt=0)] | Literal["none", "auto"] = "auto"

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
    """Which pairs are ``train``, ``val`` and ``test`` where the catalog does not say so.

    ``by: places`` shares out whole places; ``strips`` cuts every labelled scene into a strip for each split, with a
    patch between them; ``auto`` does that only where there are too few places: fewer than three, or where all pairs
    have the split ``train`` and an epoch is to be chosen. Training pairs and strips lie at least a patch from those
    that models are judged on, unless ``allow_leak`` lets pairs lie nearer.
    """

    by: Literal["auto", "places", "strips"] = "auto"
    allow_leak: bool = False


class Model(Section):
    """One model to train; its name in the configuration is its architecture unless ``architecture`` says so.

    ``bands`` are those of each date that it eats (default: red, green, blue); a pair may lack the ones that are
    ``optional_bands``, too, which are 0 then at both dates. ``input`` is for the decoders that can eat several: the
    ``difference`` of the dates, of each of the ``bands`` or, where none are named, of the greys; ``stacked``, the bands
    of both dates; or ``stacked_difference``, these and their difference. ``detectors`` (such as ``[mad]``) learn
    nothing; the model is shown beside the dates what they say. ``encoder: plain16`` (or 8, 24, 32, 48)
    starts at the full size, for changes of a few pixels. ``encoder_weights`` are pretrained ones that the encoder
    starts from, by the bands' names: ``imagenet``, ``torchgeo:...`` or a file. ``init_from`` is a model folder to start
    from, or ``cdpipe``, the model that comes with it. Either way the encoder keeps its weights for ``frozen_epochs``,
    and then learns at ``encoder_learning_rate`` times the others' rate (such as 0.1). ``arguments`` go to the network's
    constructor as they are.
    """

    architecture: str | None = None
    encoder: str | None = None
    encoder_weights: EncoderWeights | None = None
    input: Literal["difference", "stacked", "stacked_difference"] | None = None
    bands: tuple[str, ...] | None = Field(default=None, min_length=1)
    optional_bands: tuple[str, ...] = ()
    detectors: tuple[Literal["mad", "irmad", "cva", "difference"], ...] | None = Field(default=None, min_length=1)
    init_from: Place | None = None
    frozen_epochs: Annotated[int, Field(ge=0)] = 0
    encoder_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    arguments: dict[str, int | float | str | bool | list[int] | None] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if self.frozen_epochs and not (self.init_from or self.encoder_weights):
            raise ValueError("frozen_epochs: a random encoder must learn; give init_from or encoder_weights")
        others = [band for band in self.optional_bands if band not in (self.bands or ())]
        if others or (self.bands and set(self.bands) == set(self.optional_bands)):
            raise ValueError(
                f"optional_bands: expected some of bands, and not all; got {', '.join(self.optional_bands)}"
            )
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the network's constructor, but for the weights that its encoder starts from."""
        own = {"encoder", "input", "bands", "detectors"}
        return {**self.arguments, **self.model_dump(mode="json", include=own, exclude_none=True)}


class Train(Section):
    """How models are trained.

    ``samples_per_epoch: auto`` is one pass over the training pairs' labelled area, and at least 32 steps where that is
    a strip, or less than half of a pair; ``samples_per_pair`` instead counts so many for each training pair, however
    large. ``folds`` trains every model that many times, each time without one fold of
    the training pairs' groups (the catalog's column ``group``), which that model then predicts.

    ``optimizer`` is Adam or AdamW; ``weight_decay`` spares norms and biases. The learning rate falls by ``decay`` every
    epoch (``schedule: exponential``), or step by step after it has risen for a share ``warmup`` of all steps:
    ``one_cycle`` or ``cosine``. ``clip_norm`` is the norm that gradients are clipped to (0: none). ``ema`` is the decay
    of an exponential average of the weights over the steps (such as 0.995), which then is what is validated and kept;
    0 keeps the weights themselves. ``keep: best`` is the epoch with the highest validation IoU, and ``patience`` ends
    a training that has not had a better one for so many epochs; ``last`` is the end of a training that never stops
    early and needs no validation pairs.

    ``changed_share`` of the samples are drawn where there is change. ``sampling: cells`` draws 64-pixel cells with
    any change and windows around them; ``pixels`` draws changed pixels, all alike, at random places of the window, and
    other samples anywhere. With it ``pair_weight`` says how often a pair is drawn: by its pixels (``area``), by their
    square root, or as often as any other (``equal``). ``augment`` lists transforms of albumentations and of cdpipe.

    ``precision: auto`` is bfloat16 where the device computes in it (GPUs, CPUs with AVX512-BF16 or AMX), ``auto_gpu``
    on GPUs alone. ``memory_format: auto`` is ``channels_last`` on GPUs and in bfloat16; in float32 on a CPU that is
    slower.
    """

    models: dict[str, Model] = Field(default={"unetplusplus": Model(), "siamese_seresnext50": Model()})
    patch: int = Field(default=256, ge=32, multiple_of=8)
    global_batch: Positive = 8
    epochs: Positive = 150
    samples_per_epoch: Positive | Auto = "auto"
    samples_per_pair: Positive | None = None
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0, ge=0)
    schedule: Literal["exponential", "one_cycle", "cosine"] = "exponential"
    decay: float = Field(default=0.97, gt=0, le=1)
    warmup: float = Field(default=0.15, ge=0, lt=1)
    clip_norm: float = Field(default=0, ge=0)
    ema: float = Field(default=0, ge=0, lt=1)
    keep: Literal["best", "last"] = "best"
    patience: Positive = 7
    loss: Losses = DICE_BCE
    sampling: Literal["cells", "pixels"] = "cells"
    changed_share: Share = 0.7
    pair_weight: Literal["area", "sqrt", "equal"] = "area"
    augment: tuple[Transform, ...] = SYMMETRIES
    precision: Precision = "auto"
    memory_format: Literal["auto", "channels_last"] = "auto"
    seed: int = Field(default=0, ge=0)
    folds: Annotated[int, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Train":
        wrong = [name for name in self.models if not ID_PATTERN.fullmatch(name)]
        if wrong:
            raise ValueError(f"a model's name must match {ID_PATTERN.pattern}, got {', '.join(wrong)}")
        taken = [name for name in self.models if name in DETECTORS]
        if taken:
            raise ValueError(f"a model's name must not be that of a detector, got {', '.join(taken)}")
        if self.samples_per_pair is not None and self.samples_per_epoch != "auto":
            raise ValueError("give samples_per_epoch or samples_per_pair, not both")
        if self.pair_weight != "area" and self.sampling == "cells":
            raise ValueError(f"pair_weight: {self.pair_weight} needs sampling: pixels; cells are all drawn alike")
        return self


class Aim(Section):
    """What a fitted threshold is to reach, one of the two."""

    precision: Share | None = None
    recall: Share | None = None

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

    ``models`` are model folders to use instead of the ones that ``train`` names (``cdpipe``: the model that comes with
    it), or the folder of one ensemble, whose weights, threshold, overlap, tta and precision then are the defaults;
    ``members`` of either take part (default: all), with ``weights`` as their shares (default: equal). Detectors that
    need no training, ``mad``, ``irmad``, ``cva`` and ``difference``, may be named among either; with members that are
    all detectors nothing is trained. So may files that ``cdpipe export`` wrote, ``.onnx`` and ``.pt2``: they go by the
    file's name, and run in float32 on the CPU, whatever ``backend`` and ``precision`` say. ``ensemble`` is their
    ``mean``, or a ``vote``: change where more than half of them see it, each at its own threshold. ``threshold`` is one
    number, one for each model that votes, or ``auto``: fitted on pairs that the models did not learn from, for what
    ``aim`` says.
    ``aim`` is the best F1 of all pairs' pixels (``f1``), the best mean of the pairs' own F1 (``mean_f1``), which a few
    pairs with much change or many false alarms do not decide alone, or a precision or recall.
    ``weights: auto`` and ``temperature: auto`` are fitted on the same pairs, before the threshold; a temperature
    divides a model's logits before they are averaged.

    ``backend`` runs the networks: ``torch``, or ``openvino``, which is made for CPUs; ``auto`` is ``openvino`` on the
    CPUs of x86-64, else ``torch``. ``precision`` is what they compute in; ``int8`` is of OpenVINO alone, and calibrated
    on the training pairs.
    """

    models: tuple[Place, ...] = ()
    members: tuple[str, ...] = ()
    ensemble: Literal["mean", "vote"] = "mean"
    weights: dict[str, Annotated[float, Field(gt=0)]] | Auto = Field(default={})
    temperature: Literal["none", "auto"] = "none"
    overlap: float = Field(default=0.25, ge=0, lt=1)
    tta: Literal["d4", "none"] = "d4"
    backend: Backend = "auto"
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    threshold: Share | Auto | dict[str, Share | Auto] = "auto"
    aim: Literal["f1", "mean_f1"] | Aim = "f1"
    model_rasters: bool = False

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
    """How results are judged: borders may be off by ``tolerance`` pixels in the figures that forgive that."""

    tolerance: Annotated[int, Field(ge=0, le=64)] = 2


class Audit(Section):
    """How a run is audited without labels: models are run again on at most ``patches`` patches of each pair."""

    patches: Annotated[int, Field(ge=0)] = 16


MAX_OBJECTS = 100_000  # of a pair: maps of whole cities have fewer, and tools that people look at them with bear it


class Vectors(Section):
    """How change becomes objects, polygons in ``vectors/``; ``format: none`` leaves them out.

    Lengths are metres on the ground, whatever the coordinate reference system; without one a pixel counts as a metre.
    ``crs`` is that of the layer of the whole run: ``auto`` is the pairs' own where they share it, else EPSG:4326.
    A pair with more than ``max_objects`` gets none, and console, manifest and report say so: that many are noise.
    ``also`` are formats for web maps that the layer of the whole run is written in besides.
    """

    format: Literal["gpkg", "geoparquet", "geojson", "none"] = "gpkg"
    min_area_m2: float = Field(default=0, ge=0)
    opening_m: float = Field(default=0, ge=0)
    closing_m: float = Field(default=0, ge=0)
    simplify_m: float = Field(default=0, ge=0)
    max_objects: Positive = MAX_OBJECTS
    crs: str = "auto"
    also: tuple[Literal["flatgeobuf", "pmtiles"], ...] = ()

    @field_validator("crs")
    @classmethod
    def _check(cls, crs: str) -> str:
        if not re.fullmatch("auto|EPSG:[0-9]+", crs):
            raise ValueError("Input should be auto or an EPSG code such as EPSG:32633")
        return crs


class Tracking(Section):
    """Where trained models are logged besides; never bears on results.

    ``mlflow`` is the address of an MLflow server, or a folder.
    """

    mlflow: str | None = None


class Config(Section):
    """A whole configuration; paths are absolute once loaded."""

    name: str = Field(pattern=f"^{ID_PATTERN.pattern}$")
    catalog: Place
    workspace: Place
    sensors: dict[str, Sensor] = Field(min_length=1)
    preset: str | None = None
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
