"""A run's change masks as one table of run-length text, and such a table as rasters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdpipe.errors import InputError, IntegrityError
from cdpipe.formats import submission
from cdpipe.formats.submission import Runs, read_ids
from cdpipe.runs.manifest import Manifest, read_manifest
from cdpipe.runs.pairs import (
    PairResults,
    encode_change,
    finished_run,
    named_pairs,
    read_masks,
    result_pairs,
    write_mask,
)
from cdpipe.runs.run import Run
from cdpipe.version import __version__
from cdpipe.workspace.location import Location, Place, located


@dataclass(frozen=True, slots=True)
class SubmissionPlan:
    """What a submission, or its rasters, would be.

    Attributes:
        masks: How many masks.
        path: The file that they would go to; the folder, if rasters.
    """

    masks: int
    path: Location


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission that was written.

    Attributes:
        path: The table.
        masks: How many masks it has.
        not_observed: Pixels that were not observed; the masks call them unchanged.
    """

    path: Location
    masks: int
    not_observed: int


def plan_submission(run: Run, *, template: Place | None = None, out: Place | None = None) -> SubmissionPlan:
    """What :func:`write_submission` would write; nothing is written.

    Args:
        run: The run.
        template: Sample submission whose ids and order to keep.
        out: File to write; None for ``submission.csv`` in the run's folder.

    Raises:
        InputError: If the run has no manifest, or no finished pair for an id of the template.
    """
    return SubmissionPlan(len(_wanted_pairs(run, template)), _table_path(run, out))


def write_submission(run: Run, *, template: Place | None = None, out: Place | None = None) -> Submission:
    """Write a mask for every id of the template, or of every finished pair; all of them or nothing.

    Args:
        run: The run.
        template: Sample submission whose ids and order to keep.
        out: File to write; None for ``submission.csv`` in the run's folder.

    Raises:
        InputError: If the run has no manifest, or no finished pair for an id of the template.
        IntegrityError: If a stored change cannot be read.
    """
    with run.hold(keep_failures=True):
        wanted, path = _wanted_pairs(run, template), _table_path(run, out)
        from cdpipe.cluster.start import start_workers

        start_workers(run)
        with run.logged("submission", {"masks": len(wanted)}):
            masks = _encode(run, wanted)
        submission.write_submission(path, ((name, masks[name][0]) for name in wanted))
        return Submission(path, len(wanted), sum(count for _, count in masks.values()))


def plan_submission_rasters(run: Run, file: Place, *, out: Place | None = None) -> SubmissionPlan:
    """What :func:`write_submission_rasters` would write; the submission is read, nothing is written.

    Args:
        run: The run.
        file: The submission.
        out: Folder to write to; None for ``submissions/`` in the run's.

    Raises:
        InputError: If the submission has mistakes, or none of its pairs is in the store.
    """
    _, masks, folder = _read(run, file, out)
    return SubmissionPlan(len(masks), folder)


def write_submission_rasters(run: Run, file: Place, *, out: Place | None = None) -> Location:
    """Write the masks of a submission as rasters of their pairs.

    Args:
        run: The run.
        file: The submission.
        out: Folder to write to; None for ``submissions/`` in the run's.

    Returns:
        The folder.

    Raises:
        InputError: If the submission has mistakes, or none of its pairs is in the store.
    """
    with run.hold(keep_failures=True):
        pairs, masks, folder = _read(run, file, out)
        tags = {"software": f"cdpipe {__version__}", "submission": located(file).stem}
        jobs = [
            (pair_id, (folder / f"{pair_id}.tif", masks[pair_id], pair.stored.grid, {**tags, "id": pair.pair.name}))
            for pair in pairs
            if (pair_id := pair.pair.pair_id) in masks
        ]
        from cdpipe.cluster.start import start_workers
        from cdpipe.cluster.tasks import map_pairs

        start_workers(run)
        with run.logged("submission", {"rasters": len(jobs)}), run.step("submission: rasters", len(jobs)) as advance:
            for pair_id, _, error in map_pairs(run, "submission", lambda job: write_mask(*job), jobs):
                advance(1, "")
                if error is not None:
                    run.fail(pair_id, error)
        return folder


def _table_path(run: Run, out: Place | None) -> Location:
    return run.folder / "submission.csv" if out is None else located(out)


def _wanted_pairs(run: Run, template: Place | None) -> dict[str, PairResults]:
    """Finished pairs by their ids in the submission, in its order."""
    manifest = finished_run(run)
    finished = {pair.pair.pair_id: pair for pair in result_pairs(run, manifest)}
    catalog = named_pairs([pair.pair for pair in finished.values()], run.config.catalog)
    return {name: finished[catalog[name].pair_id] for name in _wanted_ids(run, manifest, template, list(catalog))}


def _wanted_ids(run: Run, manifest: Manifest, template: Place | None, names: list[str]) -> list[str]:
    if template is None:
        for pair_id, reason in manifest.failed.items():
            run.fail(pair_id, reason)
        return names
    ids = read_ids(located(template))
    missing = [name for name in ids if name not in names]
    if missing:
        raise InputError(
            f"{template}: run {run.config.name} has no finished pair for {len(missing)} id(s), "
            f"nothing was written: {', '.join(missing)}"
        )
    return ids


def _encode(run: Run, wanted: Mapping[str, PairResults]) -> dict[str, tuple[Runs, int]]:
    """Runs of each pair's change, and how many of its pixels were not observed."""
    from cdpipe.cluster.tasks import map_pairs

    jobs = [
        (name, (run.workspace, pair.stored, pair.finished.change)) for name, pair in wanted.items() if pair.finished
    ]
    masks = {}
    with run.step("submission: pairs", len(jobs)) as advance:
        for name, mask, error in map_pairs(run, "submission", lambda job: encode_change(*job), jobs):
            advance(1, "")
            if mask is None:
                raise IntegrityError(f"{name}: {error}; nothing was written")
            masks[name] = mask
    return masks


def _read(run: Run, file: Place, out: Place | None) -> tuple[Sequence[PairResults], dict[str, Runs], Location]:
    """The run's pairs, the submission's masks by pair, and the folder that rasters of them go to."""
    pairs = result_pairs(run, read_manifest(run.folder))
    submitted = located(file)
    masks = read_masks(run, submitted, pairs)
    if not masks:
        raise InputError(f"{file}: none of its pairs is in the store")
    return pairs, masks, run.folder / "submissions" / submitted.stem if out is None else located(out)
