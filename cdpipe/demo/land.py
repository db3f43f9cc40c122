"""The lasting part of a synthetic place: fields, tracks, river, forest, settlements and trees."""

from dataclasses import dataclass, replace

import numpy as np

from cdpipe.demo.things import (
    BRIGHT_CROPS,
    BRIGHTEST_CROP,
    DARK_CROPS,
    MEADOWS,
    PAVED,
    TAKEN,
    Outline,
    Point,
    Site,
    Thing,
    blob,
    claim,
    direction,
    fill,
    flats,
    ground,
    hall,
    house,
    random_point,
    rectangle,
    strip,
    tree,
    winding_line,
)

_SMALLEST_FIELD = 84.0
_SMALLEST_WITH_RIVER = 200
_FIELD_LEFT = 0.6
_LAND_PER_SETTLEMENT = 150_000
_LAND_PER_FOREST = 110_000


@dataclass(frozen=True)
class Land:
    """What stands at both dates, in painting order from the ground up."""

    nature: list[Thing]
    roads: list[Thing]
    buildings: list[Thing]
    trees: list[Thing]


def lay_out_land(site: Site) -> Land:
    """Lay out everything that lasts, and mark the ground it takes in `site.use`."""
    fields, tracks = _fields_and_tracks(site)
    river = _river(site) if site.size >= _SMALLEST_WITH_RIVER and site.rng.random() < 0.6 else []
    area = site.use.size
    settlements, forests = round(area / _LAND_PER_SETTLEMENT), max(1, round(area / _LAND_PER_FOREST))
    centres = _spread_points(site, settlements + forests)
    forest_things = [thing for centre in centres[settlements:] for thing in _forest(site, centre)]
    roads, buildings, gardens = list(tracks), [], []
    for number, centre in enumerate(centres[:settlements]):
        garden, streets, houses = (_estate if number % 2 else _village)(site, centre)
        gardens += garden
        roads += streets
        buildings += houses
    buildings += _lone_buildings(site, count=max(2, round(area / 70_000)))
    cover = forest_things + river + gardens
    return Land(_settle_fields(fields, cover, site.use.shape) + cover, roads, buildings, _trees(site, fields))


def _fields_and_tracks(site: Site) -> tuple[list[Thing], list[Thing]]:
    """Split the land along `site.angle` and across it; the first splits carry a road."""
    rows, columns = site.use.shape
    reach = float(np.hypot(rows, columns))
    fields: list[Thing] = []
    tracks: list[Thing] = []
    pending = [(-reach / 2, -reach / 2, reach / 2, reach / 2, 0)]
    while pending:
        left, top, right, bottom, depth = pending.pop()
        sides = np.array([right - left, bottom - top])
        axis = int(np.argmax(sides * site.rng.uniform(0.8, 1.25, 2)))
        share = site.rng.uniform(0.36, 0.64)
        if sides[axis] * min(share, 1 - share) < _SMALLEST_FIELD or (depth > 5 and site.rng.random() < 0.3):
            fields.append(_field(site, _turned(site, left, top, right, bottom), len(fields)))
            continue
        cut = (left, top)[axis] + share * sides[axis]
        if depth in (1, 2, 3):
            ends = ((cut, top), (cut, bottom)) if axis == 0 else ((left, cut), (right, cut))
            tracks.append(_track(site, np.array(ends), paved=depth == 1))
        first = (left, top, cut, bottom) if axis == 0 else (left, top, right, cut)
        second = (cut, top, right, bottom) if axis == 0 else (left, cut, right, bottom)
        pending += [(*first, depth + 1), (*second, depth + 1)]
    return fields, tracks


def _spread_points(site: Site, count: int) -> list[Point]:
    """Return points of the visible part, each the farthest of a few from those before it."""
    points = [random_point(site, 0.2 * site.size)]
    while len(points) < count:
        tries = [random_point(site, 0.08 * site.size) for _ in range(8)]
        points.append(max(tries, key=lambda point: min(np.hypot(*np.subtract(point, p)) for p in points)))
    return points


