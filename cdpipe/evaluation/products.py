"""What evaluation and audits leave of each pair: files with a record each, so that none is made twice.

Counts that all figures follow from lie in ``report/scores/<pair>.json``, a picture of the pair in
``report/pictures/<pair>.png``, and what its stored results say of themselves in ``report/audits/<pair>.json``. The
tables of a run are made of these.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

from cdpipe.evaluation.audit import AuditJob, audit_stored
from cdpipe.evaluation.audit_tables import Audit, describe_stored
from cdpipe.evaluation.comparison import Agreement, compare_masks
from cdpipe.evaluation.scores import ENSEMBLE, ObjectCounts, PairScores, Results, evaluate_parts
from cdpipe.evaluation.tables import TABLES, Evaluation, write_tables
from cdpipe.keys import content_key
from cdpipe.metrics.counts import Counts, NearCounts, ScoreHistogram
from cdpipe.metrics.intervals import FEWEST
from cdpipe.report.pictures import PictureJob, draw_picture
from cdpipe.report.place import ground_aspect
from cdpipe.runs.products import Product
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

Found = tuple[dict[str, PairScores], Agreement]


@dataclass(frozen=True, slots=True)
class PairEvaluation:
    """A pair's results with what is to be found out about them.

    Attributes:
        workspace: The store.
        run: The run's name.
        results: What is counted.
        picture: What is drawn; None where nothing was predicted.
    """

    workspace: Workspace
    run: str
    results: Results
    picture: PictureJob | None

    @property
    def key(self) -> str:
        """Content key of counts and picture."""
        results, picture = self.results, self.picture
        return content_key(
            "evaluation",
            {
                "run": self.run,
                "pair": results.pair.key,
                "label": results.label_key,
                "members": [list(member) for member in results.members],
                "change": results.change_key,
                "tolerance": results.tolerance,
                **({"strips": {split: astuple(at) for split, at in results.strips.items()}} if results.strips else {}),
                "submissions": [
                    [name, hashlib.sha256(runs.tobytes()).hexdigest()] for name, runs in results.submissions
                ],
                "picture": picture
                and {
                    "dates": picture.dates,
                    "threshold": picture.threshold,
                    # what was not there once has its part as soon as it does something
                    **({} if (aspect := ground_aspect(picture.pair.grid)) == 1 else {"aspect": aspect}),
                },
            },
        )

    @property
    def scores(self) -> Location:
        """File of the counts."""
        return self.workspace.run(self.run) / "report" / "scores" / f"{self.results.pair.pair_id}.json"


def evaluation_product(spec: PairEvaluation) -> Product:
    """A pair's counts and picture as a product."""
    files = (spec.scores, *([spec.picture.path] if spec.picture else []))
    name = spec.results.pair.pair_id
    return Product(spec.workspace, "evaluations", name, spec.key, files, spec, write_evaluation)


def write_evaluation(spec: PairEvaluation) -> dict[Location, str]:
    """Count a pair's hits and misses if it has a label, compare its masks with each other, and draw it.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    results, picture = spec.results, spec.picture
    scores = evaluate_parts(spec.workspace, results) if results.label_key else {}
    agreement = compare_masks(spec.workspace, results) if results.submissions else {}
    write_json(
        spec.scores,
        {
            "scores": [[part, _scores_to_json(of_part)] for part, of_part in scores.items()],
            "agreement": [[*names, asdict(counts)] for names, counts in agreement.items()],
        },
    )
    if picture is not None:
        counts = sum((of_part.counts[ENSEMBLE] for of_part in scores.values()), Counts())
        draw_picture(replace(picture, counts=counts) if scores else picture)
    return hash_stored([spec.scores, *([picture.path] if picture else [])])


def read_evaluation(spec: PairEvaluation) -> Found:
    """What :func:`write_evaluation` found: scores of the pair or its strips, none without label; how masks agree."""
    found = read_json(spec.scores)
    agreement = {(first, second): Counts(**counts) for first, second, counts in found["agreement"]}
    return {part: _scores_from_json(values) for part, values in found["scores"]}, agreement


def tables_product(
    workspace: Workspace, run: str, evaluation: Evaluation, pairs: Mapping[str, tuple[str, str]]
) -> Product:
    """The tables of a run as a product.

    Args:
        workspace: Where the run lies.
        run: Its name.
        evaluation: What they say.
        pairs: What that follows from: key of the evaluation, and split, of each pair or strip.
    """
    folder = workspace.run(run) / "report"
    said = {"tolerance": evaluation.tolerance, "doubts": list(evaluation.doubts), "fewest": FEWEST}
    key = content_key("tables", {"run": run, "pairs": {**pairs}, **said})
    files = tuple(folder / name for name in TABLES)
    return Product(
        workspace, "tables", run, key, files, evaluation, lambda evaluation: write_tables(folder, evaluation)
    )


def _scores_to_json(scores: PairScores) -> dict[str, Any]:
    """Lists where a mapping's order counts, which JSON files of ours do not keep: tables have layers in that order."""
    return {
        "counts": [[name, asdict(counts)] for name, counts in scores.counts.items()],
        "baseline": asdict(scores.baseline),
        "near": [[name, asdict(counts)] for name, counts in scores.near.items()],
        "objects": [[name, asdict(counts)] for name, counts in scores.objects.items()],
        "probabilities": [[name, asdict(histogram)] for name, histogram in scores.probabilities.items()],
        "area_km2": scores.area_km2,
    }


def _scores_from_json(values: dict[str, Any]) -> PairScores:
    return PairScores(
        counts={name: Counts(**fields) for name, fields in values["counts"]},
        baseline=_histogram(values["baseline"]),
        near={name: NearCounts(**fields) for name, fields in values["near"]},
        objects={name: ObjectCounts(**fields) for name, fields in values["objects"]},
        probabilities={name: _histogram(fields) for name, fields in values["probabilities"]},
        area_km2=float("nan") if values["area_km2"] is None else values["area_km2"],
    )


def _histogram(fields: dict[str, Any]) -> ScoreHistogram:
    changed, unchanged = tuple(fields["changed"]), tuple(fields["unchanged"])
    return ScoreHistogram(fields["low"], fields["high"], changed, unchanged)


@dataclass(frozen=True, slots=True)
class PairAudit:
    """A pair whose stored results are audited.

    Attributes:
        run: The run's name.
        job: What is looked at.
    """

    run: str
    job: AuditJob

    @property
    def key(self) -> str:
        """Content key of what is found."""
        job = self.job
        return content_key(
            "audit",
            {
                "run": self.run,
                "pair": job.pair.key,
                "change": job.change_key,
                "members": [list(member) for member in job.members],
                "patches": [list(patch) for patch in job.patches],
            },
        )

    @property
    def path(self) -> Location:
        """File of what is found."""
        return self.job.workspace.run(self.run) / "report" / "audits" / f"{self.job.pair.pair_id}.json"


def audit_product(spec: PairAudit) -> Product:
    """What a pair's stored results say of themselves, as a product."""
    job = spec.job
    return Product(job.workspace, "audits", job.pair.pair_id, spec.key, (spec.path,), spec, write_audit)


def write_audit(spec: PairAudit) -> dict[Location, str]:
    """Audit a pair's stored results.

    Returns:
        The file with its SHA-256.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    write_json(spec.path, describe_stored(audit_stored(spec.job)))
    return hash_stored([spec.path])


def read_audit(spec: PairAudit) -> Audit:
    """What :func:`write_audit` found."""
    found: Audit = read_json(spec.path)
    return found
