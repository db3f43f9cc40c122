"""Whatever is taken from a workspace or changed in it, ``verify`` names it and a rerun repairs just that."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from project import PRODUCTS, REPORTED, Project, call, contents, snapshot, succeed

from cdpipe.errors import EXIT_INTEGRITY
from cdpipe.models.folder import CARD as MODEL_CARD
from cdpipe.runs.products import PRODUCT_KINDS

COVERED = ("store.zarr/**/*", "records/*/*/*/*.json", "models/*/*/model.*", *PRODUCTS, *REPORTED)
MADE = (*COVERED, "runs/*/manifest.json")
LAYERS, AXES = ("before", "after", "valid", "label", "cells", "probability", "change"), ("x", "y", "spatial_ref")
UNHASHED = ("model.md",)  # for people; nothing reads it
pytestmark = [pytest.mark.usefixtures("in_threads"), pytest.mark.timeout(900)]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[random.Random(len(data)).randrange(len(data))] ^= 0x10
    path.write_bytes(data)


WAYS: tuple[Callable[[Path], None], ...] = (Path.unlink, truncate, empty, zero, flip)


def test_every_way_of_damage_is_named_and_repaired(finished: Project, tmp_path: Path) -> None:
    tamper(finished, tmp_path, seed=0, number=12)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(1, 11))
def test_two_hundred_damaged_files_are_named_and_repaired(finished: Project, tmp_path: Path, seed: int) -> None:
    tamper(finished, tmp_path, seed, number=20)


def tamper(finished: Project, folder: Path, seed: int, number: int) -> None:
    """Damage some files of a copy, verify, run again, compare."""
    project = Project(finished.config, folder / "work")
    shutil.copytree(finished.workspace, project.workspace)
    before = snapshot(project.workspace, *MADE)
    choose = random.Random(seed)
    names = sorted(name for name in contents(project.workspace, *COVERED) if is_covered(Path(name)))
    damaged = {name: WAYS[number % len(WAYS)] for number, name in enumerate(choose.sample(names, number))}
    for name, way in damaged.items():
        way(project.workspace / name)
    found = call(project.arguments("verify"))
    assert found.code == EXIT_INTEGRITY
    assert [name for name in damaged if not is_named(name, found.err)] == []
    assert not (project.outputs / "manifest.json").exists()
    succeed(project.arguments("pipeline"))
    after = snapshot(project.workspace, *MADE)
    assert {name: sha for name, (sha, _) in after.items()} == {name: sha for name, (sha, _) in before.items()}
    again = {name for name, (_, time) in after.items() if time != before[name][1]}
    stored = {name for name in again if name.startswith("store.zarr")}
    assert {name for name in stored if is_covered(Path(name))} <= set(damaged) | partners(damaged)
    succeed(project.arguments("verify"))


def is_covered(path: Path) -> bool:
    """Not what only people read, nor the store's root and what lies between, which verification writes anew."""
    return path.name not in UNHASHED and not (path.parts[0] == "store.zarr" and len(path.parts) < 5)


def is_named(name: str, said: str) -> bool:
    """Whether a file is named, or what vouches for it, whose loss leaves nobody to tell whether it is whole.

    The record of products is named by the products.
    """
    top, kind, pair_id, *rest = Path(name).parts
    products = {
        "rasters": f"/rasters/{pair_id}_",
        "vectors": f"/vectors/{pair_id}_",
        "layers": "/vectors/change.",
        "ensembles": "/ensemble/",
        "catalogs": "/stac/",
        "evaluations": f"/scores/{pair_id}.",
        "tables": "/report/",
        "audits": f"/audits/{pair_id}.",
        "pictures": f"/images/{pair_id}/",
        "pages": f"/pairs/{pair_id}.",
    }
    if top == "records" and kind in PRODUCT_KINDS:
        return name in said or products[kind] in said
    return name in said or vouching(top, f"{kind}/{pair_id}", rest) in said


def vouching(top: str, place: str, rest: list[str]) -> str:
    """The record or card that has a file's hash; for a record, that of its group, without which none is missed."""
    if top == "models":
        return f"models/{place}/{MODEL_CARD}"
    key, *inside = rest or [""]
    block = "c" in inside and inside[0] in LAYERS  # axes lie in chunks too, but are the group's
    record = f"{inside[-2]}_{inside[-1]}" if block else "group"
    return f"records/{place}/{key}/{record}.json"


def partners(damaged: dict[str, Callable[[Path], None]]) -> set[str]:
    """Stored objects that are written together with a damaged one or with one whose record was damaged."""
    found = set()
    for name in damaged:
        parts = Path(name).parts
        if parts[0] == "records" and parts[1] not in PRODUCT_KINDS and parts[-1] == "group.json":
            group = "/".join(["store.zarr", *parts[1:4]])
            found |= {f"{group}/{layer}zarr.json" for layer in ("", *(f"{layer}/" for layer in (*LAYERS, *AXES)))}
            found |= {f"{group}/{axis}/c/0" for axis in AXES}
        if parts[0] == "store.zarr" and "c" in parts:
            block = parts[-2:]
        elif parts[0] == "records" and parts[-1] != "group.json" and parts[1] not in PRODUCT_KINDS:
            block = tuple(Path(parts[-1]).stem.split("_"))
        else:
            continue
        group = "/".join(["store.zarr", *parts[1:4]])
        for layer in LAYERS:
            lead = ["0"] if layer in ("before", "after", "cells") else []
            found.add("/".join([group, layer, "c", *lead, *block]))
    return found