def _turned(site: Site, left: float, top: float, right: float, bottom: float) -> Outline:
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return _to_pixels(site, corners)


def _to_pixels(site: Site, points: Outline) -> Outline:
    """Turn points given along and across `site.angle`, from the middle of the map, into pixels."""
    rows, columns = site.use.shape
    axes = np.stack([direction(site.angle), direction(site.angle + np.pi / 2)])
    return np.asarray(points @ axes + np.array([columns / 2, rows / 2]))


def _field(site: Site, outline: Outline, number: int) -> Thing:
    """Return a field drawn a little inside its parcel; most are in another state at the second date."""
    rng = site.rng
    first, second = _crops(rng, number)
    centre = outline.mean(axis=0)
    inner = centre + (outline - centre) * (1 - 2.5 / np.abs(outline - centre).max(axis=0).clip(20))
    furrow = site.angle + rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.02)
    return Thing(inner + rng.normal(0, 2.0, inner.shape), (first, second), 0.0, rng.uniform(0.9, 1.1), furrow)


def _crops(rng: np.random.Generator, number: int) -> tuple[str, str]:
    """Return what grows on the `number`-th field in each season: of five, four turn bright or dark."""
    if number % 5 == 4 and rng.random() < 0.6:
        return str(rng.choice(MEADOWS)), str(rng.choice(MEADOWS))
    dark, bright = str(rng.choice(DARK_CROPS)), str(rng.choice(BRIGHT_CROPS))
    if number % 5 == 1:
        bright = BRIGHTEST_CROP
    if number % 5 == 4:
        return (dark, dark) if rng.random() < 0.5 else (bright, bright)
    return (dark, bright) if number % 2 else (bright, dark)


def _settle_fields(fields: list[Thing], cover: list[Thing], shape: tuple[int, ...]) -> list[Thing]:
    """Turn fields of which forest, water and gardens leave little into lasting meadows.

    The strips that are left of them would otherwise change with the crop, and look like new roads.
    """
    top = np.zeros(shape, np.int32)
    for number, field in enumerate(fields, start=1):
        fill(top, field.outline, number)
    whole = np.bincount(top.ravel(), minlength=len(fields) + 1)[1:]
    for thing in cover:
        fill(top, thing.outline, 0)
    left = np.bincount(top.ravel(), minlength=len(fields) + 1)[1:]
    meadow = ("meadow_green", "meadow_green")
    return [
        replace(field, looks=meadow) if few else field
        for field, few in zip(fields, left < _FIELD_LEFT * whole, strict=True)
    ]


def _track(site: Site, ends: Outline, *, paved: bool) -> Thing:
    start, end = _to_pixels(site, ends)
    line = winding_line(site.rng, (start[0], start[1]), (end[0], end[1]), 3.0 if paved else 2.0)
    outline = strip(line, 9.0 if paved else 5.0)
    claim(site, outline, gap=1, over=TAKEN, mark=PAVED)
    return ground(outline, "asphalt" if paved else "dirt")


def _river(site: Site) -> list[Thing]:
    rows, columns = site.use.shape
    rng = site.rng
    start, end = (0.0, rng.uniform(0.1, 0.9) * rows), (float(columns), rng.uniform(0.1, 0.9) * rows)
    line = winding_line(rng, start, end, 0.09 * min(rows, columns))
    width = rng.uniform(16, 26)
    banks = ((width + 9, "verge"), (width + 3, "sand"), (width, "water"))
    claim(site, strip(line, width), gap=4, over=TAKEN)
    return [ground(strip(line, across), material) for across, material in banks]


def _forest(site: Site, centre: Point) -> list[Thing]:
    """Return a forest whose edge is frayed by single trees."""
    rng = site.rng
    outline = blob(rng, centre, rng.uniform(45, 80) * min(1.0, site.size / 300))
    looks = ("forest_summer", "forest_summer" if rng.random() < 0.5 else "forest_autumn")
    fringe = []
    for corner, following in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        for share in (0.1, 0.6):
            spot = corner + share * (following - corner) + rng.normal(0, 2.0, 2)
            edge_tree = tree(rng, (float(spot[0]), float(spot[1])))[0]
            fringe.append(replace(edge_tree, looks=looks, height=5.0, gain=1.0))
    return [*fringe, Thing(outline, looks, 6.0)]


