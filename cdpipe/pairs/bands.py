"""What files say that their bands are: roles from descriptions and colours, compared with the configuration's.

Roles go by the common names of STAC's extension for electro-optical imagery
(https://github.com/stac-extensions/eo). Names that sensors use for different bands give a role only where the file's
other names, its own name or the sensor's name tell which is meant: a wrong guess would swap bands.
"""

import re
from collections.abc import Mapping, Sequence

from cdpipe.errors import InputError
from cdpipe.formats.gate import RasterInfo
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.store.normalisation import RGB

# Sentinel-2 MSI: https://sentiwiki.copernicus.eu/web/s2-mission
SENTINEL2: Mapping[str, str] = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "rededge071",
    "6": "rededge075",
    "7": "rededge078",
    "8": "nir",
    "8A": "nir08",
    "9": "nir09",
    "10": "cirrus",
    "11": "swir16",
    "12": "swir22",
}
# Landsat 8 and 9; 4, 5 and 7: https://www.usgs.gov/faqs/what-are-band-designations-landsat-satellites
OLI: Mapping[str, str] = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "nir08",
    "6": "swir16",
    "7": "swir22",
    "8": "pan",
    "9": "cirrus",
    "10": "lwir11",
    "11": "lwir12",
}
TM: Mapping[str, str] = {
    "1": "blue",
    "2": "green",
    "3": "red",
    "4": "nir08",
    "5": "swir16",
    "6": "lwir",
    "7": "swir22",
    "8": "pan",
}
# How names of products, files and sensors begin.
NAMES: Sequence[tuple[str, Mapping[str, str]]] = (
    (r"(?<![A-Z0-9])S2[A-D]?(?![A-Z0-9])|SENTINEL[\s_-]?2|(?<![A-Z0-9])MSIL[12][AC]", SENTINEL2),
    (r"(?<![A-Z0-9])(?:L[CO]?0?[89](?![A-Z0-9])|OLI(?![A-Z]))|LANDSAT[\s_-]?0?[89]", OLI),
    (r"(?<![A-Z0-9])(?:L[TEM]?0?[457](?![A-Z0-9])|E?TM(?![A-Z]))|LANDSAT[\s_-]?0?[457]", TM),
)
MANY_NUMBERED = 7  # B1 to B7 are Landsat's bands; fewer may be no more than counted
NUMBERED = re.compile(r"(?<![A-Za-z0-9])(SR_)?B(0?)(\d{1,2})([Aa]?)(?![A-Za-z0-9])")

WAVELENGTH = re.compile(
    r"(?:(\d+(?:\.\d+)?)\s*[-\u2013]\s*)?(\d+(?:\.\d+)?)\s*(nm\b|nanomet|[u\u00b5\u03bc]m\b|micro)", re.IGNORECASE
)
# Least and highest central wavelength, nm; what lies between has no role.
WAVELENGTHS: Sequence[tuple[float, float, str]] = (
    *((400, 448, "coastal"), (449, 515, "blue"), (520, 580, "green"), (595, 619, "yellow"), (620, 690, "red")),
    *((695, 793, "rededge"), (800, 900, "nir"), (1550, 1700, "swir16"), (2080, 2350, "swir22")),
)

