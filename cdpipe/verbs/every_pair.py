"""A function's results on every pair of a run, by Ray tasks; what goes wrong with a pair is that pair's failure."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from cdpipe.verbs.console import progress
from cdpipe.verbs.session import Session

Job = TypeVar("Job")
Result = TypeVar("Result")


def map_every_pair(
    session: Session, title: str, stage: str, function: Callable[[Job], Result], jobs: Sequence[tuple[str, Job]]
) -> dict[str, Result]:
    """Run a function on each pair's job, with a bar.

    Args:
        session: The session.
        title: Of the bar, such as ``audit: pairs``.
        stage: What the reason of a failure begins with.
        function: Takes a job. One of a verb's module makes every worker import what that verb does; a lambda does not.
        jobs: Each with its pair.

    Returns:
        Results by pair, in the order of their ids, without the pairs that failed.
    """
    session.start_ray()
    from cdpipe.cluster.tasks import map_pairs

    found: dict[str, Result] = {}
    with progress(session.console, title, len(jobs)) as advance:
        for pair_id, result, error in map_pairs(function, jobs):
            advance(1, "")
            if result is None:
                session.fail(pair_id, f"{stage}: {error}")
            else:
                found[pair_id] = result
    return dict(sorted(found.items()))