def _village(site: Site, centre: Point) -> tuple[list[Thing], list[Thing], list[Thing]]:
    """Return gardens, streets and houses of a village of parallel streets."""
    rng, angle = site.rng, site.angle
    length, rows_of_houses = rng.uniform(150, 210), int(rng.integers(2, 4))
    across, along = direction(angle + np.pi / 2), direction(angle)
    depth = 72.0
    gardens = [ground(rectangle(centre, length + 24, depth * rows_of_houses, angle), "garden")]
    streets: list[Thing] = []
    houses: list[Thing] = []
    for number in range(rows_of_houses):
        middle = np.asarray(centre) + across * depth * (number - (rows_of_houses - 1) / 2)
        street = rectangle((middle[0], middle[1]), length + 30, 7.0, angle)
        claim(site, street, gap=1, over=PAVED, mark=PAVED)
        streets.append(ground(street, "asphalt"))
        for offset in np.arange(-length / 2, length / 2, 30.0):
            for side in (-1, 1):
                spot = middle + along * (offset + rng.normal(0, 2)) + across * side * (20 + rng.normal(0, 1.5))
                turn = angle + rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.05)
                houses += house(site, (spot[0], spot[1]), turn) if rng.random() < 0.85 else []
    link = rectangle(centre, depth * rows_of_houses, 7.0, angle + np.pi / 2)
    return gardens, [*streets, ground(link, "asphalt")], houses


def _estate(site: Site, centre: Point) -> tuple[list[Thing], list[Thing], list[Thing]]:
    """Return yards, streets and buildings of an estate of halls and flats."""
    rng, angle = site.rng, site.angle
    along, across = direction(angle), direction(angle + np.pi / 2)
    yard = rectangle(centre, 200, 150, angle)
    street = rectangle(centre, 230, 9.0, angle)
    claim(site, street, gap=1, over=PAVED, mark=PAVED)
    buildings: list[Thing] = []
    for column in (-70, 0, 70):
        for row in (-45, 45):
            spot = np.asarray(centre) + along * (column + rng.normal(0, 3)) + across * (row + rng.normal(0, 3))
            middle = (float(spot[0]), float(spot[1]))
            if rng.random() < 0.5:
                buildings += flats(site, middle, angle)
            else:
                buildings += hall(site, middle, angle, (rng.uniform(36, 54), rng.uniform(24, 36)))
    return (
        [ground(yard, "garden" if rng.random() < 0.5 else "concrete")],
        [ground(street, "asphalt")],
        buildings,
    )


def _lone_buildings(site: Site, count: int) -> list[Thing]:
    buildings: list[Thing] = []
    for _ in range(count):
        turn = site.angle + site.rng.normal(0, 0.2)
        if site.rng.random() < 0.5:
            sides = (site.rng.uniform(28, 44) * site.scale, site.rng.uniform(16, 26) * site.scale)
            buildings += hall(site, random_point(site, 12.0), turn, sides)
        else:
            buildings += house(site, random_point(site, 8.0), turn, scale=1.1)
    return buildings


def _trees(site: Site, fields: list[Thing]) -> list[Thing]:
    """Return trees along the edges of some fields and scattered ones, off roads and buildings."""
    rng = site.rng
    spots: list[Outline] = [rng.uniform((0, 0), site.use.shape[::-1], (site.use.size // 9_000, 2))]
    for field in fields:
        if rng.random() < 0.45:
            edge = int(rng.integers(4))
            ends = np.roll(field.outline, -edge, axis=0)[:2]
            steps = np.cumsum(rng.uniform(0.04, 0.16, 14))
            spots.append(ends[0] + steps[steps < 1, None] * (ends[1] - ends[0]) + rng.normal(0, 1.5, 2))
    trees = [tree(rng, (float(x), float(y))) for x, y in np.concatenate(spots)]
    return [part for plant in trees if claim(site, plant[0].outline, gap=1, mark=PAVED) for part in plant]
