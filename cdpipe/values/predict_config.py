"""The configuration's section on prediction."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdpipe.values.section import Auto, Section, Share

Backend = Literal["torch", "openvino"]


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


class Predict(Section):
    """How models are applied.

    ``models`` are model folders to use instead of the ones that ``train`` names; ``members`` of either take part
    (default: all), with ``weights`` as their shares (default: equal). ``ensemble`` is their ``mean``, or a ``vote``:
    change where more than half of them see it, each at its own threshold. ``threshold`` is one number, one for each
    model that votes, or ``auto``: fitted on pairs that the models did not learn from, for what ``aim`` says.
    ``weights: auto`` and ``temperature: auto`` are fitted on the same pairs, before the threshold; a temperature
    divides a model's logits before they are averaged.

    ``backend`` runs the networks: ``torch``, or ``openvino``, which is made for CPUs. ``precision`` is what they
    compute in; ``int8`` is of OpenVINO alone, and calibrated on the training pairs.
    """

    models: tuple[Path, ...] = ()
    members: tuple[str, ...] = ()
    ensemble: Literal["mean", "vote"] = "mean"
    weights: dict[str, Annotated[float, Field(gt=0)]] | Auto = Field(default={})
    temperature: Literal["none", "auto"] = "none"
    overlap: float = Field(default=0.25, ge=0, lt=1)
    tta: Literal["d4", "none"] = "d4"
    backend: Backend = "torch"
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    threshold: Share | Auto | dict[str, Share | Auto] = "auto"
    aim: Literal["f1"] | Aim = "f1"
    model_rasters: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Predict":
        if isinstance(self.threshold, dict) and self.ensemble == "mean":
            raise ValueError("threshold: a mean has one threshold; for one of each model choose ensemble: vote")
        if self.ensemble == "vote" and (self.temperature == "auto" or self.weights == "auto"):
            raise ValueError("ensemble: temperature: auto and weights: auto are of a mean; a vote has thresholds")
        if self.precision == "int8" and self.backend != "openvino":
            raise ValueError(f"precision: int8 needs backend: openvino, got backend: {self.backend}")
        return self
