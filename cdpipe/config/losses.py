"""The section ``train.loss``: a sum of terms by name."""

from typing import Any

from pydantic import Field, model_validator

from cdpipe.config.section import Section, Share


class Term(Section):
    """A term that has nothing but its weight."""

    weight: float = Field(default=1, gt=0)
    """What it counts for in the sum."""


class CrossEntropy(Term):
    """Mean binary cross-entropy."""

    positive_weight: float = Field(default=1, gt=0)
    """What a changed pixel counts as, in unchanged ones."""


class Tversky(Term):
    """The Tversky loss; Dice has a half of each."""

    alpha: float = Field(default=0.3, ge=0)
    """What a false alarm costs."""
    beta: float = Field(default=0.7, ge=0)
    """What a miss costs."""


class Focal(Term):
    """Cross-entropy in which sure and right pixels count for less."""

    gamma: float = Field(default=2, ge=0)
    """Power of the probability of being wrong that a pixel is weighed by."""
    alpha: Share | None = None
    """Weight of changed pixels; that of others is 1 less it. By default all weigh alike."""


class Losses(Section):
    """What training makes small: the sum of the terms that are named, each times its weight.

    A name (``soft_jaccard``), several (``[dice, bce]``), or a mapping of names to weights or to a term's options:
    ``{dice: 1, bce: {weight: 0.5, positive_weight: 3}}``. By default ``[dice, bce]``.
    """

    dice: Term | None = None
    """One minus the Dice coefficient, F1."""
    bce: CrossEntropy | None = None
    soft_jaccard: Term | None = None
    """One minus the Jaccard index, IoU."""
    tversky: Tversky | None = None
    focal: Focal | None = None

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            value = {name: {} for name in value}
        if isinstance(value, dict):
            return {name: {"weight": given} if _is_number(given) else given for name, given in value.items()}
        return value

    @model_validator(mode="after")
    def _check(self) -> "Losses":
        if not self.terms:
            raise ValueError(f"expected one or more of {', '.join(type(self).model_fields)}")
        return self

    @property
    def terms(self) -> dict[str, Term]:
        """The terms by name."""
        return {name: term for name in type(self).model_fields if (term := getattr(self, name)) is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


DICE_BCE = Losses(dice=Term(), bce=CrossEntropy())
