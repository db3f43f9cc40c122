"""Sections of the configuration: how results are judged, audited and made into objects."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cdpipe.values.section import Section


class Evaluate(Section):
    """How results are judged: borders may be off by ``tolerance`` pixels in the figures that forgive that."""

    tolerance: Annotated[int, Field(ge=0, le=64)] = 2


class Audit(Section):
    """How a run is audited without labels: models are run again on at most ``patches`` patches of each pair."""

    patches: Annotated[int, Field(ge=0)] = 16


class Vectors(Section):
    """How change becomes objects, polygons in ``vectors/``; ``format: none`` leaves them out.

    Lengths are metres on the ground, whatever the coordinate reference system; without one a pixel counts as a metre.
    ``crs`` is that of the layer of the whole run: ``auto`` is the pairs' own where they share it, else EPSG:4326.
    """

    format: Literal["gpkg", "geoparquet", "geojson", "none"] = "gpkg"
    min_area_m2: float = Field(default=0, ge=0)
    opening_m: float = Field(default=0, ge=0)
    closing_m: float = Field(default=0, ge=0)
    simplify_m: float = Field(default=0, ge=0)
    crs: str = "auto"

    @field_validator("crs")
    @classmethod
    def _check(cls, crs: str) -> str:
        if not re.fullmatch("auto|EPSG:[0-9]+", crs):
            raise ValueError("Input should be auto or an EPSG code such as EPSG:32633")
        return crs
