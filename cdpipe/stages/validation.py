"""Whole pairs through a network in training, window by window, reduced to summed counts."""

import torch
import torch.distributed

from cdpipe.geo.grid import BlockKey
from cdpipe.geo.tilings import PatchGrid
from cdpipe.inference.patches import Forward, Placement, predict_window
from cdpipe.metrics.counts import ScoreHistogram, score_histogram
from cdpipe.stages.train_job import TrainJob, Worker
from cdpipe.store.arrays import open_layer, read_window
from cdpipe.store.pair import LabelledPair, read_observed, read_scene

BINS = 1000
HALF = BINS // 2  # position of the threshold 0.5


def validate(job: TrainJob, worker: Worker, forward: Forward) -> ScoreHistogram:
    """Probabilities of all validation pairs against their labels, every pixel once, summed over workers.

    Patches do not overlap and are not augmented: that ranks epochs as well, at a fraction of the cost.
    """
    blocks = [(item, key) for item in job.val for key in item.pair.blocks()]
    total = ScoreHistogram(0.0, 1.0, (0,) * (BINS + 2), (0,) * (BINS + 2))
    for item, key in blocks[worker.rank :: worker.world]:
        total += _score_block(job, item, key, forward)
    return _sum_over_workers(total, worker)


def _score_block(job: TrainJob, item: LabelledPair, key: BlockKey, forward: Forward) -> ScoreHistogram:
    pair, patch = item.pair, job.options.patch
    place = Placement(PatchGrid(pair.grid.shape, patch, patch), pair.window(key))
    observed = read_observed(job.workspace, pair, place.halo)
    scene = read_scene(job.workspace, pair, place.halo, observed, pair.scalings(job.recipe))
    probability = predict_window(forward, job.options.global_batch, scene, observed, place)
    label = open_layer(job.workspace.group("labels", pair.pair_id, item.label_key), "label")
    return score_histogram(probability, read_window(label, place.window), bins=BINS)


def _sum_over_workers(histogram: ScoreHistogram, worker: Worker) -> ScoreHistogram:
    if worker.world == 1:
        return histogram
    counts = torch.tensor([histogram.changed, histogram.unchanged], dtype=torch.int64, device=worker.device)
    torch.distributed.all_reduce(counts)
    changed, unchanged = (tuple(row) for row in counts.tolist())
    return ScoreHistogram(histogram.low, histogram.high, changed, unchanged)
