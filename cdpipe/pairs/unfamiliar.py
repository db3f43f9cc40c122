"""Scenes unlike those that given models learned from, told before anything is computed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config
from cdpipe.geo.grid import Grid
from cdpipe.geo.tilings import spread_tiles
from cdpipe.models.familiarity import SceneFacts, doubt_scene, pixel_side
from cdpipe.models.folder import ModelCard
from cdpipe.pairs.catalog import Pair
from cdpipe.pairs.imagery import read_dates
from cdpipe.store.histograms import SHARES, Quantiles

SIDE, PLACES = 128, 16  # pixels of a scene that are looked at


def doubt_models(pair: Pair, grid: Grid, cards: Sequence[ModelCard], config: Config) -> list[str]:
    """In which ways a pair is unlike all that models learned from; of models that do not say what, nothing.

    Args:
        pair: The pair.
        grid: Its grid.
        cards: The models'.
        config: Its sections ``input`` and ``align``.

    Raises:
        InputError: If a raster cannot be read.
    """
    known = [card for card in cards if card.learned]
    if not known:
        return []
    scene = _sample_facts(pair, grid, config)
    return [doubt for card in known for doubt in doubt_scene(card.name, card.learned, scene)]


def _sample_facts(pair: Pair, grid: Grid, config: Config) -> SceneFacts:
    """What is measured of some windows of a pair, spread over it."""
    values: dict[str, list[list[NDArray[np.float64]]]] = {role: [[], []] for role in pair.roles}
    for window in spread_tiles(grid.shape, SIDE, PLACES):
        dates = read_dates(pair, grid, window, config)
        both = dates[0][1] & dates[1][1]
        for number, ((pixels, _), (source, _)) in enumerate(zip(dates, pair.dates, strict=True)):
            for role, band in zip(pair.roles, pixels, strict=True):
                of_band = band[both].astype(np.float64) * source.sensor.scale + source.sensor.offset
                values[role][number].append(of_band)
    found = {role: [np.concatenate(parts) for parts in dates] for role, dates in values.items()}
    levels = {role: tuple(_levels(date) for date in dates if date.size) for role, dates in found.items()}
    return SceneFacts(pixel_side(grid), levels)


def _levels(values: NDArray[np.float64]) -> Quantiles:
    return tuple(np.quantile(values, SHARES).tolist())
