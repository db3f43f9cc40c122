"""From a pair of the catalog to its grid and content keys; only headers are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cdpipe.config.schema import Config, Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster, parts_of, require_common_place, require_imagery
from cdpipe.formats.vector_gate import is_vector, vector_files
from cdpipe.geo.grid import Grid
from cdpipe.geo.tilings import CELL, count_tiles
from cdpipe.keys import content_key
from cdpipe.pairs.catalog import Pair, Source
from cdpipe.pairs.coregistration import Correction
from cdpipe.pairs.imagery import date_bands
from cdpipe.store.pair import LabelledPair, StoredPair, load_pair, read_cells
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, map_files
from cdpipe.workspace.records import GROUP_RECORD

NOT_INGESTED = "not ingested yet; run cdpipe ingest"

Stamp = list[int | str]  # what tells that a file is still the one that was hashed


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """A pair with all that decides what ingest stores of it.

    Attributes:
        pair: Its row of the catalog.
        grid: The first date's grid, on which everything of the pair lies.
        dtypes: NumPy names of the pixel types of both dates.
        key: Content key of the imagery.
        label_key: Content key of the label, None without one.
        sources: Hashes of the sources by file name, which several may share, for the store's attributes.
        correction: What coregistration decided; None where it is not asked to.
    """

    pair: Pair
    grid: Grid
    dtypes: tuple[str, str]
    key: str
    label_key: str | None
    sources: dict[str, list[str]]
    correction: Correction | None = None


Parts = Mapping[Location, Sequence[Location]]  # of each raster, what it is read from beside its own file


def source_files(pair: Pair, config: Config) -> list[Location]:
    """Every file that a pair is made of: also sidecars, world files and the sources of a VRT, as far as they count."""
    return _source_files(pair, _parts(_rasters(pair), config.input))


def all_source_files(pairs: Sequence[Pair], config: Config) -> list[Location]:
    """Every file that some pairs are made of, each once; in object storage many are asked for at once."""
    parts = _parts(list(dict.fromkeys(path for pair in pairs for path in _rasters(pair))), config.input)
    return list(dict.fromkeys(file for pair in pairs for file in _source_files(pair, parts)))


def _rasters(pair: Pair) -> list[Location]:
    label = None if pair.label is None or is_vector(pair.label) else pair.label
    files = (pair.before.path, pair.after.path, pair.before_valid, pair.after_valid, label)
    return list(dict.fromkeys(file for file in files if file is not None))


def _parts(rasters: Sequence[Location], settings: Input) -> Parts:
    return dict(zip(rasters, map_files(lambda path: _parts_of(path, settings), rasters), strict=True))


def _parts_of(path: Location, settings: Input) -> list[Location]:
    try:
        return parts_of(path, settings)
    except InputError:  # which opening the raster raises, too
        return []


def _source_files(pair: Pair, parts: Parts) -> list[Location]:
    files = [pair.before.path, pair.after.path, pair.before_valid, pair.after_valid]
    rasters = [each for file in files if file is not None for each in (file, *parts[file])]
    return list(dict.fromkeys([*rasters, *_label_files(pair, parts)]))


def _label_files(pair: Pair, parts: Parts) -> list[Location]:
    """The files that a pair's label is made of: some vector files come in several."""
    if pair.label is None:
        return []
    return vector_files(pair.label) if is_vector(pair.label) else [pair.label, *parts[pair.label]]


