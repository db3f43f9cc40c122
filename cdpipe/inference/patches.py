"""From a network to probabilities of a window: patches in fixed batches, test-time augmentation, blending."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import CdpipeError
from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid, reflect_indices
from cdpipe.inference.shared import Origin, SharedPatches
from cdpipe.timing import counted, timed

# Pixels of a call on a CPU, by precision: eight views of 256² at once took UNet++ 3 GB in float32, two take 1.4 GB and
# are no slower; in bfloat16 eight take 1.5 GB, and two are a tenth slower.
PIXELS_AT_ONCE = {"float32": 2**17, "bfloat16": 2**19}

# scene row and column of a patch's origin, and its (patch, patch) values
Placed = tuple[int, int, NDArray[np.float32]]
# patches (batch, channel, patch, patch) in, probabilities (batch, patch, patch) out, both float32
Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def blend_weights(patch: int, stride: int) -> NDArray[np.float32]:
    """Separable weights: 1 in the middle, a linear ramp across the overlap with the next patch.

    Symmetric and above 0 everywhere; all ones without overlap. Ramps of neighbouring patches add up to 1
    where two patches overlap.

    Args:
        patch: Side of a patch in pixels.
        stride: Distance between patches in pixels.

    Returns:
        (patch, patch) float32 in 0 to 1.
    """
    overlap = patch - stride
    if overlap == 0:
        return np.ones((patch, patch), np.float32)
    edge = np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    ramp = np.minimum(edge / overlap, 1).astype(np.float32)
    return np.asarray(ramp[:, None] * ramp[None, :], np.float32)


def lay(patches: Iterable[Placed], window: Window) -> NDArray[np.float32]:
    """Patches that do not overlap, side by side: the bits of :func:`blend` without its two sums.

    Args:
        patches: See :func:`blend`.
        window: The pixels wanted.

    Returns:
        (height, width) of the window; NaN where no patch lies.
    """
    result = np.full(window.shape, np.nan, np.float32)
    for row, col, values in patches:
        place = Window(row, col, *values.shape)
        common = place.intersect(window)
        if common is not None:
            # a sum turns -0 into 0
            np.add(values[common.slices_in(place)], np.float32(0), out=result[common.slices_in(window)])
    return result


def blend(patches: Iterable[Placed], weights: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Weighted mean of overlapping patches over a window; weights fall off towards a patch's edges.

    Each pixel adds up its patches in the order given, so that equal patches in equal order give equal
    bits whatever the window.

    Args:
        patches: Scene row and column of each patch's origin, and its (patch, patch) values.
        weights: (patch, patch), see :func:`blend_weights`.
        window: The pixels wanted.

    Returns:
        (height, width) of the window; NaN where no patch lies.
    """
    total = np.zeros(window.shape, np.float32)
    weight = np.zeros(window.shape, np.float32)
    for row, col, values in patches:
        place = Window(row, col, *values.shape)
        common = place.intersect(window)
        if common is None:
            continue
        here, there = common.slices_in(window), common.slices_in(place)
        total[here] += values[there] * weights[there]
        weight[here] += weights[there]
    with np.errstate(invalid="ignore"):
        return np.divide(total, weight, out=total)


