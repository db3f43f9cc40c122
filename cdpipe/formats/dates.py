"""Reads dates as people write them, where they can be read in one way only."""

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

EXPECTED = "expected a date in ISO 8601 such as 2018-09-22"
YEARS = range(1850, 2101)  # of images; a number that gives another year is no date
EXCEL_DAYS = range(30_000, 60_000)  # 1982 to 2064
EXCEL_EPOCH = datetime.date(1899, 12, 30)  # day 0, as 1900 counts as a leap year there

_TIME = r"(?:[ T,]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.\d+)?)?\s*(?P<half>[AaPp]\.?[Mm]\.?)?)?"
_YEAR_FIRST = re.compile(r"(?P<year>\d{4})[./](?P<month>\d{1,2})[./](?P<day>\d{1,2})" + _TIME)
_YEAR_LAST = re.compile(r"(?P<one>\d{1,2})(?P<mark>[./-])(?P<two>\d{1,2})(?P=mark)(?P<year>\d{4})" + _TIME)
_NAMED = (
    re.compile(r"(?P<day>\d{1,2})(?:st|nd|rd|th)?[ .-]*(?P<name>[A-Za-z]{3,9})\.?[ ,-]+(?P<year>\d{4})" + _TIME),
    re.compile(r"(?P<name>[A-Za-z]{3,9})\.?[ -]*(?P<day>\d{1,2})(?:st|nd|rd|th)?[ ,-]+(?P<year>\d{4})" + _TIME),
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


def parse_time(text: str) -> datetime.datetime:
    """A date or time in ISO 8601, comparable with others: without a zone it counts as UTC.

    Raises:
        ValueError: If it is not ISO 8601.
    """
    time = datetime.datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def day_orders(texts: Iterable[str]) -> Mapping[str, str]:
    """Whether day or month comes first in a table's numeric dates, as those dates show that can be read in one way.

    Args:
        texts: All dates of the table.

    Returns:
        ``day`` or ``month`` by the mark between the numbers; nothing where no date shows it, or dates of both kinds do.
    """
    shown: dict[str, Counter[str]] = {".": Counter(), "/": Counter(), "-": Counter()}
    for text in texts:
        found = _YEAR_LAST.fullmatch(text)
        if found:
            one, two = int(found["one"]), int(found["two"])
            if one > 12 >= two:
                shown[found["mark"]]["day"] += 1
            elif two > 12 >= one:
                shown[found["mark"]]["month"] += 1
    if not shown["."]:
        shown["."]["day"] += 1  # wherever dots are the custom, days come first
    return {mark: next(iter(orders)) for mark, orders in shown.items() if len(orders) == 1}


def iso_date(text: str, orders: Mapping[str, str] = MappingProxyType({})) -> str:
    """A date as ISO 8601; what is so already stays as it is.

    Args:
        text: A date, perhaps with a time.
        orders: What :func:`day_orders` says of the table that it stands in.

    Raises:
        ValueError: If it cannot be read, or in more than one way, in words that say what was expected.
    """
    try:
        if parse_time(text).year in YEARS:
            return text
    except ValueError:
        pass
    found = _YEAR_FIRST.fullmatch(text)
    if found:
        return _as_iso(text, found, int(found["month"]), int(found["day"]))
    for pattern in _NAMED:
        found = pattern.fullmatch(text)
        month = found and _month(found["name"])
        if found and month:
            return _as_iso(text, found, month, int(found["day"]))
    found = _YEAR_LAST.fullmatch(text)
    if found is None:
        raise ValueError(f"{EXPECTED}, got {text!r}{_explain(text)}")
    one, two = int(found["one"]), int(found["two"])
    order = "day" if one > 12 else "month" if two > 12 else orders.get(found["mark"])
    if one == two or order == "day":
        return _as_iso(text, found, two, one)
    if order == "month":
        return _as_iso(text, found, one, two)
    both = " or ".join(f"{found['year']}-{month:02d}-{day:02d}" for month, day in ((one, two), (two, one)))
    raise ValueError(f"{EXPECTED}, got {text!r}, which may be {both}")


def _month(name: str) -> int | None:
    name = name.lower()
    if name in _LONG:
        return _LONG.index(name) + 1
    return _MONTHS.index(name[:3]) + 1 if name in (*_MONTHS, "sept") else None


def _as_iso(text: str, found: re.Match[str], month: int, day: int) -> str:
    try:
        date = datetime.date(int(found["year"]), month, day)
        if found["hour"] is None:
            return date.isoformat()
        hour = int(found["hour"])
        if found["half"]:
            if not 1 <= hour <= 12:
                raise ValueError("no hour of half a day")  # noqa: TRY301 (as below)
            hour = hour % 12 + (12 if found["half"][0] in "Pp" else 0)
        time = datetime.time(hour, int(found["minute"]), int(found["second"] or 0))
    except ValueError:
        raise ValueError(f"{EXPECTED}, got {text!r}") from None
    return f"{date.isoformat()}T{time.isoformat()}"


def _explain(text: str) -> str:
    """What a text that is no date may be."""
    if re.fullmatch(r"\d{4}(?:[-/.]\d{1,2}|[01]\d)?|\d{1,2}[-/.]\d{4}", text):
        return ", which has no day; give one, or leave the cell empty"
    number = re.fullmatch(r"(\d{5})(?:\.\d+)?", text)
    if number and int(number[1]) in EXCEL_DAYS:
        day = EXCEL_EPOCH + datetime.timedelta(int(number[1]))
        return f", perhaps a spreadsheet's number for {day}; format the column as dates"
    if re.fullmatch(r"\d{1,2}[./-]\d{1,2}[./-]\d{2}", text):
        return ", whose parts can be told apart only with a year of four digits"
    return ""