def plan_pair(
    pair: Pair,
    config: Config,
    hashes: Mapping[Location, str],
    corrections: Mapping[str, Correction] = MappingProxyType({}),
) -> PlannedPair:
    """Plan a pair.

    Args:
        pair: The pair.
        config: The configuration.
        hashes: SHA-256 of every file of :func:`source_files`.
        corrections: What coregistration decided, by :func:`coregistration_key`.

    Raises:
        InputError: If a raster cannot be opened, or a file's hash or the pair's correction is not known.
    """
    parts = _parts(_rasters(pair), config.input)
    _require_hashes(pair, hashes, parts)
    rasters = [
        require_imagery(describe_raster(source.path, config.input), config.input)
        for source in (pair.before, pair.after)
    ]
    require_common_place(*rasters)
    grid = rasters[0].grid
    content = _content(pair, grid, config, (hashes, parts))
    align = config.align.model_dump(mode="json", exclude={"min_overlap", "coregister"})
    correction = None
    moved: dict[str, Any] = {}
    if config.align.coregister == "auto":
        correction = corrections.get(_coregistration_key(content, config))
        if correction is None:
            raise InputError(f"pair {pair.pair_id}: not coregistered yet; run cdpipe ingest")
        moved = {"coregistered": [correction.rows, correction.cols]}
    key = content_key("pair", {**content, "align": align, **moved})
    label_key = None
    if pair.label is not None:
        source = [hashes[path] for path in _label_files(pair, parts)]
        meaning = {"source": source, "values": config.label.model_dump(mode="json"), "pair": key}
        label_key = content_key("label", meaning)
    sources: dict[str, list[str]] = {}
    for path in _source_files(pair, parts):
        sources.setdefault(path.name, []).append(hashes[path])
    before, after = (
        info.stored_dtype(date_bands(source, info)[0])
        for source, info in zip((pair.before, pair.after), rasters, strict=True)
    )
    return PlannedPair(pair, grid, (before, after), key, label_key, sources, correction)


def coregistration_key(pair: Pair, grid: Grid, config: Config, hashes: Mapping[Location, str]) -> str:
    """Key of all that decides how far a pair's second date is moved: what it is read from, and no block.

    Raises:
        InputError: If a file's hash is not known.
    """
    parts = _parts(_rasters(pair), config.input)
    _require_hashes(pair, hashes, parts)
    return _coregistration_key(_content(pair, grid, config, (hashes, parts)), config)


def shift_key(pair: Pair, grid: Grid, config: Config, hashes: Mapping[Location, str]) -> str:
    """Key of all that decides how far the check finds a pair's second date to lie off.

    Raises:
        InputError: If a file's hash is not known.
    """
    return content_key("shift", {"coregistration": coregistration_key(pair, grid, config, hashes)})


def _coregistration_key(content: dict[str, Any], config: Config) -> str:
    return content_key("coregistration", {**content, "resampling": config.align.resampling})


def _require_hashes(pair: Pair, hashes: Mapping[Location, str], parts: Parts) -> None:
    unknown = [str(path) for path in _source_files(pair, parts) if path not in hashes]
    if unknown:
        raise InputError(f"pair {pair.pair_id}: not readable, or changed since it was ingested: {', '.join(unknown)}")


def why_not_planned(
    pairs: Sequence[Pair], config: Config, workspace: Workspace, hashes: Mapping[Location, str]
) -> dict[str, str]:
    """Why files of some pairs have no known hash, and what to do, by pair; pairs of which all have one are left out."""
    remembered = (read_json(workspace.sources) or {}) if pairs else {}
    reasons = {}
    for pair in pairs:
        unknown = [path for path in source_files(pair, config) if path not in hashes]
        missing = [path for path in unknown if not path.is_file()]
        if missing:
            reasons[pair.pair_id] = f"{missing[0]}: there is no such file"
        elif unknown and all(str(path) in remembered for path in unknown):
            reasons[pair.pair_id] = f"{unknown[0]}: changed since it was ingested; run cdpipe ingest"
        elif unknown:
            reasons[pair.pair_id] = NOT_INGESTED
    return reasons


def _content(pair: Pair, grid: Grid, config: Config, known: tuple[Mapping[Location, str], Parts]) -> dict[str, Any]:
    """What both dates are read from."""
    return {
        "before": _source_parts(pair.before, pair.before_valid, *known),
        "after": _source_parts(pair.after, pair.after_valid, *known),
        "roles": list(pair.roles),
        "grid": grid.to_json(),
        "input": config.input.model_dump(mode="json", exclude={"drivers", "roots"}),
    }


