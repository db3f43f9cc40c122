"""Counts that add up field by field: over blocks, windows and pairs, in any order."""

from dataclasses import fields
from typing import Any, Self


class Sums:
    """A base for data classes all of whose fields add up, and so do they."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        """The sum of every field."""
        names: tuple[Any, ...] = fields(self)  # type: ignore[arg-type]  # whoever inherits is a data class
        return type(self)(*(getattr(self, each.name) + getattr(other, each.name) for each in names))
