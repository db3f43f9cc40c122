"""A stored array's description that was tampered with is an integrity error, found before anything is allocated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasters import utm_grid

from cdpipe.errors import IntegrityError
from cdpipe.geo.grid import Window
from cdpipe.store.arrays import cell_window, open_array, read_all, read_window, write_block
from cdpipe.store.groups import LABEL_ARRAYS, create_group, pair_arrays
from cdpipe.workspace.location import here

Description = dict[str, Any]
GRID = utm_grid(300, 400)
WHOLE = Window(0, 0, 300, 400)


def set_shape(*ends: int) -> Callable[[Description], Any]:
    def change(description: Description) -> None:
        description["shape"][-len(ends) :] = ends

    return change


def set_shards(side: int) -> Callable[[Description], Any]:
    def change(description: Description) -> None:
        description["shape"][-2:] = [side, side]
        description["chunk_grid"]["configuration"]["chunk_shape"][-2:] = [side, side]

    return change


def set_chunks(side: int) -> Callable[[Description], Any]:
    def change(description: Description) -> None:
        set_shards(10**6)(description)
        for codec in description["codecs"]:
            if "chunk_shape" in codec.get("configuration", {}):
                codec["configuration"]["chunk_shape"][-2:] = [side, side]

    return change


CHANGES: dict[str, Callable[[Description], Any]] = {
    "absurd sides": set_shape(10**9, 10**9),
    "negative side": set_shape(-5),
    "smaller": set_shape(2, 2),
    "absurd bands": set_shape(10**6, 300, 400),
    "absurd shards": set_shards(10**9),
    "absurd chunks": set_chunks(10**6),
    "tiny chunks": set_chunks(1),
    "no shape": lambda description: description.pop("shape"),
    "unknown codec": lambda description: description["codecs"].append({"name": "evil"}),
    "unknown type": lambda description: description.update(data_type="nonsense"),
    "a group": lambda description: description.update(node_type="group"),
}


@pytest.fixture
def group(tmp_path: Path) -> Path:
    group = tmp_path / "group"
    create_group(here(group), [*pair_arrays(("red", "green"), "uint16", "uint16"), *LABEL_ARRAYS], GRID, 512, {})
    write_block(here(group), "before", WHOLE, np.ones((2, 300, 400), np.uint16))
    cells = cell_window(WHOLE)
    write_block(here(group), "cells", cells, np.ones((2, *cells.shape), np.uint16))
    return group


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["before", "cells"])
def test_what_cdpipe_never_writes_is_refused(group: Path, name: str, change: str) -> None:
    whole = Window(0, 0, *read_all(open_array(here(group), name)).shape[-2:])
    file = group / name / "zarr.json"
    description = json.loads(file.read_text())
    CHANGES[change](description)
    file.write_text(json.dumps(description))
    with pytest.raises(IntegrityError, match="run cdpipe verify"):
        read_all(open_array(here(group), name)) if change != "smaller" else read_window(
            open_array(here(group), name), whole
        )


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"a":' * 100_000])
def test_what_is_no_description_is_refused(group: Path, text: str) -> None:
    (group / "before" / "zarr.json").write_text(text)
    with pytest.raises(IntegrityError, match="not an array that cdpipe wrote"):
        open_array(here(group), "before")
