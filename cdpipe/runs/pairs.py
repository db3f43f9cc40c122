"""The pairs of a run, finished or only in the store, and the masks that a submission has for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import InputError
from cdpipe.formats.cog import CHANGE_COLORS, Band, write_cog
from cdpipe.formats.submission import Runs, decode_window, encode_strips, read_submission
from cdpipe.geo.grid import Grid, Window
from cdpipe.geo.tilings import CHUNK
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.pairs.catalog import Pair, read_catalog
from cdpipe.pairs.plan import labelled_pair
from cdpipe.pairs.table import SPLITS
from cdpipe.runs.manifest import Manifest, ManifestPair, read_manifest
from cdpipe.runs.run import Run, take_inventory
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.pair import StoredPair, load_pair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location


@dataclass(frozen=True, slots=True)
class PairResults:
    """A pair in the store with what a run has of it.

    Attributes:
        pair: Its row of the catalog.
        stored: Its grid and pixels.
        label_key: Key of its label, None without one.
        split: Its split, None where it has none as a whole.
        finished: What was predicted, None before.
        strips: The pixels whose labels count in each split, where the pair is cut.
    """

    pair: Pair
    stored: StoredPair
    label_key: str | None
    split: str | None
    finished: ManifestPair | None
    strips: Mapping[str, Window] = field(default_factory=dict)


def finished_run(run: Run) -> Manifest:
    """The run's manifest.

    Raises:
        InputError: If there is none yet.
    """
    manifest = read_manifest(run.folder)
    if manifest is None:
        raise InputError(f"run {run.config.name} has no manifest in {run.folder}; run cdpipe predict first")
    return manifest


def result_pairs(run: Run, manifest: Manifest | None) -> list[PairResults]:
    """The pairs that a run has finished, or without a manifest, those that are in the store; others are failures."""
    if manifest is None:
        return _stored_pairs(run)
    catalog = {pair.pair_id: pair for pair in read_catalog(run.config)}
    found = []
    for listed in manifest.pairs:
        stored = load_pair(run.workspace, listed.pair_id, listed.pair)
        if stored is None:
            run.fail(listed.pair_id, "is not in the store any more; run cdpipe ingest")
        elif listed.pair_id in catalog:
            strips = {split: Window(*listed.strips[split]) for split in SPLITS if split in listed.strips}
            found.append(PairResults(catalog[listed.pair_id], stored, listed.label, listed.split, listed, strips))
    return found


def _stored_pairs(run: Run) -> list[PairResults]:
    inventory = take_inventory(run)
    splits, results = inventory.splits, []
    for item, stored in inventory.pairs:
        label_key = item.label_key if labelled_pair(run.workspace, item) else None
        strips = splits.strips.get(stored.pair_id, {})
        results.append(PairResults(item.pair, stored, label_key, splits.whole.get(stored.pair_id), None, strips))
    return results


def read_masks(run: Run, path: Location, pairs: list[PairResults]) -> dict[str, Runs]:
    """Masks of a submission by pair id; pairs that it has and the run has not are noted as failed.

    Raises:
        InputError: If the submission has mistakes or two pairs of the catalog one name.
    """
    catalog = named_pairs(read_catalog(run.config), run.config.catalog)
    here = {each.pair.pair_id: each.stored.grid.shape for each in pairs}
    shapes = {name: here.get(pair.pair_id) for name, pair in catalog.items()}
    masks = {catalog[name].pair_id: runs for name, runs in read_submission(path, shapes).items()}
    for pair_id in masks:
        if pair_id not in here:
            run.fail(pair_id, f"has a mask in {path}, but is not among the run's pairs")
    return {pair_id: runs for pair_id, runs in masks.items() if pair_id in here}


def named_pairs(pairs: list[Pair], catalog: Location) -> dict[str, Pair]:
    """Pairs by the name that stands for them in a submission.

    Raises:
        InputError: If two have the same.
    """
    found: dict[str, Pair] = {}
    for pair in pairs:
        other = found.setdefault(pair.name, pair)
        if other is not pair:
            raise InputError(
                f"{catalog}: a submission needs a name of its own for every pair, "
                f"{other.pair_id} and {pair.pair_id} are both called {pair.name}"
            )
    return found


# A pair's change as run-length text, and a submitted mask as a GeoTIFF.


def encode_change(workspace: Workspace, pair: StoredPair, change_key: str) -> tuple[Runs, int]:
    """Runs of a stored change, and how many pixels were not observed: a mask calls these unchanged."""
    change = open_array(workspace.group("changes", pair.pair_id, change_key), "change")
    height, width = pair.grid.shape
    not_observed = 0

    def strips() -> Iterator[NDArray[np.bool_]]:
        nonlocal not_observed
        # a chunk wide: every stored chunk is decoded once, and a strip of 100,000 rows takes 26 MB
        for col in range(0, width, CHUNK):
            strip = read_window(change, Window(0, col, height, min(CHUNK, width - col)))
            not_observed += int(np.count_nonzero(strip == NOT_OBSERVED))
            yield strip == 1

    return encode_strips(strips()), not_observed


def decode_change(runs: Runs, grid: Grid, window: Window) -> NDArray[np.uint8]:
    """The (height, width) pixels of a window of a submitted mask, 0 or 1."""
    return np.ascontiguousarray(decode_window(runs, grid.height, window), np.uint8)


def write_mask(path: Location, runs: Runs, grid: Grid, tags: Mapping[str, str]) -> None:
    """Write a submitted mask as a GeoTIFF on its pair's grid.

    Raises:
        IntegrityError: If it does not read back as it was written.
    """
    band = Band("uint8", NOT_OBSERVED, "change: 0 no, 1 yes", CHANGE_COLORS, tags)
    write_cog(path, lambda window: decode_change(runs, grid, window), grid, band)
