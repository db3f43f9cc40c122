"""A run's results against its labels, as figures and pictures; and one run against another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cdpipe.api.making import ensure_made
from cdpipe.config.detectors import DETECTORS
from cdpipe.errors import InputError
from cdpipe.evaluation.comparison import (
    ComparedPair,
    PairDifference,
    compare_pair,
    shared_pairs,
    tabulate_agreement,
    tabulate_differences,
    write_maps,
)
from cdpipe.evaluation.products import PairEvaluation, evaluation_product, read_evaluation, tables_product
from cdpipe.evaluation.scores import BASELINE, ENSEMBLE, Results, pair_of, strip_id
from cdpipe.evaluation.tables import UNSPLIT, Evaluation, evaluate_run, write_agreement
from cdpipe.formats.submission import Runs
from cdpipe.geo.grid import Window
from cdpipe.report.pictures import PictureJob
from cdpipe.runs.manifest import Manifest, ManifestPair, read_manifest
from cdpipe.runs.pairs import PairResults, finished_run, read_masks, result_pairs
from cdpipe.runs.products import ensure_intact
from cdpipe.runs.run import Progress, Run, ignore, tell_step
from cdpipe.store.pair import load_pair
from cdpipe.workspace.files import write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, Place, located

Submissions = Mapping[str, Mapping[str, Runs]]  # masks by the submission's name and the pair's id


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What an evaluation would look at.

    Attributes:
        pairs: Pairs that the run or a submission has a mask of.
        labelled: Those of them that have a label.
        masks: How many masks each submission has, by its name.
    """

    pairs: int
    labelled: int
    masks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation found.

    Attributes:
        evaluation: Figures of every pair and pooled; None where no pair has a label.
        agreement: How far masks of the same pair agree; see :func:`cdpipe.evaluation.comparison.tabulate_agreement`.
        folder: Where figures and pictures are.
    """

    evaluation: Evaluation | None
    agreement: Sequence[dict[str, Any]]
    folder: Location


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two runs differ.

    Attributes:
        rows: Of every pair and pooled; see :func:`cdpipe.evaluation.comparison.tabulate_differences`.
        left_out: Pairs that the runs cannot be compared on, with the reasons.
        folder: Where figures and maps are.
    """

    rows: Sequence[dict[str, Any]]
    left_out: Mapping[str, str]
    folder: Location


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Pairs, submissions, and what is to be found out about each pair that there is a mask of, by pair."""

    pairs: Sequence[PairResults]
    submissions: Submissions
    specs: Mapping[str, PairEvaluation]


def plan_evaluation(run: Run, submissions: Sequence[Place] = ()) -> EvaluationPlan:
    """What :func:`evaluate` would look at; submissions are read, nothing is written.

    Args:
        run: The run.
        submissions: Tables of masks to judge and compare, too.

    Raises:
        InputError: If the run has no manifest yet and there is no submission, or a submission has mistakes.
    """
    gathered = _gather(run, submissions)
    labelled = sum(spec.results.label_key is not None for spec in gathered.specs.values())
    masks = {name: len(masks) for name, masks in gathered.submissions.items()}
    return EvaluationPlan(len(gathered.specs), labelled, masks)


def evaluate(run: Run, submissions: Sequence[Place] = ()) -> Evaluated:
    """Evaluate every predicted pair that has a label, and draw all; compare submissions with each other and the run.

    What was found of a pair is kept for as long as its results, its label and the options are the same.

    Args:
        run: The run.
        submissions: Tables of masks to judge and compare, too; each goes by its file's name.

    Raises:
        InputError: If the run has no manifest yet and there is no submission, or a submission has mistakes.
    """
    with run.hold():
        gathered = _gather(run, submissions)
        with run.logged("evaluate", {"submissions": list(gathered.submissions)}):
            products = {pair_id: evaluation_product(spec) for pair_id, spec in gathered.specs.items()}
            made = ensure_made(run, "evaluate", products)
        results = {pair_id: read_evaluation(gathered.specs[pair_id]) for pair_id in sorted(made)}
        folder = run.folder / "report"
        scores = {part: of_part for parts, _ in results.values() for part, of_part in parts.items()}
        splits = {pair.pair.pair_id: pair.split or UNSPLIT for pair in gathered.pairs}
        splits |= {strip_id(pair.pair.pair_id, split): split for pair in gathered.pairs for split in pair.strips}
        evaluation = evaluate_run(scores, splits, run.config.evaluate.tolerance, DETECTORS) if scores else None
        if evaluation is not None:
            of = {part: (gathered.specs[pair_of(part)].key, splits[part]) for part in scores}
            ensure_intact(tables_product(run.workspace, run.config.name, evaluation, of))
        agreement = tabulate_agreement({pair_id: of_pair for pair_id, (_, of_pair) in results.items()})
        write_agreement(folder, agreement)
        return Evaluated(evaluation, agreement, folder)


def _gather(run: Run, submissions: Sequence[Place]) -> _Gathered:
    manifest = read_manifest(run.folder) if submissions else finished_run(run)
    for pair_id, reason in manifest.failed.items() if manifest else ():
        run.fail(pair_id, reason)
    pairs = result_pairs(run, manifest)
    masks = _read_submissions(run, manifest, pairs, submissions)
    specs = {pair.pair.pair_id: _plan_pair(run, manifest, pair, masks) for pair in pairs}
    # what neither the run nor a submission has a mask of is left alone
    chosen = {name: spec for name, spec in specs.items() if spec.results.change_key or spec.results.submissions}
    return _Gathered(pairs, masks, chosen)


def _read_submissions(
    run: Run, manifest: Manifest | None, pairs: list[PairResults], submissions: Sequence[Place]
) -> Submissions:
    """Masks of every submission, which is named after its file."""
    taken = {BASELINE, ENSEMBLE, *(str(model["name"]) for model in (manifest.models if manifest else ()))}
    masks: dict[str, Mapping[str, Runs]] = {}
    for path in map(located, submissions):
        if path.stem in taken:
            raise InputError(f"{path}: something else is called {path.stem} in the tables; give the file another name")
        taken.add(path.stem)
        masks[path.stem] = read_masks(run, path, pairs)
    return masks


def _plan_pair(run: Run, manifest: Manifest | None, pair: PairResults, submissions: Submissions) -> PairEvaluation:
    models = manifest.models if manifest else []
    own = {model[name]: model["threshold"] for model in models for name in ("layer", "name")}
    finished, pair_id = pair.finished, pair.pair.pair_id
    results = Results(
        pair=pair.stored,
        label_key=pair.label_key,
        members=tuple((name, key, own[name]) for name, key in finished.probabilities.items()) if finished else (),
        change_key=finished.change if finished else None,
        submissions=tuple((name, masks[pair_id]) for name, masks in submissions.items() if pair_id in masks),
        tolerance=run.config.evaluate.tolerance,
        strips=pair.strips,
    )
    picture = _picture(run, manifest.threshold, pair, finished) if manifest and finished else None
    return PairEvaluation(run.workspace, run.config.name, results, picture)


def _picture(run: Run, threshold: float, pair: PairResults, finished: ManifestPair) -> PictureJob:
    before, after = pair.pair.before_date, pair.pair.after_date
    return PictureJob(
        workspace=run.workspace,
        path=run.folder / "report" / "pictures" / f"{finished.pair_id}.png",
        pair=pair.stored,
        label_key=finished.label,
        change_key=finished.change,
        dates=(before, after) if before and after else None,
        threshold=threshold,
        counts=None,
    )


def compare(run_a: Place, run_b: Place, out: Place | None = None, progress: Progress = ignore) -> Comparison:
    """Compare two finished runs; figures go to ``comparison.json``, and a map of every pair beside it.

    Args:
        run_a: Folder of a run, such as ``work/runs/NAME``.
        run_b: Folder of another.
        out: Where to write; None for ``compare/`` in the first.
        progress: Called with how far the work is, see :class:`cdpipe.runs.run.Run`.

    Raises:
        InputError: If a folder is no finished run, or the runs share no pair.
    """
    folders = located(run_a).resolve(), located(run_b).resolve()
    manifests = _manifest(folders[0]), _manifest(folders[1])
    workspaces = Workspace(folders[0].parent.parent), Workspace(folders[1].parent.parent)
    shared = shared_pairs(*manifests)
    if not shared.pairs:
        reasons = "; ".join(f"{pair_id} {reason}" for pair_id, reason in list(shared.left_out.items())[:5])
        raise InputError(
            f"{folders[0]} and {folders[1]}: expected runs that share pairs, and they share none: {reasons}"
        )
    other_name = f"{workspaces[1].root.name}-{folders[1].name}"
    folder = folders[0] / "compare" / other_name if out is None else located(out)
    jobs, left_out = [], dict(shared.left_out)
    for one, other in shared.pairs:
        pair = load_pair(workspaces[0], one.pair_id, one.pair)
        if pair is None:
            left_out[one.pair_id] = "is not in the store of run A any more"
            continue
        keys = one.change, other.change
        jobs.append(ComparedPair(workspaces, pair, one.label, keys, _parts(one)))
    differences, splits = dict[str, PairDifference](), dict[str, str]()
    with tell_step(progress, "compare: pairs", len(jobs)) as advance:
        for job in jobs:
            for part, (split, within) in job.parts.items():
                differences[part], splits[part] = compare_pair(job, within), split
            write_maps(folder / "maps", job)
            advance(1, "")
    rows = tabulate_differences(differences, splits)
    facts = {"a": str(folders[0]), "b": str(folders[1]), "rows": rows, "left_out": left_out}
    write_json(folder / "comparison.json", facts)
    return Comparison(rows, left_out, folder)


def _parts(pair: ManifestPair) -> dict[str, tuple[str, Window | None]]:
    """Split of a pair, and of its strips with their pixels, by the id that each goes by."""
    if not pair.strips:
        return {pair.pair_id: (pair.split or UNSPLIT, None)}
    return {strip_id(pair.pair_id, split): (split, Window(*place)) for split, place in sorted(pair.strips.items())}


def _manifest(folder: Location) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder}: expected the folder of a finished run, such as work/runs/NAME with manifest.json")
    return manifest
