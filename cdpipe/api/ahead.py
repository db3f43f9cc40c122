"""Prediction of pairs while others are still ingested, where the models are there already.

It decides nothing: what it stores and publishes lies under the keys under which ``predict``, which follows when all is
ingested, would store it. That finds it done, tries again what failed, and writes the manifest.
"""

import contextlib
import threading
from collections.abc import Collection, Iterator, Sequence

from cdpipe.api.ingest import ALONE, Follower
from cdpipe.api.predict import measure_by_tasks, with_fitted_weights
from cdpipe.geo.tilings import block_keys
from cdpipe.pairs.plan import PlannedPair, placed_pairs, stored_cells, stored_pair
from cdpipe.pairs.splits import Splits, known_splits
from cdpipe.runs.fit import fit_thresholds, pairs_to_fit_on, wants_fitting
from cdpipe.runs.manifest import manifest_path
from cdpipe.runs.members import plan_members
from cdpipe.runs.plan import (
    RunPlan,
    count_patches,
    lacking_bands,
    missing_work,
    model_sources,
    pair_products,
    plan_run,
    without_pairs,
)
from cdpipe.runs.run import Inventory, Run, rounded
from cdpipe.timing import add

# Actors take seconds to start, and models to load: for fewer blocks that are to be ingested still it is not worth it.
LEAST_LEFT = 64


@contextlib.contextmanager
def predicting_ahead(run: Run) -> Iterator[Follower]:
    """Predict what an ingest stores while it goes on; at the end wait for what is under way.

    Args:
        run: The run.

    Yields:
        What to tell the ingest: nothing where models are not given, or are to be calibrated on pairs of this run, or
        where threads of this process do both.

    Raises:
        CdpipeError: If prediction failed for a reason that no pair has, such as GPUs that did not come.
    """
    from cdpipe.cluster.start import stays_here

    # threads that predict would take from those that ingest, and scenes that few are soon ingested
    if run.config.predict.takes_trained or run.config.predict.precision == "int8" or stays_here(run):
        yield ALONE
        return
    ahead = _Ahead(run)
    yield Follower(ahead.order, ahead.ended, ahead.goes_on)
    ahead.finish()  # not where the ingest was given up: waves then end with Ray's session


