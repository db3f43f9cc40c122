"""``cdpipe submission``: a run's change masks as one table of run-length text, and such a table as rasters."""

from cdpipe.cli.console import progress
from cdpipe.cli.session import Session, logged
from cdpipe.cluster.tasks import map_pairs
from cdpipe.errors import InputError, IntegrityError
from cdpipe.formats.submission import Runs, read_ids, write_submission
from cdpipe.runs.manifest import Manifest, read_manifest
from cdpipe.runs.pairs import RunPair, encode_change, finished_run, named_pairs, read_masks, run_pairs, write_mask
from cdpipe.version import __version__
from cdpipe.workspace.location import Location


def run(session: Session) -> None:
    """Write the run's submission, or with ``--rasters`` the masks of one as GeoTIFFs."""
    if session.rasters is None:
        _write_submission(session)
    else:
        _write_rasters(session, session.rasters)


def _write_submission(session: Session) -> None:
    """Write a mask for every id of the template, or of every finished pair; all of them or nothing.

    Raises:
        InputError: If the run has no manifest, or no finished pair for an id of the template.
        IntegrityError: If a stored change cannot be read.
    """
    manifest = finished_run(session)
    finished = {each.pair.pair_id: each for each in run_pairs(session, manifest)}
    catalog = named_pairs([each.pair for each in finished.values()], session.config.catalog)
    ids = _wanted_ids(session, manifest, list(catalog))
    path = session.out or session.run_folder / "submission.csv"
    if session.dry_run:
        session.say(f"submission: {len(ids)} mask(s) to {path}")
        return
    session.start_ray()
    with logged(session, "submission", {"masks": len(ids)}):
        masks = _encode(session, {name: finished[catalog[name].pair_id] for name in ids})
    write_submission(path, ((name, masks[name][0]) for name in ids))
    not_observed = sum(count for _, count in masks.values())
    if not_observed:
        session.say(f"submission: {not_observed} pixel(s) were not observed; the masks call them unchanged")
    session.say(f"submission: {len(ids)} mask(s) in {path}")


def _wanted_ids(session: Session, manifest: Manifest, names: list[str]) -> list[str]:
    if session.template is None:
        for pair_id, reason in manifest.failed.items():
            session.fail(pair_id, reason)
        return names
    ids = read_ids(session.template)
    missing = [name for name in ids if name not in names]
    if missing:
        raise InputError(
            f"{session.template}: run {session.config.name} has no finished pair for {len(missing)} id(s), "
            f"nothing was written: {', '.join(missing)}"
        )
    return ids


def _encode(session: Session, wanted: dict[str, RunPair]) -> dict[str, tuple[Runs, int]]:
    jobs = [
        (name, (session.workspace, each.stored, each.finished.change)) for name, each in wanted.items() if each.finished
    ]
    masks = {}
    with progress(session.console, "submission: pairs", len(jobs)) as advance:
        for name, found, error in map_pairs(lambda job: encode_change(*job), jobs):
            advance(1, "")
            if found is None:
                raise IntegrityError(f"{name}: {error}; nothing was written")
            masks[name] = found
    return masks


def _write_rasters(session: Session, path: Location) -> None:
    """Write the masks of a submission as rasters of their pairs.

    Raises:
        InputError: If the submission has mistakes, or none of its pairs is in the store.
    """
    pairs = run_pairs(session, read_manifest(session.run_folder))
    masks = read_masks(session, path, pairs)
    folder = session.out or session.run_folder / "submissions" / path.stem
    if not masks:
        raise InputError(f"{path}: none of its pairs is in the store")
    if session.dry_run:
        session.say(f"submission: {len(masks)} raster(s) to {folder}")
        return
    tags = {"software": f"cdpipe {__version__}", "submission": path.stem}
    jobs = [
        (pair_id, (folder / f"{pair_id}.tif", masks[pair_id], each.stored.grid, {**tags, "id": each.pair.name}))
        for each in pairs
        if (pair_id := each.pair.pair_id) in masks
    ]
    session.start_ray()
    with (
        logged(session, "submission", {"rasters": len(jobs)}),
        progress(session.console, "submission: rasters", len(jobs)) as advance,
    ):
        for pair_id, _, error in map_pairs(lambda job: write_mask(*job), jobs):
            advance(1, "")
            if error is not None:
                session.fail(pair_id, error)
    session.say(f"submission: rasters in {folder}")