def _source_parts(
    source: Source, valid: Location | None, hashes: Mapping[Location, str], parts: Parts
) -> dict[str, Any]:
    def content(path: Location) -> list[str]:
        return [hashes[file] for file in (path, *parts[path])]

    return {
        "raster": content(source.path),
        "half": source.half,
        "bands": list(source.bands),
        "sensor": source.sensor.model_dump(mode="json", exclude={"bands"}),
        "named": sorted(source.sensor.bands.values()),  # which are no alpha
        "valid": content(valid) if valid else None,
    }


def plan_pairs(
    pairs: Sequence[Pair],
    config: Config,
    hashes: Mapping[Location, str],
    corrections: Mapping[str, Correction] = MappingProxyType({}),
) -> tuple[list[PlannedPair], dict[str, str]]:
    """Plan all pairs; those that cannot be are returned by id with the reason."""
    planned, failed = [], {}
    for pair in pairs:
        try:
            planned.append(plan_pair(pair, config, hashes, corrections))
        except InputError as error:
            failed[pair.pair_id] = str(error)
    return planned, failed


def stored_pair(workspace: Workspace, planned: PlannedPair) -> StoredPair | None:
    """The pair in the store, or None where it is not ingested to its end."""
    return load_pair(workspace, planned.pair.pair_id, planned.key)


def labelled_pair(workspace: Workspace, planned: PlannedPair) -> LabelledPair | None:
    """The pair and its label in the store, or None where either is missing."""
    pair = stored_pair(workspace, planned)
    if pair is None or planned.label_key is None:
        return None
    records = workspace.records("labels", pair.pair_id, planned.label_key)
    return LabelledPair(pair, planned.label_key) if (records / GROUP_RECORD).is_file() else None


def placed_pairs(planned: Sequence[PlannedPair]) -> list[tuple[Pair, Grid]]:
    """Pairs with their grids."""
    return [(item.pair, item.grid) for item in planned]


def stored_cells(workspace: Workspace, planned: Sequence[PlannedPair]) -> Callable[[Pair, Grid], NDArray[np.int64]]:
    """A function that gives the cells of a pair's label in the store; zeros where it is not there."""
    by_id = {item.pair.pair_id: item for item in planned}

    def read(pair: Pair, grid: Grid) -> NDArray[np.int64]:
        item = labelled_pair(workspace, by_id[pair.pair_id])
        if item is None:
            return np.zeros((2, *(count_tiles(length, CELL) for length in grid.shape)), np.int64)
        return read_cells(workspace, item).astype(np.int64)

    return read


# Hashes of source files, computed once and remembered by size and modification time, or by ETag.


def known_hashes(workspace: Workspace, paths: list[Location]) -> dict[Location, str]:
    """SHA-256 of those files that have been hashed and have not changed since."""
    remembered: Mapping[str, Any] = read_json(workspace.sources) or {}
    entries = [(path, entry) for path in paths if (entry := remembered.get(str(path)))]
    same = map_files(lambda path: path.is_file() and stamp_before_hashing(path), [path for path, _ in entries])
    return {
        path: entry["sha256"] for (path, entry), stamp in zip(entries, same, strict=True) if stamp == entry["stamp"]
    }


def remember_hashes(workspace: Workspace, hashes: Mapping[Location, tuple[str, Stamp]]) -> None:
    """Add to the remembered hashes, each with the stamp that :func:`stamp_before_hashing` gave."""
    remembered = dict(read_json(workspace.sources) or {})
    remembered |= {str(path): {"sha256": sha, "stamp": stamp} for path, (sha, stamp) in hashes.items()}
    write_json(workspace.sources, remembered)


def stamp_before_hashing(path: Location) -> Stamp:
    """Size and modification time, in object storage the ETag; taken before hashing, so that a later change shows."""
    status = path.stat()
    return [status.size, status.tag]
