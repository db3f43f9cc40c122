"""The groups of the store that a run's results lie in: made empty, and declared finished."""

from typing import Any

from cdpipe.prediction.block import probability_key
from cdpipe.runs.plan import RunPair, RunPlan
from cdpipe.store.groups import CHANGE_ARRAYS, PROBABILITY_ARRAYS, create_group, finish_group, is_described
from cdpipe.workspace.layout import Kind, Workspace
from cdpipe.workspace.records import GROUP_RECORD


def create_result_groups(workspace: Workspace, pair: RunPair) -> None:
    """Make the empty arrays of a pair's results, where they are not there yet."""
    stored = pair.stored
    for member in pair.members:
        group = workspace.group("probabilities", pair.pair_id, probability_key(stored.key, member))
        facts = {"model": member.card.name, "model_key": member.card.key, "pair": stored.key}
        create_group(group, PROBABILITY_ARRAYS, stored.grid, stored.block, facts)
    if pair.ensemble is not None:
        ensemble = pair.ensemble
        group = workspace.group("changes", pair.pair_id, ensemble.key)
        attributes: dict[str, Any] = {"of": [list(each) for each in ensemble.members], "threshold": ensemble.threshold}
        if ensemble.temperatures:
            attributes["temperatures"] = list(ensemble.temperatures)
        if ensemble.votes:
            attributes["votes"] = list(ensemble.votes)
        create_group(group, CHANGE_ARRAYS, stored.grid, stored.block, attributes)


def finish_results(workspace: Workspace, pair: RunPair) -> None:
    """Record the metadata of a pair's finished results; what verification took away of it is put back."""
    create_result_groups(workspace, pair)
    for kind, key in _result_groups(pair):
        if not (workspace.records(kind, pair.pair_id, key) / GROUP_RECORD).is_file():
            finish_group(workspace, kind, pair.pair_id, key)


def results_are_finished(plan: RunPlan) -> bool:
    """Whether :func:`finish_results` has nothing to do for any pair."""
    layers = {"probabilities": PROBABILITY_ARRAYS, "changes": CHANGE_ARRAYS}
    workspace = plan.workspace
    return all(
        is_described(workspace.group(kind, pair.pair_id, key), layers[kind], pair.stored.grid)
        and (workspace.records(kind, pair.pair_id, key) / GROUP_RECORD).is_file()
        for pair in plan.pairs
        for kind, key in _result_groups(pair)
    )


def _result_groups(pair: RunPair) -> list[tuple[Kind, str]]:
    groups: list[tuple[Kind, str]] = [("probabilities", key) for key, _ in pair.shares()]
    return [*groups, ("changes", pair.change.key)]
