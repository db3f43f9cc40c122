"""Temperatures and weights of a run's models, fitted on pairs that no model learned from, and remembered."""

from dataclasses import replace

import numpy as np

from cdpipe.arrays.fitting import fit_temperature, fit_weights
from cdpipe.keys import content_key
from cdpipe.stages.ensemble import Ensemble, ensemble_logits, sample_members
from cdpipe.stages.run_plan import PredictJob, member_shares
from cdpipe.verbs.fitting import Fitting, Planned, ensembles_of, fit_on, pair_scores
from cdpipe.verbs.session import Session
from cdpipe.workspace.local import read_json, write_json

PIXELS = 1_000_000  # about as many are weights fitted on, from a lattice over the pairs

Fitted = dict[str, dict[str, float]]


def fit_members(session: Session, planned: Planned, job: PredictJob, unseen: dict[str, str]) -> PredictJob:
    """The run with its members' temperatures and weights, where the configuration says ``auto``.

    Models of several folds share what is fitted for their name. The members' stored probabilities stay as they are;
    only the ensemble changes, and with it its key.

    Args:
        session: The session.
        planned: The run's pairs.
        job: The run.
        unseen: Pairs to fit on, see :func:`cdpipe.verbs.fitting.find_thresholds`.
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
        known = {"key": key, **_fit(session, job, fitting)}
        write_json(path, known)
    temperatures, weights = known["temperatures"], known["weights"]
    members = tuple(
        replace(each, temperature=temperatures.get(each.name, 1.0), weight=weights.get(each.name, each.weight))
        for each in job.members
    )
    return replace(job, members=members)


def _fit(session: Session, job: PredictJob, fitting: Fitting) -> Fitted:
    """Temperatures and weights by the models' names; none where they are not wanted or cannot be fitted."""
    names = list(dict.fromkeys(member.name for member in job.members))
    if not fitting:
        session.say("predict: no validation or out-of-fold pairs to fit temperatures or weights on; models stay equal")
        return {"temperatures": {}, "weights": {}}
    alone = {name: ensembles_of(job, fitting, name) for name in names}
    found: Fitted = {"temperatures": {}, "weights": {}}
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
