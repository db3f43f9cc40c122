"""Prediction of many pairs, each pair's rasters written beside it as soon as its last block is stored."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cdpipe.distributed.predict import DoBlock, do_block, predict_blocks
from cdpipe.distributed.tasks import Background
from cdpipe.stages.products import RasterJob, rasters_are_written, write_rasters
from cdpipe.stages.result_groups import finish_results
from cdpipe.stages.run_plan import BlockWork, PredictJob


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a pair: a block was worked on, it failed (with the reason), or it is published."""

    pair: int
    block: bool = False
    published: bool = False
    failure: str | None = None
    details: str = ""
    spent: Mapping[str, float] = field(default_factory=dict)


def predict_only(job: PredictJob, work: Sequence[BlockWork], workers: int, do: DoBlock = do_block) -> Iterator[Event]:
    """Predict blocks without making rasters of them; a pair may fail more than once."""
    for result in predict_blocks(job, work, workers, do) if work else ():
        yield Event(result.pair, block=True, failure=result.error, details=result.details, spent=result.spent)


def publish_pair(task: tuple[PredictJob, RasterJob]) -> None:
    """Declare a pair's results finished and write its rasters.

    Args:
        task: The run of that pair alone, and its rasters.
    """
    job, rasters = task
    finish_results(job, 0)
    if not rasters_are_written(rasters):
        write_rasters(rasters)


def predict_and_publish(
    job: PredictJob,
    work: Sequence[BlockWork],
    workers: int,
    rasters: Sequence[RasterJob],
    do: DoBlock = do_block,
    publish: Callable[[tuple[PredictJob, RasterJob]], None] = publish_pair,
) -> Iterator[Event]:
    """Predict missing blocks and publish every pair that is complete.

    Args:
        job: The run.
        work: What is missing, in the order of pairs.
        workers: Actors that hold models.
        rasters: The rasters of each pair.
        do: Called in workers with each block.
        publish: Called in workers with each pair whose blocks are all stored.

    Yields:
        An event for every block, and one for every pair: published or failed.
    """
    left, failed = Counter(item.pair for item in work), set()
    background = Background(publish)
    for event in predict_only(job, work, workers, do):
        number = event.pair
        left[number] -= 1
        if event.failure is None or number not in failed:
            yield event
        if event.failure is not None:
            failed.add(number)
        elif not left[number] and number not in failed:
            background.start(number, (job.only(number), rasters[number]))
        yield from _collect(background, wait=False)
    # what needs no block comes last: workers would wait for it
    for number in range(len(job.pairs)):
        if number not in left:
            yield from _publish(job, number, rasters[number], background)
    yield from _collect(background, wait=True)


def _publish(job: PredictJob, number: int, rasters: RasterJob, background: Background) -> Iterator[Event]:
    if rasters_are_written(rasters):
        finish_results(job, number)
        yield Event(number, published=True)
    else:
        background.start(number, (job.only(number), rasters))


def _collect(background: Background, *, wait: bool) -> Iterator[Event]:
    for number, _, error in background.collect(wait=wait):
        yield Event(number, published=error is None, failure=None if error is None else f"rasters: {error}")
