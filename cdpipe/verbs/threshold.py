"""Where a run's threshold comes from: the configuration, validation pairs, or the models themselves."""

from cdpipe.arrays.metrics import ScoreHistogram, best_threshold
from cdpipe.distributed.predict import plan_actors
from cdpipe.distributed.publish import predict_only
from cdpipe.distributed.tasks import map_pairs
from cdpipe.formats.manifest import manifest_path
from cdpipe.formats.stored_pair import LabelledPair, StoredPair
from cdpipe.formats.workspace import read_json, write_json
from cdpipe.stages.evaluation import ensemble_scores
from cdpipe.stages.pair_plan import PlannedPair, labelled_pair
from cdpipe.stages.prediction import probability_key
from cdpipe.stages.run_plan import PredictJob, describe_members, plan_work, suggested_threshold
from cdpipe.values.keys import content_key
from cdpipe.verbs.console import progress
from cdpipe.verbs.session import Session

Planned = list[tuple[PlannedPair, StoredPair]]


def find_threshold(session: Session, planned: Planned, job: PredictJob, splits: dict[str, str]) -> tuple[float, str]:
    """The run's threshold and, in words, what it was fitted on.

    With ``auto`` the validation pairs are predicted first: a threshold fitted on the ensemble itself, with the
    augmentation and overlap of this run, suits it better than one fitted on its members while they trained.
    """
    configured = session.config.predict.threshold
    if configured != "auto":
        return float(configured), "from the configuration"
    val = [number for number, (item, _) in enumerate(planned) if splits.get(item.pair.pair_id) == "val"]
    labelled = [(number, labelled_pair(session.workspace, planned[number][0])) for number in val]
    usable = [(number, item) for number, item in labelled if item is not None]
    _predict_first(session, job, [number for number, _ in usable])
    left = [item for _, item in usable if item.pair.pair_id not in session.failures]
    return _fit(session, job, left) or suggested_threshold([(each.card, each.weight) for each in job.members])


def _predict_first(session: Session, job: PredictJob, numbers: list[int]) -> None:
    work = plan_work(job, numbers)
    if work:
        manifest_path(session.run_folder).unlink(missing_ok=True)
    with progress(session.console, "predict validation pairs: blocks", len(work)) as advance:
        for event in predict_only(job, work, plan_actors(session.config.resources.workers)):
            advance(1, "")
            if event.failure is not None:
                session.fail(job.pairs[event.pair].pair_id, event.failure, event.details)


def _fit(session: Session, job: PredictJob, val: list[LabelledPair]) -> tuple[float, str] | None:
    """Threshold of the best F1 on validation pairs, remembered since it takes a pass over them."""
    members = {
        item.pair.pair_id: [(probability_key(item.pair.key, member), member.weight) for member in job.members]
        for item in val
    }
    key = content_key("change", {"fit": [[item.label_key, members[item.pair.pair_id]] for item in val]})
    path = session.run_folder / "ensemble.json"
    known = read_json(path)
    if isinstance(known, dict) and known.get("key") == key:
        return float(known["threshold"]), str(known["fitted_on"])
    total = _sum_scores(session, val, members)
    if total is None or not sum(total.changed):
        return None
    threshold, f1 = best_threshold(total)
    fitted_on = f"best F1, {f1:.3f}, on validation pairs {', '.join(sorted(members))}"
    values = {
        "key": key,
        "members": describe_members(job.members),
        "threshold": threshold,
        "fitted_on": fitted_on,
    }
    write_json(path, values)
    return threshold, fitted_on


def _sum_scores(
    session: Session, val: list[LabelledPair], members: dict[str, list[tuple[str, float]]]
) -> ScoreHistogram | None:
    jobs = [
        (item.pair.pair_id, (session.workspace, item.pair, item.label_key, members[item.pair.pair_id])) for item in val
    ]
    found: dict[str, ScoreHistogram] = {}
    # a lambda, since a function of this module would make every worker import the networks that it does not need
    for pair_id, scores, error in map_pairs(lambda job: ensemble_scores(*job), jobs):
        if scores is None:
            session.fail(pair_id, f"fitting the threshold: {error}")
        else:
            found[pair_id] = scores
    if not found:
        return None
    first, *others = found.values()
    return sum(others, first)