class _Ahead:
    """Predicts what is in the store, in waves: each has all pairs that were ingested while the one before went on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._splits = Splits()
        self._awaited: set[str] = set()  # pairs to fit thresholds on that are not in the store yet
        self._late = False  # whether only all labels together say which pairs, or strips of them, these are
        self._ready: dict[str, PlannedPair] = {}
        self._new = False  # whether a pair is ready that no wave had
        self._published: set[str] = set()
        self._failed: set[str] = set()  # left to the prediction that follows, which tries them again and tells
        self._blocks = 0
        self._wave: threading.Thread | None = None
        self._error: BaseException | None = None

    def order(self, planned: Sequence[PlannedPair]) -> list[PlannedPair]:
        """Pairs that thresholds are to be fitted on come first: nothing can be published before."""
        run, config = self._run, self._run.config
        by_id = {item.pair.pair_id: item for item in planned}
        self._splits = known_splits(config, placed_pairs(planned), stored_cells(run.workspace, planned))
        self._blocks = sum(len(block_keys(name, item.grid.shape, config.align.block)) for name, item in by_id.items())
        self._ready = {name: item for name, item in by_id.items() if stored_pair(run.workspace, item) is not None}
        self._new = bool(self._ready)
        inventory = Inventory((), self._splits)
        members = plan_members(config, model_sources(config, run.workspace, inventory), "cpu")
        if not wants_fitting(config, plan_run(config, run.workspace, inventory, members)):
            return list(planned)
        first = {name for name in self._splits.parts("val") if by_id[name].label_key}
        self._awaited = first - set(self._ready)
        self._late = not first and any(item.label_key for item in planned)
        return sorted(planned, key=lambda item: item.pair.pair_id not in first)

    def ended(self, item: PlannedPair, stored: bool) -> None:
        """Note that a pair is in the store, or has failed."""
        name = item.pair.pair_id
        self._awaited.discard(name)
        if stored and name not in self._ready:
            self._ready[name] = item
            self._new = True

    def goes_on(self, left: int) -> None:
        """Begin a wave, if there is something for it and enough blocks are left to be ingested meanwhile."""
        busy = self._wave is not None and self._wave.is_alive()
        if busy or self._error is not None or not self._new or left < LEAST_LEFT:
            return
        self._new = False
        ready = tuple(self._ready.values())
        may_fit = not (self._awaited or self._late)
        self._wave = threading.Thread(target=self._try, args=(ready, may_fit), daemon=True)
        self._wave.start()

    def finish(self) -> None:
        """Wait for the wave that is under way, and raise what one of them failed of."""
        if self._wave is not None:
            self._wave.join()
        if self._error is not None:
            raise self._error

    def _try(self, ready: Sequence[PlannedPair], may_fit: bool) -> None:
        try:
            self._predict(ready, may_fit)
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits for this one)
            self._error = error

    def _predict(self, ready: Sequence[PlannedPair], may_fit: bool) -> None:
        """Predict and publish pairs; or predict them alone, where pairs that thresholds are fitted on are missing."""
        from cdpipe.cluster.needs import plan_device
        from cdpipe.cluster.predict import with_probed_batches

        run, config, workspace = self._run, self._run.config, self._run.workspace
        stored = tuple((item, pair) for item in ready if (pair := stored_pair(workspace, item)) is not None)
        inventory = Inventory(stored, self._splits)
        sources = model_sources(config, workspace, inventory)
        plan = plan_run(config, workspace, inventory, plan_members(config, sources, plan_device(run)))
        plan = without_pairs(plan, {*lacking_bands(plan), *self._failed})
        if not plan.pairs:
            return
        plan = with_probed_batches(run, plan)
        fitting: list[str] = []
        if wants_fitting(config, plan):
            numbers = pairs_to_fit_on(plan) if may_fit else range(len(plan.pairs))
            self._work(plan, numbers, publish=False)
            fitting = [plan.pairs[number].pair_id for number in numbers]
            if not may_fit or not self._failed.isdisjoint(fitting):
                return
        plan = with_fitted_weights(run, plan, fitting)
        plan = fit_thresholds(config, run.folder, plan, fitting, measure_by_tasks(run))
        plan = without_pairs(plan, self._published)
        self._work(plan, range(len(plan.pairs)), publish=True)

    def _work(self, plan: RunPlan, numbers: Collection[int], *, publish: bool) -> None:
        """Predict pairs, and publish them if thresholds are known."""
        from cdpipe.cluster.needs import asked_for_models
        from cdpipe.cluster.predict import predict_and_publish, predict_only

        work, run = list(missing_work(plan, numbers)), self._run
        if not work:
            return
        manifest_path(run.folder).unlink(missing_ok=True)
        facts, spent = {"blocks": len(work), "patches": count_patches(plan, work)}, dict[str, float]()
        with (
            asked_for_models(run, "predict", self._blocks) as actors,
            run.logged("predict", facts, beside=True) as figures,
            run.step("predict meanwhile: blocks", len(work)) as advance,
        ):
            products = [pair_products(run.config, plan, pair) for pair in plan.pairs] if publish else []
            events = predict_and_publish(plan, work, actors, products) if publish else predict_only(plan, work, actors)
            for event in events:
                pair_id = plan.pairs[event.pair].pair_id
                if event.failure is not None:
                    self._failed.add(pair_id)
                if event.published:
                    self._published.add(pair_id)
                add(spent, event.spent)
                advance(int(event.block), f"{len(self._published)} pairs published")
            figures.update(rounded(spent))
