"""Whether what a workspace says is stored is there, whole, and what was written."""

from typing import Any

from cdpipe.errors import InputError, IntegrityError
from cdpipe.geo.tilings import count_tiles
from cdpipe.models.exported import is_exported
from cdpipe.models.folder import CARD, WEIGHTS, read_card
from cdpipe.runs.manifest import Manifest, model_folder
from cdpipe.runs.products import PRODUCT_KINDS
from cdpipe.store.arrays import open_array
from cdpipe.store.groups import metadata_files
from cdpipe.workspace.files import read_sealed
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import GROUP_RECORD, damaged_objects, read_record

# Arrays of each kind of group from which the number of its blocks is read.
_LAYERS = {
    "pairs": ("valid",),
    "labels": ("label",),
    "probabilities": ("probability",),
    "changes": ("change", "probability"),
}


def check_record(root: Location, path: Location) -> list[str]:
    """Names of what a record speaks of and what is damaged or missing, relative to the workspace.

    A group's record also says that all of the group's blocks have one.
    """
    record = read_record(path)
    damaged = [path.relative_to(root)] if record is None else damaged_objects(record, root)
    return damaged + _missing_records(root, path.parent) if path.name == GROUP_RECORD else damaged


def _missing_records(root: Location, folder: Location) -> list[str]:
    """Block records that a finished group ought to have and has not, as far as its arrays can still be described."""
    kind, pair_id, key = folder.relative_to(root / "records").split("/")
    group = root / "store.zarr" / kind / pair_id / key
    for name in _LAYERS.get(kind, ()):
        try:
            array = open_array(group, name)
        except IntegrityError:
            continue
        rows, cols = (count_tiles(length, side) for length, side in zip(array.like.side, array.like.block, strict=True))
        records = (folder / f"{row}_{col}.json" for row in range(rows) for col in range(cols))
        return [path.relative_to(root) for path in records if not path.is_file()]
    return []


def forget_descriptions(root: Location, group_record: Location) -> None:
    """Remove the metadata of a group whose record is damaged or gone: nobody can tell whether it is whole.

    The next run puts it back; blocks have records of their own, and stay.
    """
    kind, pair_id, key = group_record.parent.relative_to(root / "records").split("/")
    for file in metadata_files(root / "store.zarr" / kind / pair_id / key):
        file.unlink()


def check_model(root: Location, card: Location) -> list[str]:
    """The same for a model folder, by its card."""
    values, weights = read_sealed(card), card.with_name(WEIGHTS)
    if values is None:
        return [card.relative_to(root)]
    whole = weights.is_file() and weights.sha256() == values.get("weights_sha256")
    return [] if whole else [weights.relative_to(root)]


def check_manifest(root: Location, manifest: Manifest) -> list[str]:
    """Names of what a manifest lists and what is not there or, for products, is not what was published."""
    groups = [root / "records" / group / GROUP_RECORD for group in listed_groups(manifest)]
    models = [(model_folder(root, model), model["key"]) for model in manifest.models]
    unrecorded = [path for path in groups if not path.is_file()]
    gone = [name for path in unrecorded for name in (path.relative_to(root), *_missing_records(root, path.parent))]
    gone += [str(folder) for folder, key in models if not _is_there(folder, key)]
    products: dict[str, Any] = manifest.vectors | manifest.mosaic | manifest.stac | manifest.handed_on
    for pair in manifest.pairs:
        products |= pair.rasters | pair.vectors
    paths = (path for kind in PRODUCT_KINDS for path in (root / "records" / kind).glob(f"*/*/{GROUP_RECORD}"))
    recorded = {name for record in map(read_record, paths) if record is not None for name in record.objects}
    for name, sha in products.items():
        if name not in recorded or not (root / name).is_file() or (root / name).sha256() != sha:
            gone.append(name)
    return gone


def _is_there(folder: Location, key: str) -> bool:
    """Whether a model that a manifest lists is; of an exported network, which has no folder, that it is the one."""
    if not is_exported(folder):
        return (folder / CARD).is_file()
    try:
        return read_card(folder).key == key
    except InputError:
        return False


def listed_groups(manifest: Manifest) -> list[str]:
    """Groups of the store that a manifest lists, as ``kind/pair/key``."""
    found = []
    for pair in manifest.pairs:
        found += [f"pairs/{pair.pair_id}/{pair.pair}", f"changes/{pair.pair_id}/{pair.change}"]
        found += [f"probabilities/{pair.pair_id}/{key}" for key in pair.probabilities.values()]
        if pair.label is not None:
            found.append(f"labels/{pair.pair_id}/{pair.label}")
    return found
