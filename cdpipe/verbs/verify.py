"""``cdpipe verify``: hash everything stored again and withdraw what is damaged, so that the next run repairs it."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cdpipe.formats.manifest import manifest_path
from cdpipe.formats.model_io import CARD, WEIGHTS
from cdpipe.formats.records import GROUP_RECORD, damaged_objects, read_record
from cdpipe.formats.workspace import hash_file, read_json
from cdpipe.values.errors import IntegrityError
from cdpipe.verbs.console import progress
from cdpipe.verbs.session import Session

THREADS = 4


def run(session: Session) -> None:
    """Check every record's objects and every model's weights.

    Raises:
        IntegrityError: Naming what is damaged, after its records and the manifests that list it are withdrawn.
    """
    root = session.workspace.root
    records = sorted(path for path in (root / "records").glob("*/*/*/*.json"))
    cards = sorted((root / "models").glob(f"*/*/{CARD}"))
    found: dict[Path, list[str]] = {}
    with (
        progress(session.console, "verify", len(records) + len(cards)) as advance,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for path, names in zip(records, pool.map(lambda path: _check_record(path, root), records), strict=True):
            advance(1, "")
            found[path] = names
        for path in cards:
            advance(1, "")
            found[path] = [] if _model_is_whole(path) else [str(path.with_name(WEIGHTS).relative_to(root))]
    damaged = [name for names in found.values() for name in names]
    if damaged:
        for path in [path for path, names in found.items() if names]:
            if path.name == CARD:
                path.unlink()
            else:
                _withdraw(path, root)
        for run_folder in (root / "runs").glob("*"):
            manifest_path(run_folder).unlink(missing_ok=True)
        lines = "\n".join(f"  {name}" for name in damaged)
        raise IntegrityError(
            f"{len(damaged)} damaged:\n{lines}\nwithdrawn; run the same command as before to make them again"
        )
    session.say(f"verify: {len(records)} record(s) and {len(cards)} model(s) are as they were written")


def _check_record(path: Path, root: Path) -> list[str]:
    record = read_record(path)
    return [str(path.relative_to(root))] if record is None else damaged_objects(record, root)


def _withdraw(path: Path, root: Path) -> None:
    """Remove a record, and that of its group, which is not whole any more.

    Damaged metadata of a group takes the group with it: its blocks cannot be read without.
    """
    group_record = path.with_name(GROUP_RECORD)
    kind = path.relative_to(root / "records").parts[0]
    if path == group_record and kind != "rasters":
        shutil.rmtree(root / "store.zarr" / path.parent.relative_to(root / "records"), ignore_errors=True)
        for other in path.parent.glob("*.json"):
            other.unlink()
    path.unlink(missing_ok=True)
    group_record.unlink(missing_ok=True)


def _model_is_whole(card: Path) -> bool:
    values = read_json(card)
    weights = card.with_name(WEIGHTS)
    return isinstance(values, dict) and weights.is_file() and hash_file(weights) == values.get("weights_sha256")
