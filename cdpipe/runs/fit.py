"""Weights, temperatures and thresholds of a run: given, fitted on pairs that no model learned from, or the models' own.

What was fitted is remembered in the run's folder with a key of all that it depends on. Looking it up only reads; to fit
is another function, for which the pairs to fit on must have been predicted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cdpipe.config.schema import Aim, Config
from cdpipe.errors import ConfigError
from cdpipe.keys import content_key
from cdpipe.metrics.counts import ScoreHistogram, best_threshold
from cdpipe.models.ensemble_folder import EnsembleCard
from cdpipe.pairs.plan import labelled_pair
from cdpipe.prediction.ensemble import (
    MAJORITY,
    Ensemble,
    ensemble_logits,
    ensemble_scores,
    plan_ensemble,
    sample_members,
)
from cdpipe.prediction.temperature import fit_temperature, fit_weights, threshold_for
from cdpipe.runs.members import DEFAULT_THRESHOLD, describe_members, suggested_threshold
from cdpipe.runs.plan import RunPair, RunPlan, Thresholds, missing_work
from cdpipe.store.pair import LabelledPair
from cdpipe.workspace.files import read_json, write_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location

PIXELS = 1_000_000  # about as many are weights fitted on, every so many rows and columns of the pairs

Fitted = tuple[float, str]  # a threshold, and in words what it was fitted on
FittedMembers = dict[str, dict[str, float]]  # temperatures and weights, each by the models' names
# Histograms of the pairs whose ensembles are given, by pair, measured by the function that is given.
Measure = Callable[[Workspace, LabelledPair, Ensemble], ScoreHistogram]
MeasurePairs = Callable[[Sequence[RunPair], Mapping[str, Ensemble], Measure], dict[str, ScoreHistogram]]


def pairs_to_fit_on(plan: RunPlan) -> list[int]:
    """Positions of the labelled pairs that no model learned from which predicts them."""
    return [
        number
        for number, pair in enumerate(plan.pairs)
        if pair.pair_id in plan.unseen and labelled_pair(plan.workspace, pair.planned) is not None
    ]


def wants_fitting(config: Config, plan: RunPlan) -> bool:
    """Whether the configuration leaves anything to be fitted."""
    return _wants_members(config) or bool(_names_to_fit(config, plan))


def look_up_fit(config: Config, folder: Location, plan: RunPlan) -> RunPlan | None:
    """The plan with its weights and thresholds, as far as they need no fitting or were fitted before.

    Args:
        config: The configuration.
        folder: The run's folder.
        plan: The run.

    Returns:
        The plan with an ensemble for every pair; None where something has to be predicted or fitted first.
    """
    if not wants_fitting(config, plan):
        return plan.with_thresholds(config, find_thresholds(config, plan, {}))
    numbers = pairs_to_fit_on(plan)
    if next(missing_work(plan, numbers), None) is not None:
        return None
    fitting = [plan.pairs[number] for number in numbers]
    if _wants_members(config):
        members = _read_members(config, folder, fitting)
        if members is None:
            return None
        plan = _with_fitted_members(plan, members)
        fitting = [plan.pairs[number] for number in numbers]
    fits: dict[str | None, Fitted | None] = {}
    for name in _names_to_fit(config, plan):
        fits[name] = _read_threshold(config, folder, fitting, name)
        if fits[name] is None and fitting:
            return None
    return plan.with_thresholds(config, find_thresholds(config, plan, fits))


def fit_members(
    config: Config, folder: Location, plan: RunPlan, fitting: Sequence[str], measure: MeasurePairs
) -> tuple[RunPlan, FittedMembers]:
    """The run with its members' temperatures and weights, where the configuration says ``auto``.

    Models of several folds share what is fitted for their name. The members' stored probabilities stay as they are;
    only the ensemble changes, and with it its key.

    Args:
        config: The configuration.
        folder: The run's folder.
        plan: The run.
        fitting: Ids of the pairs to fit on, all of which are predicted.
        measure: Measures pairs.

    Returns:
        The run; and what was fitted now, nothing where it was known.
    """
    if not _wants_members(config):
        return plan, {}
    pairs = [pair for pair in plan.pairs if pair.pair_id in fitting]
    known, now = _read_members(config, folder, pairs), FittedMembers()
    if known is None:
        known = now = _fit_members(config, plan, pairs, measure)
        write_json(folder / "members.json", {"key": _members_key(config, pairs), **known})
    return _with_fitted_members(plan, known), now


def fit_thresholds(
    config: Config, folder: Location, plan: RunPlan, fitting: Sequence[str], measure: MeasurePairs
) -> RunPlan:
    """The run with its thresholds and so the ensemble of every pair.

    With ``auto`` a threshold is fitted on the ensemble itself, with the augmentation and overlap of this run: it suits
    that better than one fitted on its members while they trained.

    Args:
        config: The configuration.
        folder: The run's folder.
        plan: The run.
        fitting: Ids of the pairs to fit on, all of which are predicted.
        measure: Measures pairs.

    Raises:
        ConfigError: If no threshold reaches what ``predict.aim`` wants.
    """
    pairs = [pair for pair in plan.pairs if pair.pair_id in fitting]
    fits: dict[str | None, Fitted | None] = {}
    for name in _names_to_fit(config, plan):
        known = _read_threshold(config, folder, pairs, name)
        fits[name] = known or _fit_threshold(config, folder, plan, pairs, (name, measure))
    return plan.with_thresholds(config, find_thresholds(config, plan, fits))


def find_thresholds(config: Config, plan: RunPlan, fits: Mapping[str | None, Fitted | None]) -> Thresholds:
    """The run's thresholds.

    Args:
        config: The configuration.
        plan: The run.
        fits: What was fitted, for each model's name or None for the mean of all; None where nothing could be.
    """
    options, given = config.predict, _given_thresholds(config, plan)
    own = {member.name: member.card.threshold for member in plan.members}
    if plan.own is not None:
        own = {member.layer: member.threshold for member in plan.own.members}
    if plan.own is not None and _keeps_own(config, plan.own):
        models = {name: float(value) for name, value in own.items() if value is not None}
        return Thresholds(plan.own.threshold, models, f"of the ensemble {plan.own.name}: {plan.own.fitted_on}")
    if all(value != "auto" for value in given.values()):
        models = {name: float(value) for name, value in given.items()}
        return _with_votes(config, models, (next(iter(models.values())), "from the configuration"))
    if options.ensemble == "vote":
        models = {
            name: (fits.get(name) or _suggested(plan, name))[0] if value == "auto" else float(value)
            for name, value in given.items()
        }
        return _with_votes(config, models, (MAJORITY, ""))
    fitted = fits.get(None) or _suggested(plan)
    models = {name: fitted[0] if (value := own[name]) is None else value for name in given}
    # the models of several folds have as many thresholds of their own, each from a fold that suits no other
    models |= {name: (fits.get(name) or fitted)[0] for name in _names_of_folds(plan)}
    return _with_votes(config, models, fitted)


def _suggested(plan: RunPlan, name: str | None = None) -> Fitted:
    """The threshold of the members, all or those of one name, where there is nothing to fit it on."""
    if plan.own is None:
        cards = [(member.card, member.weight) for member in plan.members if name in (None, member.name)]
        if all(card.is_detector for card, _ in cards):
            return DEFAULT_THRESHOLD, "each pair's own, found without labels"
        return suggested_threshold(cards)
    alone = {member.layer: member.threshold for member in plan.own.members}
    threshold = plan.own.threshold if name is None else alone[name]
    return threshold, f"of the ensemble {plan.own.name}, as there was nothing to fit another on: {plan.own.fitted_on}"


def find_aim(scores: ScoreHistogram, aim: Aim) -> float:
    """The threshold that an aim asks for.

    Raises:
        ConfigError: If none reaches it.
    """
    try:
        return threshold_for(scores, *aim.wanted)
    except ValueError as error:
        raise ConfigError(f"predict.aim: {error}; ask for less, or train better models") from None


def ensembles_of(pairs: Sequence[RunPair], name: str | None = None) -> dict[str, Ensemble]:
    """The ensemble of all members, or of those of one name, for each pair; its threshold means nothing."""
    return {
        pair.pair_id: plan_ensemble(shares, 0.0, temperatures=pair.temperatures(name))
        for pair in pairs
        if (shares := pair.shares(name))
    }


def _keeps_own(config: Config, own: EnsembleCard) -> bool:
    """Whether the threshold of the ensemble that was given holds: no other is asked for, nor other shares."""
    options = config.predict
    as_it_is = options.temperature == "none" and not (options.weights or options.members)
    return options.threshold == "auto" and options.aim == "f1" and as_it_is and options.ensemble == own.combination


def _given_thresholds(config: Config, plan: RunPlan) -> dict[str, Any]:
    """What the configuration says of each model's threshold, by name: a number or ``auto``."""
    options, names = config.predict, list(dict.fromkeys(member.name for member in plan.members))
    given = options.threshold if isinstance(options.threshold, dict) else dict.fromkeys(names, options.threshold)
    return {name: given.get(name, "auto") for name in names}


