"""Groups of the Zarr v3 store: which arrays they have, made once from a template, described as xarray reads them.

Format: https://zarr-specs.readthedocs.io (core 3.0, sharding-indexed) with CF grid mappings as rioxarray reads them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cdpipe.geo.grid import Grid
from cdpipe.geo.tilings import CELL, CHUNK, count_tiles
from cdpipe.metrics.classes import IGNORE, NOT_OBSERVED
from cdpipe.store.conventions import group_place
from cdpipe.workspace.layout import Kind, Workspace
from cdpipe.workspace.location import Location, map_files
from cdpipe.workspace.records import GROUP_RECORD, hash_stored, write_record
from cdpipe.workspace.remembered import Remembered

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True, slots=True)
class ArrayTemplate:
    """Template of one array of a group.

    Attributes:
        name: The array's name.
        dtype: NumPy name of its type.
        fill: Value of what was never written.
        missing: Value that readers take for none, as CF's ``_FillValue``.
        bands: Names along the leading axis; empty for a plain (y, x) array.
        cell: Side in pixels of what one element stands for (1, or ``CELL`` for counts).
    """

    name: str
    dtype: str
    fill: float
    bands: tuple[str, ...] = ()
    cell: int = 1
    missing: int | None = None


def pair_arrays(roles: Sequence[str], before_dtype: str, after_dtype: str) -> list[ArrayTemplate]:
    """Arrays of a pair's group."""
    bands = tuple(roles)
    return [
        ArrayTemplate("before", before_dtype, 0, bands),
        ArrayTemplate("after", after_dtype, 0, bands),
        ArrayTemplate("valid", "uint8", 0),
    ]


LABEL_ARRAYS = [
    ArrayTemplate("label", "uint8", IGNORE, missing=IGNORE),
    ArrayTemplate("cells", "uint16", 0, ("valid", "changed"), CELL),
]
PROBABILITY_ARRAYS = [ArrayTemplate("probability", "float32", float("nan"))]
CHANGE_ARRAYS = [
    ArrayTemplate("probability", "float32", float("nan")),
    ArrayTemplate("change", "uint8", NOT_OBSERVED, missing=NOT_OBSERVED),
]

# Groups in object storage that this process has found described; nobody takes descriptions away while a run goes on.
_MADE: Remembered[Location, bool] = Remembered(60.0)


def create_group(
    path: Location, arrays: Sequence[ArrayTemplate], grid: Grid, block: int, attributes: dict[str, Any]
) -> None:
    """Make a group with its empty arrays, all at once or not at all.

    Where it exists already nothing happens, but that descriptions which are missing are put back. Several workers may
    do so at once: all make the same, and the first to rename its own is the one.

    Args:
        path: Folder of the group.
        arrays: What it is made of.
        grid: The scene's grid.
        block: Side of a block in pixels.
        attributes: JSON attributes of the group.
    """

    def make() -> bool:
        if not is_described(path, arrays, grid):
            path.make_folder(lambda folder: _write_group(folder, arrays, grid, block, attributes))
        return True

    if path.far:
        _MADE.get(path, make)
    else:
        make()


def _write_group(
    folder: Path, arrays: Sequence[ArrayTemplate], grid: Grid, block: int, attributes: dict[str, Any]
) -> None:
    import zarr

    place = {"grid": grid.to_json(), **group_place(grid)}
    group = zarr.create_group(folder, zarr_format=3, attributes={**attributes, **place})
    for array in arrays:
        _create_array(group, array, grid, block)
    _write_coordinates(group, grid)
    _consolidate(folder)


def _consolidate(folder: Path) -> None:
    """Repeat in a group what its arrays say, so that readers ask once; none of it ever changes."""
    group = folder / "zarr.json"
    arrays = {file.parent.name: json.loads(file.read_bytes()) for file in sorted(folder.glob("*/zarr.json"))}
    group.write_text(json.dumps(json.loads(group.read_bytes()) | consolidated(arrays)))