# In small letters, and one space for all that is neither letter nor digit. "" is no role, though part of it would be.
PHRASES: Mapping[str, str] = {
    "red": "red",
    "green": "green",
    "blue": "blue",
    "yellow": "yellow",
    "nir": "nir",
    "cirrus": "cirrus",
    "coastal": "coastal",
    "coastal blue": "coastal",
    "coastal aerosol": "coastal",
    "ultra blue": "coastal",
    "deep blue": "coastal",
    "green i": "green05",
    "green1": "green05",
    "green ii": "green",
    "red edge": "rededge",
    "rededge": "rededge",
    "vegetation red edge": "rededge",
    "far red": "",
    "infra red": "",
    "red edge 1": "rededge071",
    "rededge 1": "rededge071",
    "rededge1": "rededge071",
    "rededge071": "rededge071",
    "red edge 2": "rededge075",
    "rededge 2": "rededge075",
    "rededge2": "rededge075",
    "rededge075": "rededge075",
    "red edge 3": "rededge078",
    "rededge 3": "rededge078",
    "rededge3": "rededge078",
    "rededge078": "rededge078",
    "red edge 4": "nir08",
    "rededge 4": "nir08",
    "rededge4": "nir08",
    "nir narrow": "nir08",
    "narrow nir": "nir08",
    "near infrared": "nir",
    "near infra red": "nir",
    "nearinfrared": "nir",
    "nir1": "nir",
    "nir 1": "nir",
    "nir2": "nir2",
    "nir 2": "nir2",
    "nir08": "nir08",
    "nir09": "nir09",
    "infra rouge": "",
    "infra rojo": "",
    "swir": "swir",
    "swir1": "swir16",
    "swir 1": "swir16",
    "swir16": "swir16",
    "swir 16": "swir16",
    "swir2": "swir22",
    "swir 2": "swir22",
    "swir22": "swir22",
    "swir 22": "swir22",
    "short wave infrared": "swir",
    "shortwave infrared": "swir",
    "short wave infrared 1": "swir16",
    "short wave infrared 2": "swir22",
    "shortwave infrared 1": "swir16",
    "shortwave infrared 2": "swir22",
    "pan": "pan",
    "panchromatic": "pan",
    "thermal": "lwir",
    "thermal infrared": "lwir",
    "lwir": "lwir",
}
PHRASE = re.compile(rf"(?<!\w)(?:{'|'.join(sorted(PHRASES, key=len, reverse=True))})(?!\w)")
# Only where they are all that a description says: "rot" may be a rotation, "vert" vertical.
FOREIGN: Mapping[str, str] = {
    "rot": "red",
    "rouge": "red",
    "rojo": "red",
    "grün": "green",
    "vert": "green",
    "verde": "green",
    "blau": "blue",
    "bleu": "blue",
    "azul": "blue",
}
FILLER = re.compile(r"(?<!\w)(?:band|bande|banda|kanal|channel|\d+)(?!\w)")
LETTERS: Mapping[str, str] = {"r": "red", "g": "green", "b": "blue", "n": "nir"}
# Of bands that are computed from others.
DERIVED = re.compile(
    r"(?<!\w)(?:mask|index|nd[a-z]i|ratio|difference|diff|delta|minus|change|std|stdev|stddev|variance|count|"
    r"qa|quality|probability|prob|cloud|clouds|shadow|angle|texture|entropy|glcm|anomaly|slope|trend)(?!\w)"
)
COLOURS: Mapping[str, str] = {
    "red": "red",
    "green": "green",
    "blue": "blue",
    "nir": "nir",
    "rededge": "rededge",
    "coastal": "coastal",
    "pan": "pan",
    "swir": "swir",
    "alpha": "alpha",
}
ALPHA = "alpha"
NIR, NIR_NARROW = "nir", "nir08"
DEFAULT: Mapping[str, int] = {role: number for number, role in enumerate(RGB, 1)}


def role_of_text(text: str) -> str:
    """The role that a name has in words or by its wavelength; "" if it has none, or more than one."""
    plain = re.sub(r"[\W_]+", " ", text.lower()).strip()
    if DERIVED.search(plain):
        return ""
    found = {PHRASES[phrase] for phrase in PHRASE.findall(plain)}
    found |= {FOREIGN.get(FILLER.sub("", plain).strip(), "")} - {""}
    named = found.pop() if len(found) == 1 else ""
    measured = _role_of_wavelength(text)
    if named and measured:
        return named if agree(named, measured) else ""
    return named or ("" if found else measured)


def _role_of_wavelength(text: str) -> str:
    found = WAVELENGTH.search(text)
    if found is None:
        return ""
    first, last, unit = found.groups()
    centre = (float(first or last) + float(last)) / 2 * (1 if unit.lower().startswith("n") else 1000)
    return next((role for least, highest, role in WAVELENGTHS if least <= centre <= highest), "")


def agree(one: str, other: str) -> bool:
    """Whether two roles may mean one band: ``nir`` is a word for ``nir08``, too, ``swir`` for ``swir16``."""
    families = {role.rstrip("0123456789") for role in (one, other)}
    return one == other or (len(families) == 1 and bool(families & {one, other}) and "nir09" not in (one, other))


def band_roles(info: RasterInfo, sensor_name: str = "") -> tuple[str, ...]:
    """The role of each band as the file tells it, "" where it does not.

    Args:
        info: The raster. Its colours count where no description tells a role.
        sensor_name: What its owner calls the sensor, which may tell what ``B4`` is.
    """
    descriptions = info.descriptions or ("",) * info.count
    roles = [role_of_text(text) for text in descriptions]
    letters = [text.lower() for text in descriptions]
    if {"r", "g", "b"} <= {*letters}:  # of which one alone may be anything
        roles = [role or LETTERS.get(letter, "") for role, letter in zip(roles, letters, strict=True)]
    numbered = _roles_of_numbers(descriptions, f"{info.path.name} {sensor_name}")
    roles = [role or number for role, number in zip(roles, numbered, strict=True)]
    if not any(roles):
        roles = [COLOURS.get(colour, "") for colour in info.colours] or [""] * info.count
    for band in info.mask.alpha:
        roles[band - 1] = ALPHA
    return tuple("" if role == ALPHA and band not in info.mask.alpha else role for band, role in enumerate(roles, 1))


def _roles_of_numbers(descriptions: Sequence[str], hint: str) -> list[str]:
    """Roles of names such as B04: those in which all sensors agree that the names may be of."""
    found = [NUMBERED.search(text) for text in descriptions]
    names = [f"{match[3].lstrip('0')}{match[4].upper()}" if match else "" for match in found]
    given = [name for name in names if name]
    tables = [table for pattern, table in NAMES if re.search(pattern, hint, re.IGNORECASE)]
    told = len(tables) == 1
    if not told:  # more than one is as good as none
        tables = _possible_tables(given, [match for match in found if match])
    counted = all(name in ("", str(number)) for number, name in enumerate(names, 1))
    sure = told and (tables == [TM] or len(given) >= MANY_NUMBERED)
    if counted and not sure and not any(match and match[1] for match in found):
        return [""] * len(names)  # B1, B2, B3 may be no more than numbers
    meanings = [{table.get(name, "") for table in tables} for name in names]
    return [next(iter(meaning)) if len(meaning) == 1 else "" for meaning in meanings]


def _possible_tables(names: Sequence[str], matches: Sequence[re.Match[str]]) -> list[Mapping[str, str]]:
    """The sensors whose bands have all these names; the panchromatic band never lies in a file with the others."""
    tables = [SENTINEL2, OLI, TM]
    if any(match[2] for match in matches):
        tables.remove(TM)  # has no names with a zero
    if any(match[1] for match in matches):
        tables.remove(SENTINEL2)  # SR_B4 is Landsat's, and its B6 that of Landsat 8 and 9: TM's is thermal, ST_B6
        if "6" in names:
            return [OLI]
        if {*names} == {"1", "2", "3", "4", "5", "7"}:
            return [TM]
    return [table for table in tables if all(table.get(name, "pan") != "pan" for name in names)]


def bands_by_role(roles: Sequence[str]) -> dict[str, int]:
    """Band numbers by role: of each role the first band, alpha none."""
    numbers: dict[str, int] = {}
    for number, role in enumerate(roles, 1):
        if role and role != ALPHA:
            numbers.setdefault(role, number)
    return numbers


def choose_bands(
    before: RasterInfo, after: RasterInfo, needed: Sequence[str]
) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Band numbers of each date by role where nobody gives them: as its file names them, else red, green, blue.

    A file that names no band, beside one of as many bands that does, is taken to have them in the same order.

    Args:
        before: The first date's raster.
        after: The second date's.
        needed: Roles that the models need.

    Returns:
        Numbers of the first date, of the second, and in words what there is to say of the choice.
    """
    infos = (before, after)
    named = [_with_needed(bands_by_role(band_roles(info)), needed) for info in infos]
    texts = []
    for date, (info, own) in enumerate(zip(infos, named, strict=True)):
        other = named[1 - date]
        if own and own != DEFAULT:
            texts.append(f"{info.path}: bands as the file names them: {as_options(own)}")
        elif not own and infos[0].count == infos[1].count and other not in ({}, DEFAULT):
            texts.append(f"{info.path}: names no bands; taken in the other date's order: {as_options(other)}")
    chosen = [own or (named[1 - date] if before.count == after.count else {}) for date, own in enumerate(named)]
    first, second = ({**DEFAULT, **own} if _fits_default(own) else own for own in chosen)
    return first, second, texts


def common_bands(before: RasterInfo, after: RasterInfo) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Band numbers of each date by role, of all bands that both dates have, where no model needs any in particular.

    Files that name no band have red, green and blue first if they have three; their other bands go by their numbers.

    Args:
        before: The first date's raster.
        after: The second date's.

    Returns:
        Numbers of the first date, of the second, and in words what there is to say of the choice.

    Raises:
        InputError: If the dates share no band.
    """
    infos, named = (before, after), _named_bands(before, after)
    chosen = [_with_unnamed(info, own) for info, own in zip(infos, named, strict=True)]
    shared = [role for role in chosen[0] if role in chosen[1]]
    if not shared:
        raise InputError(
            f"{before.path} and {after.path}: no band is called the same at both dates "
            f"({', '.join(chosen[0])}; {', '.join(chosen[1])}); say which they are with --bands"
        )
    # models know near infrared by one word, however narrow it is
    words = {role: NIR if role == NIR_NARROW and NIR not in shared else role for role in shared}
    if any(named):
        texts = [f"compared are the bands {', '.join(words.values())}"]
    else:
        numbers = ", ".join(str(chosen[0][role]) for role in shared)
        shown = "; the first three are shown as red, green and blue" if len(shared) >= len(RGB) else ""
        which = f"are bands {numbers}" if len(shared) > 1 else f"is band {numbers}"
        texts = [f"the files name no bands; compared {which} of both{shown}"]
    for info, own in zip(infos, chosen, strict=True):
        lone = [role for role in own if role not in shared]
        if lone:
            texts.append(f"{info.path}: the other date has no band {', '.join(lone)}: left out")
    first, second = ({word: own[role] for role, word in words.items()} for own in chosen)
    return first, second, texts


def named_roles(before: RasterInfo, after: RasterInfo) -> set[str]:
    """The roles of which the files tell at both dates which band they are."""
    first, second = _named_bands(before, after)
    return {*first} & {*second}


def _named_bands(before: RasterInfo, after: RasterInfo) -> list[dict[str, int]]:
    """Band numbers of each date by role, as far as the files name them."""
    named = [bands_by_role(band_roles(info)) for info in (before, after)]
    if before.count == after.count and not all(named):
        named = [named[0] or named[1]] * 2  # one date's names hold for both
    return named


def _with_unnamed(info: RasterInfo, named: Mapping[str, int]) -> dict[str, int]:
    """The bands that a file names, and by their numbers those that it does not; alpha is none."""
    bands = [band for band in range(1, info.count + 1) if band not in info.mask.alpha]
    if not named and len(bands) >= len(RGB):
        named = dict(zip(RGB, bands, strict=False))
    return {**named, **{f"band{band}": band for band in bands if band not in named.values()}}