def _names_to_fit(config: Config, plan: RunPlan) -> list[str | None]:
    """Whose threshold is to be fitted: models that vote by name, or None for the mean of all."""
    given = _given_thresholds(config, plan)
    if plan.own is not None and _keeps_own(config, plan.own):
        return []
    wanted = [name for name, value in given.items() if value == "auto"]
    if not wanted:
        return []
    # of models of a single name the mean of all is the mean of that name
    alone = _names_of_folds(plan) if len(given) > 1 else []
    return list(wanted) if config.predict.ensemble == "vote" else [None, *alone]


def _names_of_folds(plan: RunPlan) -> list[str]:
    """Names that several models of the run share, each trained without another fold."""
    counts = Counter(member.name for member in plan.members if member.fold is not None)
    return [name for name, count in counts.items() if count > 1 and plan.own is None]


def _with_votes(config: Config, models: dict[str, float], fitted: Fitted) -> Thresholds:
    if config.predict.ensemble == "mean":
        return Thresholds(fitted[0], models, fitted[1])
    votes = ", ".join(f"{name} at {threshold:.3f}" for name, threshold in models.items())
    return Thresholds(MAJORITY, models, f"more than half of the votes: {votes}")


def _threshold_file(folder: Location, name: str | None) -> Location:
    return folder / ("threshold.json" if name is None else f"threshold-{name}.json")


