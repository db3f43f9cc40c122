"""pyogrio, imported on first use: it imports pandas wherever that is installed, which takes a second for nothing."""

import functools
from typing import Any


@functools.cache
def ogr() -> Any:
    """The library, with its module ``raw``."""
    import pyogrio.raw

    return pyogrio


def ogr_errors() -> tuple[type[Exception], ...]:
    """What it raises where a file, a layer or a feature cannot be read or written."""
    from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

    return DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError
