"""Identifiers for names in any script, and the order that people expect names in."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from cdpipe.geo.grid import ID_PATTERN

LONGEST = 128  # letters of an identifier
HASH_DIGITS = (8, 16, 32, 64)  # eight tell millions of names apart; more are taken where they do not


def make_ids(names: Iterable[str]) -> dict[str, str]:
    """An identifier for each name.

    A name that is a valid identifier stays as it is. Any other loses its accents and what else has no
    place in an identifier, and gets a hash of the name as a suffix, so that it depends on nothing else in
    the folder. Identifiers must differ regardless of case, too: valid names that do not get the suffix.

    Returns:
        Valid identifiers by name, all different regardless of case.
    """
    ids = {name: name if ID_PATTERN.fullmatch(name) else _hashed(name, HASH_DIGITS[0]) for name in names}
    for digits in HASH_DIGITS:
        counts = Counter(identifier.casefold() for identifier in ids.values())
        ids |= {name: _hashed(name, digits) for name, same in ids.items() if counts[same.casefold()] > 1}
    return ids


def slug(name: str) -> str:
    """What of a name can stand in an identifier: no accents, one hyphen for all else; perhaps nothing."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sorts names as people do: regardless of case, and ``b2`` before ``b10``."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts)), name


def _hashed(name: str, digits: int) -> str:
    suffix = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    return f"{slug(name)[: LONGEST - 1 - digits] or 'pair'}-{suffix}"