def _threshold_key(config: Config, pairs: Sequence[RunPair], name: str | None) -> str:
    aim, ensembles = config.predict.aim, ensembles_of(pairs, name)
    parts = [[*pair.to_fit_on.key[1:], ensembles[pair.pair_id].key] for pair in pairs if pair.pair_id in ensembles]
    return content_key("change", {"fit": parts, "aim": aim if isinstance(aim, str) else aim.wanted})


def _read_threshold(config: Config, folder: Location, pairs: Sequence[RunPair], name: str | None) -> Fitted | None:
    known = read_json(_threshold_file(folder, name))
    if isinstance(known, dict) and known.get("key") == _threshold_key(config, pairs, name):
        return float(known["threshold"]), str(known["fitted_on"])
    return None


def _fit_threshold(
    config: Config, folder: Location, plan: RunPlan, pairs: Sequence[RunPair], what: tuple[str | None, MeasurePairs]
) -> Fitted | None:
    """Threshold of all members or of one name, remembered since it takes a pass over the pairs; None without change."""
    name, measure = what
    aim, ensembles = config.predict.aim, ensembles_of(pairs, name)
    pairs = _predicted(pairs, ensembles)
    measured = measure(pairs, ensembles, ensemble_scores) if pairs else {}
    scores = [measured[pair_id] for pair_id in sorted(measured)]
    if not scores or not any(sum(each.changed) for each in scores):
        return None
    total = sum(scores[1:], scores[0])
    kind = next(iter(plan.unseen.values()), "validation")
    parts = f"{kind} strips of" if any(pair.strips for pair in pairs) else f"{kind} pairs"
    where = f"on {parts} {', '.join(sorted(ensembles))}"
    if isinstance(aim, str):
        threshold, f1 = best_threshold(*(scores if aim == "mean_f1" else [total]))
        fitted_on = f"best {'mean F1 of a pair' if aim == 'mean_f1' else 'F1'}, {f1:.3f}, {where}"
    else:
        threshold = find_aim(total, aim)
        fitted_on = f"{aim.wanted[0]} {aim.wanted[1]:g} {where}"
    members = [member for member in plan.members if name in (None, member.name)]
    write_json(
        _threshold_file(folder, name),
        {
            "key": _threshold_key(config, pairs, name),
            "members": describe_members(members),
            "threshold": threshold,
            "fitted_on": fitted_on,
        },
    )
    return threshold, fitted_on