def as_options(numbers: Mapping[str, int]) -> str:
    """Band numbers by role as ``--bands`` takes them."""
    return ",".join(f"{role}={number}" for role, number in numbers.items())


def _with_needed(numbers: dict[str, int], needed: Sequence[str]) -> dict[str, int]:
    """The numbers, also by the words that models have for those roles."""
    for role in needed:
        alike = [number for name, number in numbers.items() if agree(name, role)]
        if alike:
            numbers.setdefault(role, alike[0])
    return numbers


def _fits_default(numbers: Mapping[str, int]) -> bool:
    """Whether nothing that a file names contradicts red, green and blue as its first three bands."""
    return all(
        DEFAULT.get(role, number) == number and (role in DEFAULT or number not in DEFAULT.values())
        for role, number in numbers.items()
    )


def doubt_bands(pair: Pair, dates: Sequence[tuple[Source, RasterInfo | None]]) -> list[str]:
    """Where a file's names or colours of bands contradict the sensor's roles."""
    doubts, suggested = [], []
    for source, info in dates:
        if info is None or (source.half is not None and info.count % 2):
            continue
        own = info.count if source.half is None else info.count // 2
        first = own * (source.half or 0)
        roles = band_roles(info, source.sensor_name)[first : first + own]
        suggested.append(bands_by_role(roles))
        texts = _contradictions(source, info, roles, first)
        if texts:
            lead = "bands look swapped: " if len(texts) > 1 else ""
            todo = f"as the file has it: sensors.{source.sensor_name}.bands: {{{_suggest(source, roles)}}}"
            doubts.append(f"{source.path}: {lead}{'; '.join(texts)}; {todo}")
    same_sensor = pair.before.sensor_name == pair.after.sensor_name and pair.before.half is None
    if doubts and same_sensor and len(suggested) == len(dates) and all(suggested) and suggested[0] != suggested[1]:
        doubts.append(
            f"{pair.after.path}: the dates' files name their bands in different orders; give each date a sensor of "
            "its own (columns before_sensor and after_sensor)"
        )
    return doubts


def _contradictions(source: Source, info: RasterInfo, roles: Sequence[str], first: int) -> list[str]:
    """What there is to say of each band that the configuration takes for another one."""
    described = any(role and text for role, text in zip(roles, info.descriptions[first:], strict=False))
    configured = {role: (_known(role, source), number) for role, number in source.sensor.bands.items()}
    said = {number: role for number, role in enumerate(roles, 1) if role}
    if not described and any(known and known not in RGB and said.get(n) in RGB for known, n in configured.values()):
        return []  # a picture in false colours, such as near infrared shown as red
    texts = []
    for role, (known, number) in configured.items():
        own = said.get(number, "")
        if own in ("", ALPHA) or not known or agree(own, known):
            continue  # that a band is alpha, the check tells by itself
        name = info.descriptions[first + number - 1] if described else ""
        meaning = "" if name.lower() == own else f" ({own})"
        shown = f"says {name!r}{meaning}" if name else f"is coloured {own}"
        texts.append(f"band {first + number} {shown}, sensor {source.sensor_name} calls it {role}")
    return texts


def _known(role: str, source: Source) -> str:
    """What a role of the configuration is called here; "" if it is not known."""
    return role_of_text(role) or _roles_of_numbers([role], source.sensor_name)[0]


def _suggest(source: Source, roles: Sequence[str]) -> str:
    """The sensor's bands as the file names them, with the configuration's roles as far as they are there."""
    numbers = bands_by_role(roles)
    own = {
        role: next((n for name, n in numbers.items() if agree(name, _known(role, source))), 0)
        for role in source.sensor.bands
    }
    chosen = own if all(own.values()) else numbers
    return ", ".join(f"{role}: {number}" for role, number in sorted(chosen.items(), key=lambda item: item[1]))
