"""Detectors that look at whole pairs, before workers take their blocks or samples."""

from collections.abc import Iterable, Sequence

from cdpipe.detectors.stored import compared_bands, find_fit, known_fit
from cdpipe.models.folder import ModelCard
from cdpipe.runs.run import Run
from cdpipe.store.normalisation import Recipe
from cdpipe.store.pair import StoredPair

Look = tuple[str, tuple[str, ...]]  # a detector, and names of the bands that it compares


def looks_of(pair: StoredPair, card: ModelCard) -> list[Look]:
    """Which detectors look at a pair for a model, or are that model."""
    return [(card.architecture, pair.roles)] if card.is_detector else looks_shown(pair, card.recipe)


def looks_shown(pair: StoredPair, recipe: Recipe) -> list[Look]:
    """Which detectors look at a pair because a model is shown what they say."""
    return [(detector, compared_bands(pair, recipe)) for detector in recipe.detectors]


def find_fits(run: Run, stage: str, wanted: Iterable[tuple[StoredPair, Sequence[Look]]]) -> dict[str, str]:
    """Let detectors look at the pairs that they have not looked at yet: each pair once, not each worker of its blocks.

    Args:
        run: The run.
        stage: What the step's title begins with.
        wanted: Pairs, and who looks at them.

    Returns:
        Of the pairs in which there is nothing to compare, by id: why.
    """
    jobs = []
    for pair, looks in wanted:
        unknown = [look for look in dict.fromkeys(looks) if known_fit(run.workspace, pair, *look) is None]
        if unknown:
            jobs.append((pair.pair_id, [(run.workspace, pair, *look) for look in unknown]))
    if not jobs:
        return {}
    from cdpipe.cluster.start import start_workers
    from cdpipe.cluster.tasks import map_pairs

    start_workers(run)
    blind = {}
    with run.step(f"{stage}: pairs that detectors look at", len(jobs)) as advance:
        # a lambda, since a function of this module would make every worker import what it does not need
        for pair_id, fits, error in map_pairs(run, stage, lambda job: [find_fit(*each) for each in job], jobs):
            advance(1, "")
            if fits is None:
                blind[pair_id] = str(error)
    return blind