def _wants_members(config: Config) -> bool:
    return "auto" in (config.predict.temperature, config.predict.weights)


def _members_key(config: Config, pairs: Sequence[RunPair]) -> str:
    options = config.predict
    parts: list[list[Any]] = [[*pair.to_fit_on.key[1:], *map(list, pair.shares())] for pair in pairs]
    given = [member.temperature for pair in pairs for member in pair.members]
    if any(each != 1.0 for each in given):
        parts.append(given)
    wanted = [options.temperature, "auto" if options.weights == "auto" else None]
    return content_key("change", {"members": parts, "wanted": wanted})


def _read_members(config: Config, folder: Location, pairs: Sequence[RunPair]) -> FittedMembers | None:
    known = read_json(folder / "members.json")
    if isinstance(known, dict) and known.get("key") == _members_key(config, pairs):
        return {what: known[what] for what in ("temperatures", "weights")}
    return None


def _with_fitted_members(plan: RunPlan, fitted: FittedMembers) -> RunPlan:
    temperatures, weights = fitted["temperatures"], fitted["weights"]
    return plan.with_members(
        [
            replace(
                each,
                temperature=temperatures.get(each.name, each.temperature),
                weight=weights.get(each.name, each.weight),
            )
            for each in plan.members
        ]
    )


def _fit_members(config: Config, plan: RunPlan, pairs: Sequence[RunPair], measure: MeasurePairs) -> FittedMembers:
    """Temperatures and weights by the models' names; none where they are not wanted or cannot be fitted."""
    names = list(dict.fromkeys(member.name for member in plan.members))
    temperatures: dict[str, float] = {}
    weights: dict[str, float] = {}
    if not pairs:
        return {"temperatures": temperatures, "weights": weights}
    alone = {name: ensembles_of(pairs, name) for name in names}
    if config.predict.temperature == "auto":
        for name in names:
            scores = list(measure(_predicted(pairs, alone[name]), alone[name], ensemble_logits).values())
            temperatures[name] = fit_temperature(sum(scores[1:], scores[0])) if scores else 1.0
            alone[name] = {pair_id: _softer(each, temperatures[name]) for pair_id, each in alone[name].items()}
    for name in names:
        pairs = _predicted(pairs, alone[name])
    if config.predict.weights == "auto" and len(names) > 1 and pairs:
        weights = dict(zip(names, _fit_weights(plan.workspace, pairs, list(alone.values())), strict=True))
    return {"temperatures": temperatures, "weights": weights}


def _predicted(pairs: Sequence[RunPair], ensembles: Mapping[str, Ensemble]) -> list[RunPair]:
    """The pairs that have these ensembles: detectors may leave some to networks."""
    return [pair for pair in pairs if pair.pair_id in ensembles]


def _softer(ensemble: Ensemble, temperature: float) -> Ensemble:
    return replace(ensemble, temperatures=(temperature,) * len(ensemble.members))


def _fit_weights(workspace: Workspace, pairs: Sequence[RunPair], alone: list[dict[str, Ensemble]]) -> list[float]:
    pixels = sum(pair.stored.grid.height * pair.stored.grid.width for pair in pairs)
    step = max(1, round((pixels / PIXELS) ** 0.5))
    parts = []
    for pair in sorted(pairs, key=lambda pair: pair.pair_id):
        ensembles = [each[pair.pair_id] for each in alone]
        parts.append(sample_members(workspace, pair.to_fit_on, ensembles, step))
    probabilities, labels = zip(*parts, strict=True)
    return fit_weights(np.concatenate(probabilities), np.concatenate(labels))
