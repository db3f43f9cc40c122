"""Test-time augmentation: the eight views of a patch and their mean, of NumPy's arrays and torch's tensors alike."""

import sys
from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=Any)  # numpy.ndarray or torch.Tensor


def d4_views(x: Array) -> Array:
    """The eight views of each square patch under the dihedral group D4, for test-time augmentation.

    Args:
        x: (N, C, S, S).

    Returns:
        (8 N, C, S, S). The views of patch n are rows 8 n to 8 n + 7: turned by 0, 90, 180 and 270 degrees
        counter-clockwise, then the same of the patch mirrored left to right.

    Raises:
        ValueError: If ``x`` is not a batch of square patches.
    """
    _check_square(x)
    of = _library(x)
    views: Array = of.stack([_view(of, x, index) for index in range(8)], 1).reshape(-1, *x.shape[1:])
    return views


def d4_mean(y: Array) -> Array:
    """Turn the eight views of each patch back and average them.

    The sum is taken view by view in the order of ``d4_views``, at least in float32: the same values give the
    same bits, whatever the number of patches.

    Args:
        y: (8 N, C, S, S), floating point, in the order of ``d4_views``.

    Returns:
        (N, C, S, S) in float32, or float64 if ``y`` is.

    Raises:
        ValueError: If ``y`` is not a batch of square patches, eight views each.
    """
    _check_square(y)
    if len(y) % 8:
        raise ValueError(f"expected eight views of each patch, got {len(y)} in all")
    of = _library(y)
    wide = of.asarray(y, dtype=of.promote_types(y.dtype, of.float32))
    views = wide.reshape(-1, 8, *y.shape[1:])
    total = _undo_view(of, views[:, 0], 0)
    for index in range(1, 8):
        total = total + _undo_view(of, views[:, index], index)
    mean: Array = total / 8
    return mean


def _library(x: Any) -> Any:
    """Whose array it is: the functions that are needed here have the same names and arguments in both."""
    return np if isinstance(x, np.ndarray) else sys.modules["torch"]


def _view(of: Any, x: Any, index: int) -> Any:
    mirrored = of.flip(x, (-1,)) if index >= 4 else x
    return of.rot90(mirrored, index % 4, (-2, -1))


def _undo_view(of: Any, y: Any, index: int) -> Any:
    turned_back = of.rot90(y, -(index % 4), (-2, -1))
    return of.flip(turned_back, (-1,)) if index >= 4 else turned_back


def _check_square(x: Any) -> None:
    if x.ndim != 4 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"expected square patches (N, C, S, S), got {tuple(x.shape)}")
