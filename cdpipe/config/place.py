"""Paths in a configuration: as this machine has them, or addresses in object storage."""

import os
import re
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from cdpipe.workspace.location import Location, locate

WINDOWS = re.compile(r"(?:^|/)(?:[A-Za-z]:[\\/]|\\\\)")  # how absolute paths begin there, also made absolute here
VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*|%[A-Za-z_]\w*%")  # of an environment


def _place(value: Any) -> Location:
    if not isinstance(value, str | PurePath | Location):
        raise ValueError("Input should be a path or an address")  # noqa: TRY004 (pydantic's word for a mistake)
    text = str(value)
    if WINDOWS.match(text):
        raise ValueError("expected a path of this machine, with / between folders, not one of Windows")
    if VARIABLE.search(text):
        raise ValueError("expected a path as it is: variables of the environment are not put in; ~ is")
    return locate(os.path.expanduser(text))  # noqa: PTH111 (no path where it is an address)


Place = Annotated[Location, PlainValidator(_place), PlainSerializer(str)]
