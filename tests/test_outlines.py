"""Outlines of components: valid polygons, those of GDAL, however the scene was cut when their corners were found."""

import cv2
import numpy as np
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cdpipe.objects.outlines import densify, find_corners, trace_rings

Numbers = NDArray[np.int64]


@st.composite
def masks(draw: st.DrawFn, longest: int = 24) -> NDArray[np.uint8]:
    """Noise of any density: components that touch themselves and each other at points, holes within holes."""
    shape = draw(st.tuples(st.integers(1, longest), st.integers(1, longest)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask: NDArray[np.uint8] = (random.random(shape) < draw(st.floats(0.05, 0.95))).astype(np.uint8)
    return mask


def label(mask: NDArray[np.uint8]) -> Numbers:
    """Components with a border of none."""
    _, labels = cv2.connectedComponents(mask, connectivity=4)
    return np.pad(np.asarray(labels, np.int64), 1)


def as_polygons(points: Numbers, ends: Numbers, owners: Numbers) -> NDArray[np.object_]:
    """Polygons of columns and rows, by component."""
    closed, ends = densify(points, ends, 1000)
    _, counts = np.unique(owners, return_counts=True)
    offsets = np.concatenate([[0], ends]), np.concatenate([[0], np.cumsum(counts)])
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, closed[:, ::-1].astype(float), offsets))


@given(masks())
def test_outlines_are_those_of_gdal_and_valid(mask: NDArray[np.uint8]) -> None:
    rings = trace_rings(*find_corners(label(mask), 0, 0))
    shapes = rasterio.features.shapes(mask, mask == 1, connectivity=4)
    expected = [shapely.geometry.shape(shape) for shape, _ in shapes]
    if not expected:
        assert not len(rings[0])
        return
    found = as_polygons(*rings)
    assert shapely.is_valid(found).all()
    assert {shapely.normalize(each).wkt for each in found} == {shapely.normalize(each).wkt for each in expected}


@given(masks())
def test_rings_start_at_their_first_vertex_and_keep_the_component_on_the_left(mask: NDArray[np.uint8]) -> None:
    points, ends, owners = trace_rings(*find_corners(label(mask), 0, 0))
    starts = [0, *ends[:-1]] if len(ends) else []
    seen = set()
    for start, end, owner in zip(starts, ends, owners, strict=True):
        ring = points[start:end]
        assert tuple(ring[0]) == min(map(tuple, ring))
        assert (_area(ring) > 0) == (owner not in seen)
        seen.add(owner)
    assert list(owners) == sorted(owners)


def _area(ring: Numbers) -> float:
    """Positive for what runs counter-clockwise on a screen, where rows count downwards."""
    following = np.roll(ring, -1, 0)
    return float((following[:, 1] * ring[:, 0] - ring[:, 1] * following[:, 0]).sum()) / 2


@given(masks(), st.integers(1, 9), st.randoms())
def test_corners_may_be_found_in_pieces_and_in_any_order(mask: NDArray[np.uint8], step: int, random: object) -> None:
    ids = label(mask)
    whole = trace_rings(*find_corners(ids, 0, 0))
    rows, cols = (range(0, length - 1, step) for length in ids.shape)
    found = [find_corners(ids[r : r + step + 1, c : c + step + 1], r, c) for r in rows for c in cols]
    random.shuffle(found)  # type: ignore[attr-defined]  # Hypothesis's own kind of random.Random
    pieces = trace_rings(*(np.concatenate(each) for each in zip(*found, strict=True)))
    assert all(np.array_equal(one, other) for one, other in zip(whole, pieces, strict=True))


def test_a_component_that_touches_itself_has_a_hole_that_touches_its_outline() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)
    [polygon] = as_polygons(*trace_rings(*find_corners(label(mask), 0, 0)))
    assert polygon.is_valid
    assert len(polygon.interiors) == 1
    assert polygon.area == 7


@given(masks(), st.integers(1, 5))
def test_denser_rings_have_no_longer_sides_and_the_same_shape(mask: NDArray[np.uint8], step: int) -> None:
    points, ends, owners = trace_rings(*find_corners(label(mask), 0, 0))
    if not len(ends):
        return
    dense, dense_ends = densify(points, ends, step)
    steps = np.abs(np.diff(dense, axis=0)).max(1)
    assert np.delete(steps, dense_ends[:-1] - 1).max() <= step
    plain, _ = densify(points, ends, 1000)
    assert set(map(tuple, plain)) <= set(map(tuple, dense))
    assert len(owners) == len(dense_ends)
    for start, end in zip([0, *dense_ends[:-1]], dense_ends, strict=True):
        assert tuple(dense[start]) == tuple(dense[end - 1])
