"""Corrections of pairs whose dates do not lie on each other, found once and remembered by content."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.local import read_json, write_json


@dataclass(frozen=True, slots=True)
class Correction:
    """What coregistration decided of a pair.

    Attributes:
        rows: Pixels of the pair's grid, down, that the second date is taken to lie off; 0 where it is left as it is.
        cols: Likewise to the right.
        reason: Why it is moved, or left, in words.
        windows: How many windows were compared.
        agreeing: Share of them that agree on a shift.
        spread: Median distance in pixels of single windows from that shift; NaN without windows.
    """

    rows: float
    cols: float
    reason: str
    windows: int
    agreeing: float
    spread: float

    @property
    def moved(self) -> bool:
        """Whether the second date is moved."""
        return (self.rows, self.cols) != (0.0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :func:`known_corrections` understands."""
        return asdict(self)


def known_corrections(workspace: Workspace) -> dict[str, Correction]:
    """The corrections that are known, by the keys of :func:`cdpipe.stages.pair_plan.coregistration_key`."""
    remembered = read_json(workspace.corrections)
    values = remembered.items() if isinstance(remembered, dict) else ()
    return {key: Correction(**value) for key, value in values}


def remember_corrections(workspace: Workspace, found: Mapping[str, Correction]) -> None:
    """Add to the corrections that are known."""
    known = {**known_corrections(workspace), **found}
    write_json(workspace.corrections, {key: each.to_json() for key, each in known.items()})
