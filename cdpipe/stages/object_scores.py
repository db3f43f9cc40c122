"""Objects of change that were found, missed or made up: connected components across blocks, against the label."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import Window
from cdpipe.metrics.counts import Sums
from cdpipe.objects.components import Components, sum_by_component

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ObjectCounts(Sums):
    """Objects of a layer; counts of different pairs add up with ``+``.

    Attributes:
        labelled: Objects of the label, as far as they were observed.
        hit: Those of them with a pixel that was predicted to have changed.
        predicted: Predicted objects.
        false: Those of them all of whose pixels are labelled unchanged; one that reaches into ignored pixels is not
            judged.
    """

    labelled: int = 0
    hit: int = 0
    predicted: int = 0
    false: int = 0


class ObjectTally:
    """Counts objects of a label and of the layers that are compared with it; blocks must come row by row."""

    def __init__(self, width: int) -> None:
        """Begin a scene of so many columns."""
        self._width = width
        self._label = Components(width)
        self._layers: dict[str, Components] = {}
        # by layer, for each number of a component: pixels of a labelled object that are hit, and pixels of a
        # predicted one that are not labelled unchanged
        self._hits: dict[str, list[NDArray[np.int64]]] = {}
        self._excused: dict[str, list[NDArray[np.int64]]] = {}

    def add(self, window: Window, label: NDArray[np.uint8], observed: Mask, layers: Mapping[str, Mask]) -> None:
        """Count a block: its label (0, 1, 255), what was observed, and where each layer sees change."""
        true = self._label.add(window, (label == 1) & observed)
        for name, said in layers.items():
            self._hits.setdefault(name, []).append(_count(true, said))
            predicted = self._layers.setdefault(name, Components(self._width)).add(window, said)
            self._excused.setdefault(name, []).append(_count(predicted, label != 0))

    def counts(self) -> dict[str, ObjectCounts]:
        """Counts of every layer."""
        roots = self._label.roots()
        found = {}
        for name, components in self._layers.items():
            hits = sum_by_component(roots, _joined(self._hits[name]))
            excused = sum_by_component(components.roots(), _joined(self._excused[name]))
            found[name] = ObjectCounts(len(hits), int((hits > 0).sum()), len(excused), int((excused == 0).sum()))
        return found


def _count(ids: NDArray[np.int64], mask: Mask) -> NDArray[np.int64]:
    """Pixels of the mask in each component of a block, by its number from the block's first one on."""
    inside = ids > 0
    if not inside.any():
        return np.zeros(0, np.int64)
    first = int(ids[inside].min())
    chosen = ids[inside & mask] - first
    return np.bincount(chosen, minlength=int(ids.max()) - first + 1).astype(np.int64)


def _joined(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), *parts])  # number 0 is outside
