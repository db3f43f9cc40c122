"""Audits that run models, in tasks: some patches of a pair each, the counts sent back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from cdpipe.cluster import spread
from cdpipe.cluster.memory import MODEL_ENVIRONMENT
from cdpipe.cluster.needs import Actors, following
from cdpipe.cluster.tasks import describe_failure, run_bounded
from cdpipe.evaluation.probes import Probe, ProbeJob, probe_models

WINDOWS_A_TASK = 8  # four forwards each, beside which loading the models is little

Probes = dict[str, Probe]


def probe_pairs(
    jobs: Sequence[ProbeJob],
    actors: Actors,
    progress: Callable[[int], None],
    probe: Callable[[ProbeJob], Probes] = probe_models,
) -> Iterator[tuple[int, Probes, str | None]]:
    """Run models on the windows of pairs; each pair is reported once all of its windows are done.

    Args:
        jobs: The pairs.
        actors: What tasks run on.
        progress: Called with the number of windows just done.
        probe: Called in workers with some windows of a pair.

    Yields:
        Position of a pair, what was found, and the reason if it failed.
    """
    start = spread.starter(
        _with_one_thread(probe),
        cpus=0 if actors.gpus else 1,
        num_gpus=1 if actors.gpus else 0,
        resources=actors.resources,
        memory=actors.memory,
        runtime_env={"env_vars": MODEL_ENVIRONMENT},
    )
    parts = [
        (number, replace(job, windows=job.windows[first : first + WINDOWS_A_TASK]))
        for number, job in enumerate(jobs)
        for first in range(0, len(job.windows), WINDOWS_A_TASK)
    ]
    left = [sum(number == own for own, _ in parts) for number in range(len(jobs))]
    total: list[Probes] = [{} for _ in jobs]
    failed: dict[int, str] = {}
    done = run_bounded(lambda part: start(parts[part][1]), range(len(parts)), following(2))
    for part, found, error in done:
        number, own = parts[part]
        progress(len(own.windows))
        left[number] -= 1
        if error is not None:
            failed.setdefault(number, describe_failure(error))
        else:
            total[number] = {layer: total[number].get(layer, Probe()) + each for layer, each in found.items()}
        if not left[number]:
            yield number, total[number], failed.get(number)


def _with_one_thread(probe: Callable[[ProbeJob], Probes]) -> Callable[[ProbeJob], Probes]:
    def run(job: ProbeJob) -> Any:
        import torch

        torch.set_num_threads(1)  # sums are then in one order on every machine
        return probe(job)

    return run
