"""Who does a run's tasks: threads of this process where there is little to do, else Ray."""

from cdpipe.cluster import spread
from cdpipe.errors import InputError
from cdpipe.formats.gate import describe_raster
from cdpipe.pairs.catalog import read_catalog
from cdpipe.runs.run import Run

# Scenes of so many pixels in all are done by threads: Ray takes some ten seconds to start and stop, and as much memory
# as a network, but uses many cores better, and survives what ends a process.
MOST_PAIRS, MOST_PIXELS = 64, 2**27


def start_workers(run: Run, *, ray: bool = False) -> None:
    """See to it that tasks can be started, until the run's outermost call ends.

    Args:
        run: The run.
        ray: Whether it has to be Ray, which training needs.
    """
    if not ray and (spread.threads_here() or stays_here(run)):
        if not spread.threads_here():
            run.resources.enter_context(spread.done_by(spread.count_threads(run.config.resources)))
            spread.end_as_interrupted()
        return
    from cdpipe.cluster.session import ray_session

    run.resources.enter_context(spread.done_by(0))
    run.resources.enter_context(ray_session(run.config.resources, run.verbose))


def stays_here(run: Run) -> bool:
    """Whether threads of this process do the run's tasks: without a GPU or cluster, if its scenes are few and small."""
    if not spread.may_stay_here(run.config.resources):
        return False
    pairs = read_catalog(run.config)
    if len(pairs) > MOST_PAIRS:
        return False
    pixels = 0
    for pair in pairs:
        try:
            grid = describe_raster(pair.before.path, run.config.input).grid
        except InputError:
            continue  # it is not going to be worked on
        pixels += grid.height * grid.width
    return pixels <= MOST_PIXELS
