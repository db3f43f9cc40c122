"""One block through one model: read, compute, store, record."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdpipe.geo.grid import BlockKey
from cdpipe.geo.tilings import PatchGrid, patch_stride
from cdpipe.inference.patches import Execution, Forward, Placement, predict_window
from cdpipe.keys import content_key
from cdpipe.models.folder import ModelCard, load_network
from cdpipe.prediction.calibration import Calibration
from cdpipe.store.arrays import write_block
from cdpipe.store.pair import StoredPair, read_observed, read_scene
from cdpipe.timing import timed
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import block_record, write_record


@dataclass(frozen=True, slots=True)
class Member:
    """A model that takes part in a prediction.

    Attributes:
        card: The model's card.
        folder: Its folder.
        name: The model's name in the configuration, which the models of all folds share.
        fold: The fold of training pairs that it never saw; None where it is not one of several.
        weight: Share of that name in the ensemble (any positive number).
        overlap: Overlap of neighbouring patches as a share of the patch.
        execution: How it is run.
        temperature: What its logits are divided by in the ensemble.
        calibration: What it is calibrated on, where it is run in int8.
    """

    card: ModelCard
    folder: Location
    name: str
    fold: int | None
    weight: float
    overlap: float
    execution: Execution
    calibration: Calibration | None = None
    temperature: float = 1.0

    def patch_grid(self, pair: StoredPair) -> PatchGrid:
        """Where this model's patches lie on a pair."""
        return PatchGrid(pair.grid.shape, self.card.patch, patch_stride(self.card.patch, self.overlap))


def probability_key(pair_key: str, member: Member) -> str:
    """Key of what a model says about a pair."""
    run = member.execution
    parts = {
        "pair": pair_key,
        "model": member.card.key,
        "stride": patch_stride(member.card.patch, member.overlap),
        "tta": run.tta,
        "precision": run.precision,
        "backend": f"{run.backend}-{run.device}",
        "batch": run.batch,
    }
    if run.channels_last:
        parts["layout"] = "channels_last"
    at_once = run.views_at_once(member.card.patch)
    if at_once < run.views:
        parts["views_at_once"] = at_once
    if run.backend == "openvino":
        parts["folded"] = True  # see `fold_doubling`: the network's own sums have other last bits
    if member.calibration is not None:
        parts["calibration"] = member.calibration.key
    return content_key("probability", parts)


def load_forward(member: Member) -> Forward:
    """A member's network, ready to run by its backend; see :func:`open_forward`."""
    return open_forward(member.folder, member.card, member.execution, member.calibration)


def open_forward(
    folder: Location, card: ModelCard, execution: Execution, calibration: Calibration | None = None
) -> Forward:
    """A model, ready to run.

    Raises:
        ConfigError: If the backend cannot be had here.
        InputError: If there is no such network, or its weights are not finite.
        IntegrityError: If the weights are missing, are not the ones the card names, or do not fit.
    """
    if execution.backend == "openvino":
        from cdpipe.inference.openvino import make_openvino_forward

        return make_openvino_forward(folder, card, execution, calibration)
    from cdpipe.inference.torch import make_forward

    return make_forward(load_network(folder, card), execution)


def is_predicted(workspace: Workspace, pair: StoredPair, key: BlockKey, member: Member) -> bool:
    """Whether a block of a model's probability is stored and recorded."""
    return block_record(
        workspace.records("probabilities", pair.pair_id, probability_key(pair.key, member)), key
    ).is_file()


def predict_block(
    workspace: Workspace, pair: StoredPair, key: BlockKey, member: Member, forward: Forward
) -> NDArray[np.float32]:
    """Compute and store one block of one model's probability.

    Args:
        workspace: Where the pair lies and the result goes.
        pair: The pair.
        key: The block.
        member: The model.
        forward: Its network, see :func:`load_forward`.

    Returns:
        What was stored: (height, width), NaN where not observed.
    """
    place = Placement(member.patch_grid(pair), pair.window(key))
    with timed("read"):
        observed = read_observed(workspace, pair, place.halo)
    if observed[place.window.slices_in(place.halo)].any():
        with timed("read"):
            scene = read_scene(workspace, pair, place.halo, observed, pair.scalings(member.card.recipe))
        probability = predict_window(forward, member.execution.batch, scene, observed, place)
    else:  # no imagery is read and no network run for what nobody saw
        probability = np.full(place.window.shape, np.nan, np.float32)
    own = probability_key(pair.key, member)
    group, records = (each("probabilities", pair.pair_id, own) for each in (workspace.group, workspace.records))
    with timed("write"):
        file, digest = write_block(group, "probability", place.window, probability)
        crash_point("probability-unrecorded")
        write_record(block_record(records, key), workspace.root, {file: digest})
    return probability
