"""Weights that encoders start from: which there are, of what bands and in what scale. No torch is needed to know."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cdpipe.config.weights import TORCHGEO, EncoderWeights
from cdpipe.errors import InputError
from cdpipe.models.torchgeo import PUBLISHED, Band, Published
from cdpipe.store.normalisation import RGB
from cdpipe.workspace.location import Location


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Weights that an encoder starts from.

    The library's own (``imagenet`` and others) were trained on standardised red, green and blue.

    Attributes:
        name: What they are called, by the library, by torchgeo, or as a file.
        bands: Of the first kernel, in order, with mean and deviation in what the weights were trained on.
        other_bands: What a model's band starts from that is not among them: ``refuse``, ``mean`` or ``zeros``.
        published: Where they lie on the Hugging Face hub, and whose they are; None for the library's and other files.
        file: The file that was given; None where it is to be fetched.
        sha256: Of the file, or how it begins; empty where that is not known beforehand.
        together: Whether the model's bands share one mean and deviation, see :func:`cdpipe.models.encoders.adapt`.
    """

    name: str
    bands: tuple[Band, ...] = tuple((band, 0.0, 1.0) for band in RGB)
    other_bands: str = "refuse"
    published: Published | None = None
    file: Location | None = None
    sha256: str = ""
    together: bool = False

    @property
    def of_library(self) -> bool:
        """Whether segmentation-models-pytorch knows them by their name."""
        return self.published is None and self.file is None

    @property
    def option(self) -> str | dict[str, Any]:
        """All that bears on what becomes of them, as it stands among a network's options: never where a file lies."""
        values: dict[str, Any] = {"name": self.name}
        if self.file is not None and self.published is None:
            names, means, deviations = map(list, zip(*self.bands, strict=True))
            values = {"sha256": self.sha256, "bands": names, "mean": means, "std": deviations}
        if self.other_bands != "refuse":
            values["other_bands"] = self.other_bands
        return self.name if values == {"name": self.name} else values

    def describe(self, sha256: str | None) -> dict[str, Any]:
        """What a model's card says of the weights that its encoder started from, given the hash of their file."""
        names, means, deviations = map(list, zip(*self.bands, strict=True))
        figures = {"bands": names, "mean": means, "std": deviations, "other_bands": self.other_bands}
        return {"name": self.name, "sha256": sha256, **figures}

    def missing(self, bands: Sequence[str]) -> list[str]:
        """Those of a model's bands that the weights do not have."""
        known = {name for name, _, _ in self.bands}
        return [band for band in bands if band not in known]

    def check_bands(self, bands: Sequence[str]) -> None:
        """Refuse what is not to start from anything else.

        Raises:
            ValueError: Naming the bands that the weights do not have, and those that they have.
        """
        missing = self.missing(bands)
        if missing and (self.other_bands == "refuse" or len(missing) == len(bands)):
            known = ", ".join(name for name, _, _ in self.bands if name)
            source = f"file: {self.file}" if self.file else f"name: {self.name}"
            raise ValueError(
                f"encoder_weights: {self.name} has no {', '.join(missing)}; it has {known}. Leave out what it has not, "
                f"or say what that starts from: encoder_weights: {{{source}, other_bands: mean}}, which is that of the "
                "other bands' kernels, or zeros"
            )


def named_weights(name: str, other_bands: str = "refuse") -> Pretrained:
    """Weights by their name.

    Raises:
        ValueError: If torchgeo's list, which the name speaks of, does not have it.
    """
    if not name.startswith(TORCHGEO):
        return Pretrained(name, other_bands=other_bands)  # whether the library has it depends on the encoder
    published = PUBLISHED.get(name.removeprefix(TORCHGEO))
    if published is None:
        close = get_close_matches(name.removeprefix(TORCHGEO), PUBLISHED, cutoff=0.4) or list(PUBLISHED)
        raise ValueError(f"encoder_weights: there is no {name}; did you mean {TORCHGEO}{f', {TORCHGEO}'.join(close)}?")
    return Pretrained(name, published.bands, other_bands, published, sha256=published.sha256)


def find_weights(given: EncoderWeights) -> Pretrained:
    """The weights that a configuration means; a file is hashed, and known by that if torchgeo lists it.

    Raises:
        ValueError: If there are none of that name, or the file's bands are not known.
        InputError: If there is no such file.
    """
    if given.file is None:
        return named_weights(str(given.name), given.other_bands)
    try:
        digest = given.file.sha256()
    except OSError as error:
        raise InputError(f"encoder_weights: expected a file of weights at {given.file}: {error}") from None
    if given.bands is None:
        for name, published in PUBLISHED.items():
            if published.sha256 and digest.startswith(published.sha256):
                return Pretrained(TORCHGEO + name, published.bands, given.other_bands, published, given.file, digest)
        raise ValueError(
            f"encoder_weights: {given.file} is none of the files that torchgeo lists, by its SHA-256; say which bands "
            f"its first kernel takes, in order: {{file: {given.file.name}, bands: [...]}}, and their mean and std, if "
            "they were not standardised"
        )
    means, deviations = given.mean or (0.0,) * len(given.bands), given.std or (1.0,) * len(given.bands)
    bands = tuple(zip(given.bands, means, deviations, strict=True))
    return Pretrained(given.file.name, bands, given.other_bands, None, given.file, digest)
