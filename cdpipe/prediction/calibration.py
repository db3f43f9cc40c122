"""What an int8 network is calibrated on: windows of training pairs, the same ones wherever it is built."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.keys import content_key
from cdpipe.store.normalisation import Recipe
from cdpipe.store.pair import LabelledPair
from cdpipe.workspace.layout import Workspace

WINDOWS = 32
CHANGED_SHARE = 0.5  # windows without change decide what counts as none, those with it how far activations reach


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pairs that windows are drawn from, in any order.

    Attributes:
        workspace: Where they lie.
        pairs: The pairs, with labels.
    """

    workspace: Workspace
    pairs: tuple[LabelledPair, ...]

    @property
    def key(self) -> str:
        """Hash of everything that decides which pixels the windows hold."""
        pairs = sorted(item.key for item in self.pairs)
        return content_key("calibration", {"pairs": pairs, "windows": WINDOWS, "changed": CHANGED_SHARE})

    def windows(self, recipe: Recipe, patch: int) -> Iterator[NDArray[np.float32]]:
        """Draw the windows as training does, half of them where there is change.

        Args:
            recipe: What the network eats.
            patch: Side of a window in pixels.

        Yields:
            (1, channel, patch, patch), :data:`WINDOWS` times.

        Raises:
            InputError: If no pixel of the pairs is both labelled and observed.
        """
        from cdpipe.training.samples import Sampler, draw_sample, index_cells  # which takes long to import

        pairs = tuple(sorted(self.pairs, key=lambda item: item.key))
        pools = index_cells(self.workspace, pairs)
        if not pools[0].size:
            raise InputError(
                "predict.precision: int8 is calibrated on training pairs, none of which has a labelled pixel"
            )
        sampler = Sampler(self.workspace, pairs, pools, patch, CHANGED_SHARE, recipe, seed=0)
        for index in range(WINDOWS):
            yield draw_sample(sampler, 0, index)[0][None]
