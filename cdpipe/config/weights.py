"""What the configuration says of the weights that an encoder starts from."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cdpipe.config.place import Place
from cdpipe.config.section import Section

TORCHGEO = "torchgeo:"  # how names begin of weights that torchgeo lists
FILE = re.compile(r"[/\\]|\.(pth|pt|th|ckpt|tar|bin|safetensors)$")  # what is a path, and no name


class EncoderWeights(Section):
    """Weights that an encoder starts from; a name alone is short for ``{name: NAME}``, a path for ``{file: PATH}``."""

    name: str | None = Field(default=None, min_length=1)
    """The library's, such as ``imagenet``, or one of torchgeo's, such as
    ``torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO``."""
    file: Place | None = None
    """Of ``torch.save`` or safetensors; torchgeo's are known by their hash."""
    bands: tuple[str | None, ...] | None = Field(default=None, min_length=1)
    """Of another file: those of its first kernel in order (null: not to be used)."""
    mean: tuple[float, ...] | None = None
    """Of each of them in what the weights were trained on; by default 0."""
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Likewise the standard deviation; by default 1, standardised."""
    other_bands: Literal["refuse", "mean", "zeros"] = "refuse"
    """Bands of the model that the weights do not have are refused, start from the mean of the other bands' kernels
    (``mean``), or from nothing (``zeros``)."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return {"file" if FILE.search(value) and not value.startswith(TORCHGEO) else "name": value}

    @model_validator(mode="after")
    def _check(self) -> "EncoderWeights":
        if (self.name is None) == (self.file is None):
            raise ValueError("expected name or file, one of the two")
        own = [key for key in ("bands", "mean", "std") if getattr(self, key) is not None]
        if self.name is not None and own:
            raise ValueError(f"{', '.join(own)}: are known of {self.name}; they are for a file")
        if self.bands is None and own:
            raise ValueError(f"{', '.join(own)}: of which bands? give bands, those of the first kernel in order")
        named = [band for band in self.bands or () if band is not None]
        if len(set(named)) < len(named) or (self.bands is not None and not named):
            raise ValueError(f"bands: expected each band once, and at least one, got {list(self.bands or ())}")
        for key in ("mean", "std"):
            given = getattr(self, key)
            if given is not None and len(given) != len(self.bands or ()):
                raise ValueError(f"{key}: expected one number for each of the bands, got {len(given)}")
        return self

    @property
    def option(self) -> str | dict[str, Any]:
        """What of it bears on a network, as options of networks hold it; of a file all but where it lies."""
        values = self.model_dump(mode="json", exclude={"file"}, exclude_defaults=True)
        return str(self.name) if values == {"name": self.name} else values
