"""``cdpipe threshold``: what a wanted precision or recall costs, on pairs that no model learned from."""

from typing import Any

import numpy as np
from rich.table import Table

from cdpipe.cli.session import Session, stored_pairs
from cdpipe.config.schema import Aim
from cdpipe.errors import ConfigError, InputError
from cdpipe.metrics.counts import Counts, ScoreHistogram, best_threshold, counts_by_threshold
from cdpipe.metrics.intervals import intervals_over_pairs, pixel_figures
from cdpipe.prediction.ensemble import ensemble_scores
from cdpipe.prediction.fit import ensembles_of, find_aim, fit_members, fit_on, pair_scores
from cdpipe.prediction.job import plan_members
from cdpipe.runs.plan import model_sources, plan_fitting


def run(session: Session) -> None:
    """Print the point of the threshold curve that was asked for, and how to use it.

    Raises:
        ConfigError: If the run votes, or no threshold reaches what is wanted.
        InputError: If there are no labelled pairs to fit on.
    """
    request, options = session.request, session.config.predict
    if options.ensemble == "vote":
        raise ConfigError("a vote has a threshold for each model; cdpipe threshold needs predict.ensemble: mean")
    planned = stored_pairs(session)
    sources = model_sources(session, planned)
    if session.dry_run:
        session.say(f"threshold: {len(planned)} pair(s), {len(sources)} model(s)")
        return
    session.start_ray()
    from cdpipe.cluster.session import total_gpus

    members = plan_members(session.config, sources, "cuda" if total_gpus() else "cpu")
    planned, job, unseen = plan_fitting(session, planned, sources, members)
    job = fit_members(session, planned, job, unseen)
    fitting = fit_on(session, planned, job, unseen)
    scores = pair_scores(session, fitting, ensembles_of(job, fitting), ensemble_scores) if fitting else {}
    if not any(sum(each.changed) for each in scores.values()):
        raise InputError("no labelled change on val or out-of-fold pairs, and test pairs are not to be fitted on")
    aim = None if request.precision is None and request.recall is None else _aim(request)
    first, *others = scores.values()
    total = sum(others, first)
    threshold = best_threshold(total)[0] if aim is None else find_aim(total, aim)
    kind = next(iter(unseen.values()))
    session.console.print(_table(scores, threshold, f"Threshold {threshold:.3f} on {len(scores)} {kind} pair(s)"))
    if len(scores) < 2:
        session.say("threshold: no intervals over a single pair")
    wanted = "f1" if aim is None else f"{{{aim.wanted[0]}: {aim.wanted[1]:g}}}"
    session.say("to use it, whatever the models: predict with")
    session.say(f"  --set predict.threshold=auto --set 'predict.aim={wanted}'")


def _aim(request: Any) -> Aim:
    for name in ("precision", "recall"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"--{name}: expected a share from 0 to 1, got {value:g}")
    return Aim(precision=request.precision, recall=request.recall)


def _table(scores: dict[str, ScoreHistogram], threshold: float, title: str) -> Table:
    """Figures at a threshold, with intervals over pairs at that threshold."""
    counts = [_at(each, threshold) for each in scores.values()]
    values = np.array([(each.tp, each.fp, each.fn, each.tn) for each in counts], np.float64)
    intervals = intervals_over_pairs(values, pixel_figures)
    total = sum(counts, Counts())
    table = Table("figure", "value", "95 % interval over pairs", title=title)
    for name in ("precision", "recall", "f1", "iou"):
        bounds = intervals[name]
        table.add_row(name, f"{getattr(total, name):.3f}", f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "-")
    return table


def _at(scores: ScoreHistogram, threshold: float) -> Counts:
    return counts_by_threshold(scores)[scores.thresholds.index(threshold)]
