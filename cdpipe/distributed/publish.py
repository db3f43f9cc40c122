"""Prediction of many pairs, each pair's products made beside it as soon as its last block is stored."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cdpipe.distributed.predict import DoBlock, do_block, predict_blocks
from cdpipe.distributed.tasks import Background
from cdpipe.prediction.job import BlockWork, PredictJob, finish_results
from cdpipe.runs.products import PairProducts, products_are_written, write_products


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
    """Predict blocks without making products of them; a pair may fail more than once."""
    for result in predict_blocks(job, work, workers, do) if work else ():
        yield Event(result.pair, block=True, failure=result.error, details=result.details, spent=result.spent)


def publish_pair(task: tuple[PredictJob, PairProducts]) -> None:
    """Declare a pair's results finished and make its products.

    Args:
        task: The run of that pair alone, and its products.
    """
    job, products = task
    finish_results(job, 0)
    write_products(products)


def predict_and_publish(
    job: PredictJob,
    work: Sequence[BlockWork],
    workers: int,
    products: Sequence[PairProducts],
    do: DoBlock = do_block,
    publish: Callable[[tuple[PredictJob, PairProducts]], None] = publish_pair,
) -> Iterator[Event]:
    """Predict missing blocks and publish every pair that is complete.

    Args:
        job: The run.
        work: What is missing, in the order of pairs.
        workers: Actors that hold models.
        products: The products of each pair.
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
            background.start(number, (job.only(number), products[number]))
        yield from _collect(background, wait=False)
    # what needs no block comes last: workers would wait for it
    for number in range(len(job.pairs)):
        if number not in left:
            yield from _publish(job, number, products[number], background)
    yield from _collect(background, wait=True)


def _publish(job: PredictJob, number: int, products: PairProducts, background: Background) -> Iterator[Event]:
    if products_are_written(products):
        finish_results(job, number)
        yield Event(number, published=True)
    else:
        background.start(number, (job.only(number), products))


def _collect(background: Background, *, wait: bool) -> Iterator[Event]:
    for number, _, error in background.collect(wait=wait):
        yield Event(number, published=error is None, failure=None if error is None else f"products: {error}")
