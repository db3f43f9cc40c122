"""The groups of the store that a run's results lie in: made empty, and declared finished."""

from typing import Any

from cdpipe.stages.prediction import probability_key
from cdpipe.stages.run_plan import PredictJob, member_shares
from cdpipe.store.groups import CHANGE_LAYERS, PROBABILITY_LAYERS, create_group, finish_group, is_described
from cdpipe.workspace.layout import Kind
from cdpipe.workspace.records import GROUP_RECORD


def create_result_groups(job: PredictJob, number: int) -> None:
    """Make the empty arrays of a pair's results, where they are not there yet."""
    pair = job.pairs[number]
    for member in job.members_of(number):
        group = job.workspace.group("probabilities", pair.pair_id, probability_key(pair.key, member))
        facts = {"model": member.card.name, "model_key": member.card.key, "pair": pair.key}
        create_group(group, PROBABILITY_LAYERS, pair.grid, pair.block, facts)
    if job.ensembles:
        ensemble = job.ensembles[number]
        group = job.workspace.group("changes", pair.pair_id, ensemble.key)
        attributes: dict[str, Any] = {"of": [list(each) for each in ensemble.members], "threshold": ensemble.threshold}
        if ensemble.temperatures:
            attributes["temperatures"] = list(ensemble.temperatures)
        if ensemble.votes:
            attributes["votes"] = list(ensemble.votes)
        create_group(group, CHANGE_LAYERS, pair.grid, pair.block, attributes)


def finish_results(job: PredictJob, number: int) -> None:
    """Record the metadata of a pair's finished results; what verification took away of it is put back."""
    pair = job.pairs[number]
    create_result_groups(job, number)
    for kind, key in _result_groups(job, number):
        if not (job.workspace.records(kind, pair.pair_id, key) / GROUP_RECORD).is_file():
            finish_group(job.workspace, kind, pair.pair_id, key)


def results_are_finished(job: PredictJob, number: int) -> bool:
    """Whether :func:`finish_results` has nothing to do."""
    pair = job.pairs[number]
    layers = {"probabilities": PROBABILITY_LAYERS, "changes": CHANGE_LAYERS}
    return all(
        is_described(job.workspace.group(kind, pair.pair_id, key), layers[kind], pair.grid)
        and (job.workspace.records(kind, pair.pair_id, key) / GROUP_RECORD).is_file()
        for kind, key in _result_groups(job, number)
    )


def _result_groups(job: PredictJob, number: int) -> list[tuple[Kind, str]]:
    groups: list[tuple[Kind, str]] = [("probabilities", key) for key, _ in member_shares(job, number)]
    return [*groups, ("changes", job.ensembles[number].key)]
