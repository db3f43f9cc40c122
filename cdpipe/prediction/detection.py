"""One block through a detector, which needs no training: it finds out from the pair itself what to look for."""

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.detect import HALO, change_probability, compared
from cdpipe.detectors.stored import find_fit
from cdpipe.geo.grid import BlockKey
from cdpipe.geo.tilings import grow
from cdpipe.prediction.block import Member, store_probability
from cdpipe.store.pair import StoredPair, read_dates, read_observed
from cdpipe.timing import timed
from cdpipe.workspace.layout import Workspace


def detect_block(workspace: Workspace, pair: StoredPair, key: BlockKey, member: Member) -> NDArray[np.float32]:
    """Compute and store one block of one detector's probability.

    Args:
        workspace: Where the pair lies and the result goes.
        pair: The pair.
        key: The block.
        member: The detector.

    Returns:
        What was stored: (height, width), NaN where not observed.

    Raises:
        InputError: If there is nothing to compare in the pair.
    """
    fit, window = find_fit(workspace, pair, member.card.architecture, pair.roles), pair.window(key)
    halo = grow(window, HALO, pair.grid.shape)
    inner = window.slices_in(halo)
    with timed("read"):
        observed = read_observed(workspace, pair, halo)
        dates = read_dates(workspace, pair, halo) if observed[inner].any() else None
    if dates is None:
        probability = np.full(window.shape, np.nan, np.float32)
    else:
        with timed("compute"):
            probability = change_probability(fit, *compared(fit, dates, pair.roles), observed)[inner]
    store_probability(workspace, pair, key, member, probability)
    return probability