@dataclass(frozen=True, slots=True)
class Execution:
    """How a network is run; all of it bears on the last bits of the result.

    Attributes:
        tta: ``d4`` (mean of the eight flips and rotations) or ``none``.
        precision: ``float32``, ``bfloat16`` or, of OpenVINO alone, ``int8``.
        device: ``cpu`` or ``cuda``.
        batch: Patches given to the network at once, each with all its views.
        backend: ``torch`` or ``openvino``.
    """

    tta: str
    precision: str
    device: str
    batch: int
    backend: str = "torch"

    @property
    def channels_last(self) -> bool:
        """Whether weights, and with them activations, lie channel by channel of a pixel.

        So convolutions of a GPU, and torch's bfloat16 ones on a CPU, are faster; in float32 on a CPU it gains little
        and has other bits.
        """
        return self.backend == "torch" and (self.precision == "bfloat16" or self.device.startswith("cuda"))

    @property
    def views(self) -> int:
        """How many views a batch has."""
        return self.batch * (8 if self.tta == "d4" else 1)

    def views_at_once(self, patch: int) -> int:
        """How many of them torch is given in a call: on a CPU no more than there is memory to spare for."""
        if self.backend != "torch" or self.device != "cpu":
            return self.views
        return min(self.views, max(1, PIXELS_AT_ONCE[self.precision] // patch**2))


def predict_window(
    forward: Forward,
    batch: int,
    scene: NDArray[np.float32],
    observed: NDArray[np.bool_],
    place: "Placement",
    shared: SharedPatches | None = None,
) -> NDArray[np.float32]:
    """Probabilities of a window of a scene.

    Args:
        forward: See :func:`cdpipe.inference.torch.make_forward`.
        batch: Patches a call; the last call is filled up with zeros, since another batch size gives other bits.
        scene: (channel, height, width) of the model's input on ``place.halo``.
        observed: (height, width) on ``place.halo``.
        place: Where the window lies and which patches make it up.
        shared: Patches of this model and pair that other windows are made of, too; the same bits come out.

    Returns:
        (height, width) float32 in 0..1; NaN where not observed.

    Raises:
        CdpipeError: If the network's output is not a number where it should be; stored, it would mean "not observed".
    """
    inside = observed[place.window.slices_in(place.halo)]
    if not inside.any():
        return np.full(place.window.shape, np.nan, np.float32)
    patches = _predicted_patches(forward, batch, scene, observed, place, shared)
    patch, stride = place.patch_grid.patch, place.patch_grid.stride
    if stride == patch:
        probability = lay(patches, place.window)
    else:
        probability = blend(patches, blend_weights(patch, stride), place.window)
    unknown = np.isnan(probability)
    failed = int(np.count_nonzero(unknown & inside)) if unknown.any() else 0
    if failed:
        raise CdpipeError(
            f"the network gives no number for {failed} observed pixel(s): it did not train well, or its numbers "
            "leave the range of its precision; train it again, or set predict.precision: float32"
        )
    if not inside.all():
        np.copyto(probability, np.float32(np.nan), where=~inside)
    return probability


@dataclass(frozen=True, slots=True)
class Placement:
    """A window of a scene and the patch grid that covers it."""

    patch_grid: PatchGrid
    window: Window

    @property
    def halo(self) -> Window:
        """What must be read to predict the window."""
        return self.patch_grid.halo(self.window)


def _predicted_patches(
    forward: Forward,
    batch: int,
    scene: NDArray[np.float32],
    observed: NDArray[np.bool_],
    place: Placement,
    shared: SharedPatches | None,
) -> Iterator[Placed]:
    """Each patch that bears on an observed pixel of the window, with its probabilities, in grid order."""
    patch, halo = place.patch_grid.patch, place.halo
    origins = [origin for origin in place.patch_grid.touching(place.window) if _matters(origin, observed, place, halo)]

    def run(group: Sequence[Origin]) -> NDArray[np.float32]:
        stack = np.zeros((batch, len(scene), patch, patch), np.float32)
        for index, origin in enumerate(group):
            stack[index] = _cut(scene, origin, place)
        return forward(stack)

    if shared is not None:
        for (row, col), values in zip(origins, shared.obtain(origins, batch, run), strict=True):
            yield row, col, values
        return
    for first in range(0, len(origins), batch):
        group = origins[first : first + batch]
        with timed("model"):
            probabilities = run(group)
        counted("patches_run", len(group))
        for (row, col), values in zip(group, probabilities, strict=False):
            yield row, col, values


def _cut(scene: NDArray[np.float32], origin: Origin, place: Placement) -> NDArray[np.float32]:
    """A patch of a scene that is given on the halo, mirrored where it hangs over the scene's edge."""
    (row, col), patch, halo = origin, place.patch_grid.patch, place.halo
    height, width = place.patch_grid.shape
    if row + patch <= height and col + patch <= width:
        return scene[:, *Window(row, col, patch, patch).slices_in(halo)]
    rows = reflect_indices(row, patch, height) - halo.row
    cols = reflect_indices(col, patch, width) - halo.col
    return scene[:, rows[:, None], cols]


def _matters(origin: Origin, observed: NDArray[np.bool_], place: Placement, halo: Window) -> bool:
    common = Window(*origin, place.patch_grid.patch, place.patch_grid.patch).intersect(place.window)
    return common is not None and bool(observed[common.slices_in(halo)].any())
