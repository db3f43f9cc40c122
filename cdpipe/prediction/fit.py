"""Where a run's thresholds come from: the configuration, pairs that no model learned from, or the models themselves."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cdpipe.cli.console import progress
from cdpipe.cli.session import Session
from cdpipe.config.schema import Aim
from cdpipe.errors import ConfigError
from cdpipe.keys import content_key
from cdpipe.metrics.counts import ScoreHistogram, best_threshold
from cdpipe.pairs.plan import PlannedPair, labelled_pair
from cdpipe.prediction.ensemble import (
    MAJORITY,
    Ensemble,
    ensemble_logits,
    ensemble_scores,
    plan_ensemble,
    sample_members,
)
from cdpipe.prediction.job import (
    BlockWork,
    PredictJob,
    Thresholds,
    describe_members,
    member_shares,
    member_temperatures,
    plan_work,
    suggested_threshold,
)
from cdpipe.prediction.temperature import fit_temperature, fit_weights, threshold_for
from cdpipe.runs.manifest import manifest_path
from cdpipe.store.pair import LabelledPair, StoredPair
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace

Planned = list[tuple[PlannedPair, StoredPair]]
Fitted = tuple[float, str]
Fitting = list[tuple[int, LabelledPair]]  # pairs that thresholds are fitted on, with their positions in the run


def find_thresholds(session: Session, planned: Planned, job: PredictJob, unseen: dict[str, str]) -> Thresholds:
    """The run's thresholds and, in words, what they were fitted on.

    With ``auto`` the pairs to fit on are predicted first: a threshold fitted on the ensemble itself, with the
    augmentation and overlap of this run, suits it better than one fitted on its members while they trained.

    Args:
        session: The session.
        planned: The run's pairs.
        job: The run.
        unseen: Pairs that no model learned from which predicts them, and what they are: ``out-of-fold`` or
            ``validation``.
    """
    options = session.config.predict
    names = list(dict.fromkeys(member.name for member in job.members))
    given = options.threshold if isinstance(options.threshold, dict) else dict.fromkeys(names, options.threshold)
    if all(given.get(name, "auto") != "auto" for name in names):
        models = {name: float(given[name]) for name in names}
        return _with_models(session, models, (next(iter(models.values())), "from the configuration"))
    fitting = fit_on(session, planned, job, unseen)
    kind = next(iter(unseen.values()), "validation")
    if options.ensemble == "vote":
        models = {}
        for name in names:
            own = given.get(name, "auto")
            models[name] = _fit_model(session, job, fitting, (name, kind)) if own == "auto" else float(own)
        return _with_models(session, models, (MAJORITY, ""))
    cards = [(member.card, member.weight) for member in job.members]
    fitted = _fit(session, job, fitting, (None, kind)) or suggested_threshold(cards)
    own_thresholds = {member.name: member.card.threshold for member in job.members}
    models = {name: fitted[0] if own is None else own for name, own in own_thresholds.items()}
    return _with_models(session, models, fitted)


def _with_models(session: Session, models: dict[str, float], fitted: Fitted) -> Thresholds:
    if session.config.predict.ensemble == "mean":
        return Thresholds(fitted[0], models, fitted[1])
    votes = ", ".join(f"{name} at {threshold:.3f}" for name, threshold in models.items())
    return Thresholds(MAJORITY, models, f"more than half of the votes: {votes}")


def fit_on(session: Session, planned: Planned, job: PredictJob, unseen: dict[str, str]) -> Fitting:
    """The labelled pairs among those to fit on, predicted now."""
    chosen = [number for number, (item, _) in enumerate(planned) if item.pair.pair_id in unseen]
    labelled = [(number, labelled_pair(session.workspace, planned[number][0])) for number in chosen]
    usable = [(number, item) for number, item in labelled if item is not None]
    work = plan_work(job, [number for number, _ in usable])
    if work:
        session.start_ray()
        manifest_path(session.run_folder).unlink(missing_ok=True)
        _predict(session, job, work)
    return [(number, item) for number, item in usable if item.pair.pair_id not in session.failures]


def _predict(session: Session, job: PredictJob, work: list[BlockWork]) -> None:
    from cdpipe.cluster.predict import plan_actors, predict_only

    with progress(session.console, "predict pairs to fit thresholds on: blocks", len(work)) as advance:
        for event in predict_only(job, work, plan_actors(session.config.resources.workers)):
            advance(1, "")
            if event.failure is not None:
                session.fail(job.pairs[event.pair].pair_id, event.failure, event.details)


def _fit_model(session: Session, job: PredictJob, fitting: Fitting, what: tuple[str, str]) -> float:
    """Threshold of a model alone: fitted, or else its own."""
    cards = [(member.card, member.weight) for member in job.members if member.name == what[0]]
    return (_fit(session, job, fitting, what) or suggested_threshold(cards))[0]


def _fit(session: Session, job: PredictJob, fitting: Fitting, what: tuple[str | None, str]) -> Fitted | None:
    """Threshold of the best F1 of all members or of one name, remembered since it takes a pass over the pairs.

    Args:
        session: The session.
        job: The run.
        fitting: Pairs to fit on.
        what: The model's name, None for the mean of all; and what the pairs are, in a word.
    """
    name, kind = what
    aim = session.config.predict.aim
    ensembles = ensembles_of(job, fitting, name)
    parts = [[item.label_key, ensembles[item.pair.pair_id].key] for _, item in fitting]
    key = content_key("change", {"fit": parts, "aim": aim if aim == "f1" else aim.wanted})
    path = session.run_folder / ("ensemble.json" if name is None else f"threshold-{name}.json")
    known = read_json(path)
    if isinstance(known, dict) and known.get("key") == key:
        return float(known["threshold"]), str(known["fitted_on"])
    scores = list(pair_scores(session, fitting, ensembles, ensemble_scores).values())
    if not scores or not any(sum(each.changed) for each in scores):
        return None
    total = sum(scores[1:], scores[0])
    where = f"on {kind} pairs {', '.join(sorted(ensembles))}"
    if aim == "f1":
        threshold, f1 = best_threshold(total)
        fitted_on = f"best F1, {f1:.3f}, {where}"
    else:
        threshold = find_aim(total, aim)
        fitted_on = f"{aim.wanted[0]} {aim.wanted[1]:g} {where}"
    members = [member for member in job.members if name in (None, member.name)]
    write_json(
        path,
        {"key": key, "members": describe_members(members), "threshold": threshold, "fitted_on": fitted_on},
    )
    return threshold, fitted_on


def find_aim(scores: ScoreHistogram, aim: Aim) -> float:
    """The threshold that an aim asks for.

    Raises:
        ConfigError: If none reaches it.
    """
    try:
        return threshold_for(scores, *aim.wanted)
    except ValueError as error:
        raise ConfigError(f"predict.aim: {error}; ask for less, or train better models") from None


def ensembles_of(job: PredictJob, fitting: Fitting, name: str | None = None) -> dict[str, Ensemble]:
    """The ensemble of all members, or of those of one name, for each pair to fit on; its threshold means nothing."""
    return {
        item.pair.pair_id: plan_ensemble(shares, 0.0, temperatures=member_temperatures(job, number, name))
        for number, item in fitting
        if (shares := member_shares(job, number, name))
    }


def pair_scores(
    session: Session,
    fitting: Fitting,
    ensembles: dict[str, Ensemble],
    measure: Callable[[Workspace, StoredPair, str, Ensemble], ScoreHistogram],
) -> dict[str, ScoreHistogram]:
    """A histogram of every pair to fit on, in the order of their ids."""
    session.start_ray()
    from cdpipe.cluster.tasks import map_pairs

    jobs = [
        (item.pair.pair_id, (session.workspace, item.pair, item.label_key, ensembles[item.pair.pair_id]))
        for _, item in fitting
    ]
    found: dict[str, ScoreHistogram] = {}
    # a lambda, since a function of this module would make every worker import the networks that it does not need
    for pair_id, scores, error in map_pairs(lambda job: measure(*job), jobs):
        if scores is None:
            session.fail(pair_id, f"fitting the threshold: {error}")
        else:
            found[pair_id] = scores
    return dict(sorted(found.items()))


# Temperatures and weights of a run's models, fitted on pairs that no model learned from, and remembered.

PIXELS = 1_000_000  # about as many are weights fitted on, from a regular grid over the pairs

FittedMembers = dict[str, dict[str, float]]


def fit_members(session: Session, planned: Planned, job: PredictJob, unseen: dict[str, str]) -> PredictJob:
    """The run with its members' temperatures and weights, where the configuration says ``auto``.

    Models of several folds share what is fitted for their name. The members' stored probabilities stay as they are;
    only the ensemble changes, and with it its key.

    Args:
        session: The session.
        planned: The run's pairs.
        job: The run.
        unseen: Pairs to fit on, see :func:`cdpipe.prediction.fit.find_thresholds`.
    """
    options = session.config.predict
    if "auto" not in (options.temperature, options.weights):
        return job
    fitting = fit_on(session, planned, job, unseen)
    parts = [[item.label_key, *map(list, member_shares(job, number))] for number, item in fitting]
    wanted = [options.temperature, "auto" if options.weights == "auto" else None]
    key = content_key("change", {"members": parts, "wanted": wanted})
    path = session.run_folder / "members.json"
    known = read_json(path)
    if not (isinstance(known, dict) and known.get("key") == key):
        known = {"key": key, **_fit_named(session, job, fitting)}
        write_json(path, known)
    temperatures, weights = known["temperatures"], known["weights"]
    members = tuple(
        replace(each, temperature=temperatures.get(each.name, 1.0), weight=weights.get(each.name, each.weight))
        for each in job.members
    )
    return replace(job, members=members)


def _fit_named(session: Session, job: PredictJob, fitting: Fitting) -> FittedMembers:
    """Temperatures and weights by the models' names; none where they are not wanted or cannot be fitted."""
    names = list(dict.fromkeys(member.name for member in job.members))
    if not fitting:
        session.say("predict: no validation or out-of-fold pairs to fit temperatures or weights on; models stay equal")
        return {"temperatures": {}, "weights": {}}
    alone = {name: ensembles_of(job, fitting, name) for name in names}
    found: FittedMembers = {"temperatures": {}, "weights": {}}
    if session.config.predict.temperature == "auto":
        for name in names:
            scores = list(pair_scores(session, fitting, alone[name], ensemble_logits).values())
            found["temperatures"][name] = fit_temperature(sum(scores[1:], scores[0])) if scores else 1.0
            alone[name] = {pair_id: _softer(each, found["temperatures"][name]) for pair_id, each in alone[name].items()}
    if session.config.predict.weights == "auto" and len(names) > 1:
        found["weights"] = dict(zip(names, _fit_weights(session, fitting, list(alone.values())), strict=True))
    for what, values in found.items():
        if values:
            said = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
            session.say(f"predict: {what} with the least log loss on pairs to fit on: {said}")
    return found


def _softer(ensemble: Ensemble, temperature: float) -> Ensemble:
    return replace(ensemble, temperatures=(temperature,) * len(ensemble.members))


def _fit_weights(session: Session, fitting: Fitting, alone: list[dict[str, Ensemble]]) -> list[float]:
    pixels = sum(item.pair.grid.height * item.pair.grid.width for _, item in fitting)
    step = max(1, round((pixels / PIXELS) ** 0.5))
    parts = []
    for _, item in sorted(fitting, key=lambda each: each[1].pair.pair_id):
        ensembles = [each[item.pair.pair_id] for each in alone]
        parts.append(sample_members(session.workspace, item.pair, item.label_key, ensembles, step))
    probabilities, labels = zip(*parts, strict=True)
    return fit_weights(np.concatenate(probabilities), np.concatenate(labels))
