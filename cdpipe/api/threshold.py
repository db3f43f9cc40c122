"""What a wanted precision or recall costs, on pairs that no model learned from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cdpipe.api.predict import measure_by_tasks, plan_before_fitting, predict_to_fit_on, with_fitted_weights
from cdpipe.config.schema import Aim, Config
from cdpipe.errors import ConfigError, InputError
from cdpipe.metrics.counts import Counts, ScoreHistogram, best_threshold, counts_by_threshold
from cdpipe.metrics.intervals import intervals_over_pairs, pixel_figures
from cdpipe.prediction.ensemble import ensemble_scores
from cdpipe.runs.fit import ensembles_of, find_aim
from cdpipe.runs.plan import model_sources
from cdpipe.runs.run import Run, take_inventory

FIGURES = ("precision", "recall", "f1", "iou")

Figure = tuple[float, tuple[float, float] | None]  # its value, and its interval where it has one


@dataclass(frozen=True, slots=True)
class ThresholdPlan:
    """What a threshold would be looked for with: so many pairs in the store, and models."""

    pairs: int
    models: int


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """A point of the threshold curve.

    Attributes:
        threshold: Of the ensemble's probability.
        figures: ``precision``, ``recall``, ``f1`` and ``iou`` of pixels there, pooled over pairs, each with its 95 %
            interval over pairs.
        pairs: How many pairs that is of.
        kind: What they are: ``out-of-fold`` or ``validation``.
    """

    threshold: float
    figures: Mapping[str, Figure]
    pairs: int
    kind: str


def plan_threshold(run: Run) -> ThresholdPlan:
    """What :func:`find_threshold` would work with; nothing is written.

    Args:
        run: The run.

    Raises:
        ConfigError: If the run votes.
        InputError: If no pair is in the store or a model is not trained.
    """
    _refuse_votes(run.config)
    inventory = take_inventory(run)
    return ThresholdPlan(len(inventory.pairs), len(model_sources(run.config, run.workspace, inventory)))


def find_threshold(run: Run, *, precision: float | None = None, recall: float | None = None) -> ThresholdPoint:
    """The threshold of the best F1, or one that reaches a precision or a recall; pairs to fit on are predicted first.

    Args:
        run: The run.
        precision: At least this much, from 0 to 1.
        recall: At least this much, from 0 to 1; one of the two.

    Raises:
        ConfigError: If the run votes, what is wanted is no share, or no threshold reaches it.
        InputError: If there are no labelled pairs to fit on.
    """
    _refuse_votes(run.config)
    aim = None if precision is None and recall is None else _aim(precision, recall)
    with run.hold(keep_failures=True):
        scores, kind = _measure(run)
        first, *others = scores.values()
        total = sum(others, first)
        threshold = best_threshold(total)[0] if aim is None else find_aim(total, aim)
        return ThresholdPoint(threshold, _figures(scores, threshold), len(scores), kind)


def _refuse_votes(config: Config) -> None:
    if config.predict.ensemble == "vote":
        raise ConfigError("a vote has a threshold for each model; cdpipe threshold needs predict.ensemble: mean")


def _measure(run: Run) -> tuple[dict[str, ScoreHistogram], str]:
    """Histograms of the ensemble's probabilities by pair to fit on, and what these pairs are."""
    inventory = take_inventory(run)
    plan = plan_before_fitting(run, inventory, model_sources(run.config, run.workspace, inventory))
    fitting = predict_to_fit_on(run, plan)
    plan = with_fitted_weights(run, plan, fitting)
    pairs = [pair for pair in plan.pairs if pair.pair_id in fitting]
    scores = measure_by_tasks(run)(pairs, ensembles_of(pairs), ensemble_scores) if pairs else {}
    if not any(sum(of_pair.changed) for of_pair in scores.values()):
        raise InputError("no labelled change on val or out-of-fold pairs, and test pairs are not to be fitted on")
    return scores, next(iter(plan.unseen.values()))


def _aim(precision: float | None, recall: float | None) -> Aim:
    for name, share in (("precision", precision), ("recall", recall)):
        if share is not None and not 0 <= share <= 1:
            raise ConfigError(f"--{name}: expected a share from 0 to 1, got {share:g}")
    if precision is not None and recall is not None:
        raise ConfigError("--precision, --recall: expected one of the two")
    return Aim(precision=precision, recall=recall)


def _figures(scores: Mapping[str, ScoreHistogram], threshold: float) -> dict[str, Figure]:
    """Figures at a threshold, with intervals over pairs at that threshold."""
    counts = [counts_by_threshold(of_pair)[of_pair.thresholds.index(threshold)] for of_pair in scores.values()]
    values = np.array([(each.tp, each.fp, each.fn, each.tn) for each in counts], np.float64)
    intervals = intervals_over_pairs(values, pixel_figures)
    total = sum(counts, Counts())
    return {name: (getattr(total, name), intervals[name]) for name in FIGURES}
