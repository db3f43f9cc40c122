"""Colours of maps and pictures: red, green, blue, each 0 to 255."""

Rgb = tuple[int, int, int]
Rgba = tuple[int, int, int, int]  # and opacity

UNCHANGED: Rgb = (222, 222, 222)
CHANGED: Rgb = (215, 25, 28)
LABELLED: Rgb = (0, 84, 166)

# Found by search: with full colour vision as with none of one cone (protan, deutan, tritan as simulated by
# Machado et al. 2009), the four differ from each other and from the pale map by 40 or more in CIELAB.
HIT: Rgb = (5, 119, 63)
MISS: Rgb = (251, 158, 34)
FALSE_ALARM: Rgb = (119, 15, 148)
UNLABELLED: Rgb = (15, 16, 19)

FIRST_RUN: Rgb = (33, 102, 172)
SECOND_RUN: Rgb = (230, 97, 1)

NO_DATA: Rgb = (236, 236, 236)
NO_DATA_STRIPE: Rgb = (188, 188, 188)
TRANSPARENT: Rgba = (0, 0, 0, 0)


def opaque(color: Rgb) -> Rgba:
    """A colour that nothing shows through."""
    return (*color, 255)
