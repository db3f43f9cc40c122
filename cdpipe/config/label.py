"""The section ``label``: what the values and colours of label rasters mean, and which polygons are change."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, model_validator

from cdpipe.config.section import Positive, Section


def _label_value(value: Any) -> int | str:
    """A number, or a colour in lower case."""
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        return value.lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    if isinstance(value, str) and re.fullmatch("-?[0-9]+", value):
        return int(value)
    raise ValueError('Input should be a whole number, or a colour in quotes, as "#ff0000"')


LabelValue = Annotated[int | str, PlainValidator(_label_value)]


class Label(Section):
    """Meaning of a label: of a raster's values, of which one in none of the lists is a mistake, or of polygons.

    A value is a number, or a colour as ``"#ff0000"``, in quotes. In rasters of red, green and blue, equal ones are a
    number. An index into a table of colours is a number too, unless the lists name a colour: then the table's colour
    counts.
    """

    changed: tuple[LabelValue, ...] = (1,)
    """Values of what changed."""
    unchanged: tuple[LabelValue, ...] = (0,)
    """Values of what did not."""
    ignore: tuple[LabelValue, ...] = ()
    """Values that count for nothing."""
    band: Positive | None = None
    """Of rasters with several bands that are no colours, the number of the one that counts."""
    mask: Literal["file", "ignore"] = "file"
    """Whether pixels that a file's own alpha band or mask marks as transparent have no label (``file``), or alpha
    bands and masks are left aside (``ignore``)."""
    layer: str | None = None
    """Of a vector file that has several."""
    where: str | None = Field(default=None, min_length=1)
    """Which polygons are change, as a condition on their attributes in SQL, such as ``status = 'changed'``; by
    default all are."""
    ignore_where: str | None = Field(default=None, min_length=1)
    """Likewise, which are to be ignored."""
    covers: bool = False
    """Layers cover their scenes even where no polygon lies near, so that nothing changed there."""

    @property
    def lists(self) -> dict[str, tuple[LabelValue, ...]]:
        """The lists of values: changed, unchanged, ignore."""
        return {"changed": self.changed, "unchanged": self.unchanged, "ignore": self.ignore}

    @model_validator(mode="after")
    def _check(self) -> "Label":
        values = [value for listed in self.lists.values() for value in {as_number(value) for value in listed}]
        if len(set(values)) != len(values):
            raise ValueError("a value may stand in one of changed, unchanged, ignore only")
        return self


def colour_bands(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour written as ``#ff0000``."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def as_number(value: LabelValue) -> LabelValue:
    """The number of a grey that is written as a colour; anything else as it is."""
    if isinstance(value, int) or len(set(colour_bands(value))) > 1:
        return value
    return colour_bands(value)[0]
