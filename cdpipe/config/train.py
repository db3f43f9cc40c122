"""The section ``train``: models, and how they are trained."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cdpipe.config.augment import SYMMETRIES, Transform
from cdpipe.config.detectors import DETECTORS
from cdpipe.config.losses import DICE_BCE, Losses
from cdpipe.config.place import Place
from cdpipe.config.section import Auto, Positive, Section, Share
from cdpipe.config.weights import EncoderWeights
from cdpipe.geo.grid import ID_PATTERN

Precision = Literal["auto", "auto_gpu", "float32", "bfloat16"]


class Model(Section):
    """One model to train."""

    architecture: str | None = None
    """The network; by default the model's name in the configuration."""
    encoder: str | None = None
    """The network's, where it has a choice. ``plain16`` (or 8, 24, 32, 48) starts at the full size, for changes of a
    few pixels."""
    encoder_weights: EncoderWeights | None = None
    """Pretrained ones that the encoder starts from, by the bands' names: ``imagenet``, ``torchgeo:...`` or a file."""
    input: Literal["difference", "stacked", "stacked_difference"] | None = None
    """Of decoders that can eat several: the ``difference`` of the dates, of each of the ``bands`` or, where none are
    named, of the greys; ``stacked``, the bands of both dates; or ``stacked_difference``, these and their difference."""
    bands: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Those of each date that it eats; by default red, green and blue."""
    optional_bands: tuple[str, ...] = ()
    """Those of ``bands`` that a pair may lack; they are 0 then at both dates."""
    detectors: tuple[Literal["mad", "irmad", "cva", "difference"], ...] | None = Field(default=None, min_length=1)
    """The model is shown beside the dates what these say, which learn nothing."""
    init_from: Place | None = None
    """A model's folder to start from, or ``cdpipe``, the model that comes with it."""
    frozen_epochs: Annotated[int, Field(ge=0)] = 0
    """For so many epochs an encoder that starts from weights keeps them."""
    encoder_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of such an encoder after that, as a share of the others' rate (such as 0.1)."""
    arguments: dict[str, int | float | str | bool | list[int] | None] = Field(default={})
    """What the network's constructor is given besides, as it is."""

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
    """How models are trained."""

    models: dict[str, Model] = Field(default={"unetplusplus": Model(), "siamese_seresnext50": Model()})
    """What is trained, by name."""
    patch: int = Field(default=256, ge=32, multiple_of=8)
    """Side of a sample in pixels, and of what a model sees at a time when it predicts."""
    global_batch: Positive = 8
    """Samples of a step, whatever the number of workers is."""
    epochs: Positive = 150
    """Of a training, at most."""
    samples_per_epoch: Positive | Auto = "auto"
    """``auto`` is one pass over the training pairs' labelled area, and at least 32 steps where that is a strip, or
    less than half of a pair."""
    samples_per_pair: Positive | None = None
    """Instead, so many for each training pair, however large it is."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """The optimizer's, at its highest."""
    weight_decay: float = Field(default=0, ge=0)
    """Of all weights but those of norms and biases."""
    schedule: Literal["exponential", "one_cycle", "cosine"] = "exponential"
    """The rate falls by ``decay`` every epoch (``exponential``), or step by step after it has risen (``one_cycle``,
    ``cosine``)."""
    decay: float = Field(default=0.97, gt=0, le=1)
    """What the rate is multiplied by after an epoch, in the schedule ``exponential``."""
    warmup: float = Field(default=0.15, ge=0, lt=1)
    """Share of all steps in which the rate rises, in the other schedules."""
    clip_norm: float = Field(default=0, ge=0)
    """The norm that gradients are clipped to; 0: not at all."""
    ema: float = Field(default=0, ge=0, lt=1)
    """Decay of an exponential average of the weights over the steps (such as 0.995), which then is what is validated
    and kept; 0 keeps the weights themselves."""
    keep: Literal["best", "last"] = "best"
    """``best``: the epoch with the highest validation IoU; ``last``: the end of a training that never stops early
    and needs no validation pairs."""
    patience: Positive = 7
    """Epochs without a better one after which a training ends that keeps the best."""
    loss: Losses = DICE_BCE
    """Terms of what training makes small."""
    sampling: Literal["cells", "pixels"] = "cells"
    """``cells`` draws 64-pixel cells with any change and windows around them; ``pixels`` draws changed pixels, all
    alike, at random places of the window, and other samples anywhere."""
    changed_share: Share = 0.7
    """Share of the samples that are drawn where there is change."""
    pair_weight: Literal["area", "sqrt", "equal"] = "area"
    """With ``sampling: pixels``, how often a pair is drawn: by its pixels (``area``), by their square root
    (``sqrt``), or as often as any other (``equal``)."""
    augment: tuple[Transform, ...] = SYMMETRIES
    """Transforms of albumentations and of cdpipe, in order."""
    precision: Precision = "auto"
    """``auto`` is bfloat16 where the device computes in it (GPUs, CPUs with AVX512-BF16 or AMX), ``auto_gpu`` on
    GPUs alone."""
    memory_format: Literal["auto", "channels_last"] = "auto"
    """``auto`` is ``channels_last`` on GPUs and in bfloat16; in float32 on a CPU that is slower."""
    seed: int = Field(default=0, ge=0)
    """Of all random draws: the same seed, pairs and options give the same model."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Train every model so many times, each time without one fold of the training pairs' groups (the catalog's
    column ``group``), which that model then predicts."""

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
