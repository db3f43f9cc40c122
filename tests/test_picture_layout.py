"""Panels and legend have room of their own, whatever the scene's shape."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cdpipe.report.pictures import CAPTION, LEGEND_WIDTH, MARGIN, MAX_HEIGHT, MAX_WIDTH, arrange_panels

Box = tuple[int, int, int, int]  # top, left, bottom, right


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@settings(max_examples=300)
@given(st.integers(1, 1024), st.integers(1, 1024), st.sampled_from([4, 5]), st.integers(100, 320))
def test_nothing_overlaps_or_is_cut_off(height: int, width: int, panels: int, legend_height: int) -> None:
    layout = arrange_panels((height, width), panels, legend_height)
    boxes = [(top - CAPTION, left, top + layout.image[0], left + layout.image[1]) for top, left in layout.panels]
    legend = (
        *layout.legend,
        layout.legend[0] + legend_height,
        layout.legend[1] + LEGEND_WIDTH,
    )
    everything: list[Box] = [*boxes, legend]
    assert len(boxes) == panels
    for index, box in enumerate(everything):
        assert min(box[:2]) >= MARGIN
        assert box[2] + MARGIN <= layout.size[0]
        assert box[3] + MARGIN <= layout.size[1]
        assert not any(overlap(box, other) for other in everything[index + 1 :])


@given(st.integers(100, 1024), st.integers(100, 1024), st.sampled_from([4, 5]))
def test_pixels_stay_square(height: int, width: int, panels: int) -> None:
    image = arrange_panels((height, width), panels, 250).image
    scale = image[0] / height, image[1] / width
    assert abs(scale[0] - scale[1]) <= 1 / min(height, width)


@given(st.floats(0.25, 4), st.sampled_from([4, 5]))
def test_usual_scenes_fill_the_sheet(aspect: float, panels: int) -> None:
    layout = arrange_panels((round(500 * aspect), 500), panels, 250)
    assert layout.size[0] <= MAX_HEIGHT
    assert layout.size[1] <= MAX_WIDTH
    # One side is used up, and at least two fifths of the sheet is image.
    assert layout.size[0] >= MAX_HEIGHT - 10 or layout.size[1] >= MAX_WIDTH - 10
    assert panels * layout.image[0] * layout.image[1] >= 0.4 * layout.size[0] * layout.size[1]
