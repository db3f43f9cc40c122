"""The list ``train.augment``: transforms by name with their arguments, those of albumentations and a few of our own.

Names and arguments are checked here, when the configuration is read. Ours and D4 need nothing for that; for other names
albumentations is imported, which takes two seconds.
"""

import difflib
import inspect
import os
import warnings
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from cdpipe.config.section import Section, Share

Range = tuple[Share, Share]


class D4(Section):
    """One of the eight symmetries of the square, of both dates and the label alike; albumentations' own."""

    p: Share = 1
    """Probability that it is applied."""


class BandJitter(Section):
    """Another gain and offset for a date, drawn for all of its bands together and for each band.

    Standard deviations, in those of a normalised band.
    """

    p: Share = 1
    """Probability that it is applied."""
    gain: float = Field(default=0.1, ge=0)
    """Of the gain of all bands together."""
    offset: float = Field(default=0.1, ge=0)
    """Of the offset of all bands together."""
    band_gain: float = Field(default=0.1, ge=0)
    """Of the gain of each band."""
    band_offset: float = Field(default=0.1, ge=0)
    """Of the offset of each band."""


class BandNoise(Section):
    """Noise of a date, for every pixel and band."""

    p: Share = 0.3
    """Probability that it is applied."""
    sd: float = Field(default=0.1, ge=0)
    """In standard deviations of a normalised band."""


class Haze(Section):
    """A veil over a date that hides more here and less there."""

    p: Share = 0.2
    """Probability that it is applied."""
    strength: Range = (0.1, 0.5)
    """The share that it hides at most is drawn from this range."""


class ShiftDate(Section):
    """The second date moved along rows and columns, the label left where it is."""

    p: Share = 0.3
    """Probability that it is applied."""
    pixels: Annotated[int, Field(ge=1, le=16)] = 1
    """By so many whole pixels at most."""


class SwapDates(Section):
    """The dates the other way round."""

    p: Share = 0.3
    """Probability that it is applied."""


class Paste(Section):
    """A rectangle of another sample, both its dates and its label."""

    p: Share = 0.3
    """Probability that it is applied."""
    side: Range = (0.25, 0.6)
    """Its sides are shares of the patch's, drawn from this range."""


OWN: Mapping[str, type[Section]] = MappingProxyType(
    {each.__name__: each for each in (D4, BandJitter, BandNoise, Haze, ShiftDate, SwapDates, Paste)}
)


def check_transform(value: Any) -> dict[str, dict[str, Any]]:
    """A transform as it is meant: its name, with all arguments that are given or that ours have by default.

    Args:
        value: ``Name`` or ``{Name: {argument: value, ...}}``.

    Raises:
        ValueError: If there is no such transform or argument, or a value is none that it takes.
    """
    entry = {value: {}} if isinstance(value, str) else value
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError("expected one transform with its arguments, such as D4: {p: 1}")
    name, arguments = next(iter(entry.items()))
    arguments = {} if arguments is None else arguments
    if (
        not isinstance(name, str)
        or not isinstance(arguments, Mapping)
        or not all(isinstance(k, str) for k in arguments)
    ):
        raise ValueError("expected one transform with its arguments, such as D4: {p: 1}")
    if name in OWN:
        try:
            return {name: OWN[name](**arguments).model_dump(mode="json")}
        except ValidationError as error:
            raise ValueError(f"{name}: {_mistakes(error, OWN[name].model_fields)}") from None
    _check_foreign(name, arguments)
    return {name: dict(arguments)}


Transform = Annotated[dict[str, dict[str, Any]], BeforeValidator(check_transform)]


def make_foreign(name: str, arguments: Mapping[str, Any]) -> Any:
    """A transform of albumentations.

    What a geometric one leaves empty in the label is 255 unless told otherwise, so that it counts for nothing.

    Raises:
        ValueError: If an argument is not accepted.
    """
    made = _foreign_transforms()[name]
    own = {"fill_mask": 255} if "fill_mask" in inspect.signature(made).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # which is how albumentations says that it will not do what it was told
        try:
            return made(**{**own, **arguments})
        except (TypeError, ValueError, UserWarning) as error:
            told = error.__cause__ if isinstance(error.__cause__, ValidationError) else error
            what = _mistakes(told, arguments) if isinstance(told, ValidationError) else " ".join(str(error).split())
            raise ValueError(what) from None


def is_geometric(name: str) -> bool:
    """Whether one of albumentations' transforms moves pixels, and the label's with them."""
    if name in OWN:
        return False
    import albumentations

    return issubclass(_foreign_transforms()[name], albumentations.DualTransform)


def _check_foreign(name: str, arguments: Mapping[str, Any]) -> None:
    known = _foreign_transforms()
    if name not in known:
        raise ValueError(f"no transform named {name}; {_hint(name, [*OWN, *known])}")
    accepted = [each for each in inspect.signature(known[name]).parameters if each != "kwargs"]
    unknown = [each for each in arguments if each not in accepted]
    if unknown:
        hints = "; ".join(f"unknown argument {each}, {_hint(each, accepted)}" for each in unknown)
        raise ValueError(f"{name}: {hints}")
    try:
        make_foreign(name, arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _foreign_transforms() -> dict[str, Any]:
    """Albumentations' transforms of images, by name."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
    import albumentations

    bases = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    return {
        name: each
        for name, each in vars(albumentations).items()
        if inspect.isclass(each) and issubclass(each, bases) and each not in bases
    }


def _mistakes(error: ValidationError, accepted: Iterable[str]) -> str:
    found = []
    for each in error.errors():
        where = ".".join(str(part) for part in each["loc"])
        if each["type"] == "extra_forbidden":
            found.append(f"unknown argument {where}, {_hint(where, list(accepted))}")
        elif each["type"] == "missing":
            found.append(f"{where} is missing")
        else:
            found.append(f"{where}: got {each['input']!r}; {each['msg'].removeprefix('Value error, ')}")
    return "; ".join(dict.fromkeys(found))


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1) or [
        each for each in known if each.casefold() == name.casefold()
    ]
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


SYMMETRIES: tuple[dict[str, dict[str, Any]], ...] = ({"D4": {"p": 1.0}},)
