"""Prediction by whoever does a run's tasks; each pair's products are made as soon as its last block is stored."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cdpipe.cluster import spread
from cdpipe.cluster.needs import Actors, asked_for_models, gpu_kind
from cdpipe.cluster.tasks import Background
from cdpipe.cluster.threads import Ran, predict_in_threads, tell_nobody
from cdpipe.runs.blocks import BlockResult, DoBlock, do_block
from cdpipe.runs.members import batch_name, remember_batches, remembered_batches, with_batches
from cdpipe.runs.plan import BlockWork, RunPlan, is_stored
from cdpipe.runs.products import Product, ensure_written, is_written
from cdpipe.runs.results import finish_results
from cdpipe.runs.run import Run


def predict_blocks(
    plan: RunPlan, work: Sequence[BlockWork], actors: Actors, do: DoBlock = do_block, ran: Ran = tell_nobody
) -> Iterator[BlockResult]:
    """Do the work, yielding each block's result as it comes, in any order.

    Args:
        plan: The run.
        work: What is missing.
        actors: Who does it, where that is Ray. Those that are not there yet take part as they come.
        do: Called with each block.
        ran: Called with the number of patches that a network was just run on, where threads of this process do it.
    """
    if spread.threads_here():
        return predict_in_threads(plan, work, spread.threads_here(), do, ran)
    from cdpipe.cluster.actors import predict_on_actors

    return predict_on_actors(plan, work, actors, do)


def with_probed_batches(run: Run, plan: RunPlan) -> RunPlan:
    """The plan with the batches that suit its GPUs, where any are to work; those not known for them yet are probed."""
    networks = [each for each in plan.members if not each.card.is_detector and each.execution.device == "cuda"]
    if not networks or is_stored(plan):
        return plan
    kind, kinds = gpu_kind(run.config.resources)
    if len(kinds) > 1:
        run.say(
            f"predict: there are GPUs of several kinds ({', '.join(kinds)}); batches are those that suit a {kind}; "
            "resources.accelerator_type asks for one kind alone"
        )
    known = remembered_batches(run.workspace).get(kind, {})
    unknown = [member for member in networks if batch_name(member) not in known]
    if unknown:
        run.say(f"predict: finds out how many patches suit a {kind}")
        with asked_for_models(run, "predict", 1) as actors:
            from cdpipe.cluster.actors import probe_batches

            known = known | probe_batches(unknown, actors)
        remember_batches(run.workspace, kind, known)
    return plan.with_members(with_batches(plan.members, known))


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a pair: a block was worked on, it failed (with the reason), or it is published."""

    pair: int
    block: bool = False
    published: bool = False
    failure: str | None = None
    details: str = ""
    spent: Mapping[str, float] = field(default_factory=dict)


def predict_only(
    plan: RunPlan, work: Sequence[BlockWork], actors: Actors, do: DoBlock = do_block, ran: Ran = tell_nobody
) -> Iterator[Event]:
    """Predict blocks without making products of them; a pair may fail more than once."""
    for result in predict_blocks(plan, work, actors, do, ran) if work else ():
        yield Event(result.pair, block=True, failure=result.error, details=result.details, spent=result.spent)


def publish_pair(task: tuple[RunPlan, tuple[Product, ...]]) -> None:
    """Declare a pair's results finished and make its products.

    Args:
        task: The run of that pair alone, and its products.
    """
    plan, products = task
    finish_results(plan.workspace, plan.pairs[0])
    # objects and rasters take about as long; a task of Ray has no CPU to spare
    with ThreadPoolExecutor(max(1, spread.threads_here()), "cdpipe-products") as pool:
        list(pool.map(ensure_written, products))


def predict_and_publish(  # noqa: PLR0913 (what is done is not the default in tests and benchmarks alone)
    plan: RunPlan,
    work: Sequence[BlockWork],
    actors: Actors,
    products: Sequence[tuple[Product, ...]],
    do: DoBlock = do_block,
    publish: Callable[[tuple[RunPlan, tuple[Product, ...]]], None] = publish_pair,
    *,
    ran: Ran = tell_nobody,
) -> Iterator[Event]:
    """Predict missing blocks and publish every pair that is complete.

    Args:
        plan: The run.
        work: What is missing, in the order of pairs.
        actors: Who does it. Those that are not there yet take part as they come.
        products: The products of each pair.
        do: Called in workers with each block.
        publish: Called in workers with each pair whose blocks are all stored.
        ran: See :func:`predict_blocks`.

    Yields:
        An event for every block, and one for every pair: published or failed.
    """
    left, failed = Counter(item.pair for item in work), set()
    background = Background(publish)
    for event in predict_only(plan, work, actors, do, ran):
        number = event.pair
        left[number] -= 1
        if event.failure is None or number not in failed:
            yield event
        if event.failure is not None:
            failed.add(number)
        elif not left[number] and number not in failed:
            background.start(number, (plan.only(number), products[number]))
        yield from _collect(background, wait=False)
    # what needs no block comes last: workers would wait for it
    for number in range(len(plan.pairs)):
        if number not in left:
            yield from _publish(plan, number, products[number], background)
    yield from _collect(background, wait=True)


def _publish(plan: RunPlan, number: int, products: tuple[Product, ...], background: Background) -> Iterator[Event]:
    if all(map(is_written, products)):
        finish_results(plan.workspace, plan.pairs[number])
        yield Event(number, published=True)
    else:
        background.start(number, (plan.only(number), products))


def _collect(background: Background, *, wait: bool) -> Iterator[Event]:
    for number, _, error in background.collect(wait=wait):
        yield Event(number, published=error is None, failure=None if error is None else f"products: {error}")