def consolidated(members: Mapping[str, Any]) -> dict[str, Any]:
    """Consolidated metadata of a group, as zarr-python writes them: what lies beneath, by its path."""
    return {"consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": dict(members)}}


def is_described(path: Location, arrays: Sequence[ArrayTemplate], grid: Grid) -> bool:
    """Whether a group is there with the descriptions of all its arrays."""
    straight = grid.transform[1] == grid.transform[3] == 0
    names = [*(array.name for array in arrays), "spatial_ref", *(("x", "y") if straight else ())]
    files = ["zarr.json", *(f"{name}/zarr.json" for name in names), *(("x/c/0", "y/c/0") if straight else ())]
    return all(map_files(lambda file: file.is_file(), [path / name for name in files]))


def finish_group(workspace: Workspace, kind: Kind, pair_id: str, key: str, facts: dict[str, Any] | None = None) -> None:
    """Record that all of a group is stored, when what killed workers left half-written of the pair is gone."""
    group, records = workspace.group(kind, pair_id, key), workspace.records(kind, pair_id, key)
    group.parent.sweep()
    records.parent.sweep()
    write_record(records / GROUP_RECORD, workspace.root, hash_stored(metadata_files(group)), facts)


def metadata_files(group: Location) -> list[Location]:
    """Every file of a group that is not a block: metadata and coordinates."""
    coordinates = tuple(f"{group.key}/{name}/c/" for name in "xy")
    return [file for file, _ in group.walk() if file.name == "zarr.json" or file.key.startswith(coordinates)]


def _create_array(group: "zarr.Group", like: ArrayTemplate, grid: Grid, block: int) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    lengths = [count_tiles(length, like.cell) for length in grid.shape]
    chunk = CHUNK if like.cell == 1 else block // like.cell
    # a scene smaller than a block gets a shard no larger than the chunks it needs
    shard = [min(block // like.cell, count_tiles(length, chunk) * chunk) for length in lengths]
    lead = (len(like.bands),) if like.bands else ()
    # xarray takes a grid mapping for a coordinate only where it is named as one, too
    place = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
    attributes: dict[str, Any] = dict(place) if like.cell == 1 else {"cell_px": like.cell}
    if like.missing is not None:
        attributes["_FillValue"] = like.missing
    if like.bands:
        attributes["bands"] = list(like.bands)
    suffix: Literal["", "_cell"] = "" if like.cell == 1 else "_cell"
    group.create_array(
        like.name,
        shape=(*lead, *lengths),
        dtype=like.dtype,
        chunks=(*lead, chunk, chunk),
        shards=(*lead, *shard) if like.cell == 1 else None,
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
        fill_value=like.fill,
        dimension_names=(*(["band"] if lead else []), f"y{suffix}", f"x{suffix}"),
        attributes=attributes,
    )


def _write_coordinates(group: "zarr.Group", grid: Grid) -> None:
    """CF coordinates of pixel centres and the grid mapping, as xarray and rioxarray expect them."""
    from zarr.codecs import Crc32cCodec

    a, b, c, d, e, f = grid.transform
    if b == 0 and d == 0:
        for name, start, step, length in (("x", c, a, grid.width), ("y", f, e, grid.height)):
            centres = start + step * (np.arange(length) + 0.5)
            coordinate = group.create_array(
                name,
                shape=(length,),
                dtype="float64",
                chunks=(length,),
                compressors=[Crc32cCodec()],
                dimension_names=(name,),
            )
            coordinate[:] = centres
    mapping: dict[str, Any] = {"GeoTransform": f"{c!r} {a!r} {b!r} {f!r} {d!r} {e!r}"}
    if grid.crs:
        mapping |= {"crs_wkt": grid.crs, "spatial_ref": grid.crs}
    group.create_array("spatial_ref", shape=(), dtype="int64", dimension_names=(), attributes=mapping)
