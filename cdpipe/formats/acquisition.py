"""When an image was taken, as far as its file says so: by its name, or by a tag."""

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from cdpipe.config.schema import Input
from cdpipe.formats.gate import open_raster

# Sentinel-2 products and granules have the time of sensing after an underscore: S2A_MSIL1C_20170816T102021_...
SENTINEL_NAME = re.compile(r"(?:^|_)(20\d{2})(\d{2})(\d{2})T\d{6}(?:_|\.|$)")
DATE = re.compile(r"(\d{4})[-:/]?(\d{2})[-:/]?(\d{2})")
TAGS = ("ACQUISITIONDATETIME", "ACQUISITION_DATE", "DATE_ACQUIRED")
WRITTEN = "TIFFTAG_DATETIME"  # by many programs: when the file was made


@dataclass(frozen=True, slots=True)
class FileDate:
    """A date that a file has.

    Attributes:
        day: The day.
        where: What says so: ``name`` or a tag's name.
    """

    day: datetime.date
    where: str

    @property
    def is_certain(self) -> bool:
        """Whether it is the day that the image was taken, and not perhaps one on which it was processed."""
        return self.where != WRITTEN


def file_date(path: Path, settings: Input) -> FileDate | None:
    """The date that a raster's name or tags have, the most certain first; None where there is none.

    Raises:
        InputError: If it cannot be opened.
    """
    named = SENTINEL_NAME.search(path.name)
    day = named and _day(*named.groups())
    if day:
        return FileDate(day, "name")
    with open_raster(path, settings) as dataset:
        tags = {**dataset.tags(ns="IMAGERY"), **dataset.tags()}
    for tag in (*TAGS, WRITTEN):
        found = DATE.match(tags.get(tag, ""))
        day = found and _day(*found.groups())
        if day:
            return FileDate(day, tag)
    return None


def _day(year: str, month: str, day: str) -> datetime.date | None:
    try:
        return datetime.date(int(year), int(month), int(day))
    except ValueError:
        return None
