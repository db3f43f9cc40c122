"""How far pairs' dates lie off, as the check measures it, remembered by what it was measured from.

It is nearly all of what checking a pair takes, and every verb that begins with the check would measure it again.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from cdpipe.config.schema import Config
from cdpipe.errors import InputError
from cdpipe.geo.grid import Grid
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.coregistration import MeasureShift, Shift, estimate_shift
from cdpipe.pairs.plan import shift_key
from cdpipe.workspace.files import read_sealed, write_sealed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

Measured = tuple[Pair, Grid, Shift | None]


def recall_shifts(workspace: Workspace, hashes: Mapping[Location, str], measured: list[Measured]) -> MeasureShift:
    """What to measure shifts with: those that are remembered of the same files are not measured again.

    Args:
        workspace: Where they are remembered.
        hashes: SHA-256 of the pairs' files, as far as they are known.
        measured: Gets what had to be measured.
    """
    remembered = _remembered(workspace)

    def measure(pair: Pair, grid: Grid, config: Config) -> Shift | None:
        with contextlib.suppress(InputError):  # files that were not hashed yet
            key = shift_key(pair, grid, config, hashes)
            if key in remembered:
                found = remembered[key]
                return None if found is None else Shift(**found)
        shift = estimate_shift(pair, grid, config)
        measured.append((pair, grid, shift))
        return shift

    return measure


def remember_shifts(
    workspace: Workspace,
    config: Config,
    measured: Iterable[Measured],
    hashes: Mapping[Location, str],
) -> None:
    """Write down what was measured; only for the holder of the workspace's lock.

    Args:
        workspace: Where to.
        config: The configuration.
        measured: What was measured, see :func:`recall_shifts`.
        hashes: SHA-256 of the files as they were then; pairs of which one is not known are left out.
    """
    remembered = _remembered(workspace)
    fresh: dict[str, dict[str, Any] | None] = {}
    for pair, grid, shift in measured:
        try:
            key = shift_key(pair, grid, config, hashes)
        except InputError:
            continue
        if key not in remembered:
            fresh[key] = None if shift is None else asdict(shift)
    if fresh:
        write_sealed(workspace.shifts, remembered | fresh)


def _remembered(workspace: Workspace) -> dict[str, dict[str, Any] | None]:
    found = read_sealed(workspace.shifts)
    return {} if found is None else found
