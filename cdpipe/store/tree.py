"""The store as one tree that other software opens: its groups above those with pixels, and what all of them hold.

What lies beneath is known to cdpipe by records, so it never reads this. It is made of what is finished, always the same
from the same, so that a run that was killed leaves what an undisturbed one does.
Format: consolidated metadata as zarr-python writes them, which the core of Zarr 3 lets readers pass over.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from cdpipe.store.groups import consolidated
from cdpipe.workspace.files import read_json, write_if_other
from cdpipe.workspace.layout import NodeKind, Workspace
from cdpipe.workspace.location import Location, map_files
from cdpipe.workspace.records import GROUP_RECORD

# Groups that are listed: each takes about ten kilobytes, all of which every reader parses first.
MOST = 1000
METADATA = "zarr.json"
CONSOLIDATED = "consolidated_metadata"


def describe_store(workspace: Workspace, *, afresh: bool = False) -> None:
    """Bring the tree up to date with the groups that are finished; only for the holder of the workspace's lock.

    Of more than ``MOST`` groups none is listed, and each is opened by its address.

    Args:
        workspace: The workspace.
        afresh: Whether to look at every group, instead of at the names that are listed already.
    """
    store = workspace.root / "store.zarr"
    groups, root = _finished_groups(workspace), store / METADATA
    if not groups and not root.is_file():
        return
    listed = groups if len(groups) <= MOST else []
    if not afresh and _listed_groups(root) == listed and all(map_files(Location.is_file, _above(store, listed))):
        return
    found = dict(zip(listed, map_files(_read_group, [store / name for name in listed]), strict=True))
    nodes = {name: node for name, node in found.items() if node is not None}
    above = _above(store, nodes)
    for file in above:
        write_if_other(file, _as_bytes(_group()))
    names = [file.parent.relative_to(store) for file in above]
    write_if_other(root, _as_bytes(_group(_flat(names, nodes)) if nodes else _group()))


def _above(store: Location, groups: Iterable[str]) -> list[Location]:
    """The descriptions of the kinds and pairs that some groups lie in."""
    names = {"/".join(name.split("/")[:depth]) for name in groups for depth in (1, 2)}
    return [store / name / METADATA for name in sorted(names)]


def _finished_groups(workspace: Workspace) -> list[str]:
    """The groups of the store that have a record, as ``kind/pair/key``; where there are too many, only some of them."""
    found: list[str] = []
    records = workspace.root / "records"
    for kind in get_args(NodeKind):
        found += [file.parent.relative_to(records) for file in (records / kind).glob(f"*/*/{GROUP_RECORD}")]
        if len(found) > MOST:
            break
    return sorted(found)


def _listed_groups(root: Location) -> list[str] | None:
    """The groups that are listed now; None where there is no list that can be read."""
    value = read_json(root)
    if not isinstance(value, dict) or value.get("node_type") != "group":
        return None
    try:
        return sorted(name for name in value.get(CONSOLIDATED, {}).get("metadata", {}) if name.count("/") == 2)
    except (AttributeError, TypeError):
        return None


def _read_group(folder: Location) -> dict[str, Any] | None:
    """What a group says of itself and its arrays; None where it cannot be read, which verification tells."""
    value = read_json(folder / METADATA)
    if not isinstance(value, dict):
        return None
    if CONSOLIDATED not in value:  # an earlier version of cdpipe made it
        names = [file.parent.name for file in folder.glob(f"*/{METADATA}")]
        value |= consolidated({name: read_json(folder / name / METADATA) for name in names})
    return value


def _flat(above: Iterable[str], nodes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Every node of the tree by its path, as consolidated metadata have them."""
    flat = {name: _group({}) for name in above}
    for name, node in nodes.items():
        flat[name] = {**node, **consolidated({})}
        flat |= {f"{name}/{array}": each for array, each in node[CONSOLIDATED]["metadata"].items()}
    return flat


def _group(members: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A group without attributes, with what lies beneath it where that is given."""
    return {
        "attributes": {},
        "zarr_format": 3,
        **({} if members is None else consolidated(members)),
        "node_type": "group",
    }


def _as_bytes(node: Mapping[str, Any]) -> bytes:
    return json.dumps(node).encode()
