"""``cdpipe verify``: hash everything stored again and withdraw what is damaged, so that the next run repairs it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cdpipe.errors import IntegrityError
from cdpipe.models.folder import CARD
from cdpipe.runs.manifest import manifest_path, read_manifest
from cdpipe.runs.verify import PRODUCTS, check_manifest, check_model, check_record, forget_descriptions, listed_groups
from cdpipe.verbs.console import progress
from cdpipe.verbs.session import Session
from cdpipe.workspace.records import GROUP_RECORD

THREADS = 4


def run(session: Session) -> None:
    """Check every record's objects, every model's weights, and that all is there that a run lists.

    Raises:
        IntegrityError: Naming what is damaged, after its records and the manifests that list it are withdrawn.
    """
    root = session.workspace.root
    records = sorted((root / "records").glob("*/*/*/*.json"))
    cards = sorted((root / "models").glob(f"*/*/{CARD}"))
    found: dict[Path, list[str]] = {}
    with (
        progress(session.console, "verify", len(records) + len(cards)) as advance,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for path, names in zip(records, pool.map(lambda path: check_record(root, path), records), strict=True):
            advance(1, "")
            found[path] = names
        for path in cards:
            advance(1, "")
            found[path] = check_model(root, path)
    damaged = [name for names in found.values() for name in names]
    withdrawn = {path for path, names in found.items() if names}
    for path in withdrawn:
        _withdraw(root, path, found[path])
    damaged += _withdraw_manifests(root, withdrawn)
    for name in dict.fromkeys(damaged):
        path = root / name
        # those that were whole have just been compared, and are withdrawn for the sake of a block
        if path.name == GROUP_RECORD and path.parents[2].name not in PRODUCTS and name in found.get(path, [name]):
            forget_descriptions(root, path)
    if damaged:
        lines = "\n".join(f"  {name}" for name in dict.fromkeys(damaged))
        raise IntegrityError(
            f"{len(set(damaged))} damaged:\n{lines}\nwithdrawn; run the same command as before to make them again"
        )
    session.say(f"verify: {len(records)} record(s) and {len(cards)} model(s) are as they were written")


def _withdraw(root: Path, path: Path, names: list[str]) -> None:
    """Remove a record or card with what it vouched for in vain, and the record of its group, no more whole."""
    for name in names:
        (root / name).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    if path.name != CARD:
        path.with_name(GROUP_RECORD).unlink(missing_ok=True)


def _withdraw_manifests(root: Path, withdrawn: set[Path]) -> list[str]:
    """Remove the manifests that list anything withdrawn or missing; names of what is missing."""
    places = {str(path.parent.relative_to(root / "records")) for path in withdrawn if path.name != CARD}
    models = {str(path.parent.relative_to(root)) for path in withdrawn if path.name == CARD}
    missing = []
    for run_folder in sorted((root / "runs").glob("*")):
        path = manifest_path(run_folder)
        if not path.is_file():
            continue
        manifest = read_manifest(run_folder)
        names = [str(path.relative_to(root))] if manifest is None else check_manifest(root, manifest)
        used = manifest and (
            places & set(listed_groups(manifest)) or models & {str(model["folder"]) for model in manifest.models}
        )
        if names or used:
            path.unlink()
            missing += names
    return missing
