"""Who answers where nobody names a model and there is nothing to train one on."""

from collections.abc import Callable, Collection

from cdpipe.config.detectors import SHIPPED, WITH_COLOURS, WITHOUT_LABELS, named_folder
from cdpipe.models.folder import read_card

PICTURE = (3, "uint8")  # bands, and the type of their values


def who_answers(roles: Collection[str]) -> tuple[str, ...]:
    """Names of what answers together on bands of these roles.

    The model that comes with cdpipe takes part where the bands are known to be those that it needs.
    """
    return WITH_COLOURS if set(read_card(named_folder(SHIPPED)).needed) <= set(roles) else WITHOUT_LABELS


def is_finer(least_m: float | None, pixel_m: float | None, bands: int, dtype: Callable[[], str]) -> bool:
    """Whether detectors are to keep out of a pair beside networks, since its pixels are too small for them.

    Args:
        least_m: From which side of a pixel on they take part, metres; None: always.
        pixel_m: The side of the pair's pixels, None where that is not known. Then 8-bit pictures in three colours count
            as fine: what lies nowhere and looks like a photograph mostly is one from the air.
        bands: How many the pair has.
        dtype: Tells the type of its values, where that matters.
    """
    if least_m is None:
        return False
    if pixel_m is None:
        return bands == PICTURE[0] and dtype() == PICTURE[1]
    return pixel_m < least_m
