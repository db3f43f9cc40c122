"""One block through one model: read, compute, store, record."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cdpipe.detectors.stored import compared_bands, detector_key, read_shown
from cdpipe.geo.grid import BlockKey, Window
from cdpipe.geo.tilings import PatchGrid, patch_stride
from cdpipe.inference.backends import choose_backend
from cdpipe.inference.patches import Execution, Forward, Placement, predict_window
from cdpipe.inference.shared import SharedPatches
from cdpipe.keys import content_key
from cdpipe.models.folder import ModelCard, load_network
from cdpipe.prediction.calibration import Calibration
from cdpipe.store.arrays import write_block
from cdpipe.store.normalisation import Recipe
from cdpipe.store.pair import StoredPair, read_observed, read_scenes
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
    if member.card.is_detector:  # which looks at all of a pair's bands, and is run in one way alone
        return detector_key(pair_key, member.card.architecture)
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
        # of the first, threads of one process took each other's answers; the second left the rest to torch
        parts["revision"] = 3
    if member.calibration is not None:
        parts["calibration"] = member.calibration.key
    return content_key("probability", parts)


def suit_execution(card: ModelCard, execution: Execution) -> Execution:
    """How a model is run that is to be run in a way, whose backend may be ``auto``.

    An exported network is run by its own runtime, in float32 on a CPU, whatever is asked for.
    """
    if card.is_exported:
        return Execution(execution.tta, "float32", "cpu", 1, card.arguments["runtime"])
    chosen = choose_backend(execution.backend, execution.precision, execution.device, card.architecture)
    return replace(execution, backend=chosen)


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
    if card.is_exported:
        from cdpipe.inference.exported import make_exported_forward

        return make_exported_forward(folder, card, execution)
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


Seen = tuple[Window, Recipe]  # pixels, and what is made of them


class Inputs:
    """What models see of a block: pixels that several of them look at are read once, and normalised once a recipe.

    What the last model that needs it has taken is forgotten.
    """

    def __init__(self, workspace: Workspace, pair: StoredPair, key: BlockKey, members: Sequence[Member]) -> None:
        """Read nothing yet.

        Args:
            workspace: Where the pair lies.
            pair: The pair.
            key: The block.
            members: Who will take what it sees, each once.
        """
        self._workspace, self._pair, self._window = workspace, pair, pair.window(key)
        self._left = Counter(self._seen(member) for member in members)
        self._observed: dict[Window, NDArray[np.bool_]] = {}
        self._scenes: dict[Seen, NDArray[np.float32]] = {}

    def take(self, member: Member) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Where the block with its halo was observed, and the model's input there; None where nobody saw the block."""
        seen = halo, recipe = self._seen(member)
        with timed("read"):
            if halo not in self._observed:
                self._observed[halo] = read_observed(self._workspace, self._pair, halo)
            observed = self._observed[halo]
            if not observed[self._window.slices_in(halo)].any():
                return observed, None
            if seen not in self._scenes:
                wanted = list(dict.fromkeys([recipe, *(other for at, other in self._left if at == halo)]))
                self._scenes |= dict(zip([(halo, own) for own in wanted], self._read(halo, wanted), strict=True))
        self._left[seen] -= 1
        if self._left[seen] > 0:
            return observed, self._scenes[seen]
        del self._left[seen]
        return observed, self._scenes.pop(seen)

    def _seen(self, member: Member) -> Seen:
        return Placement(member.patch_grid(self._pair), self._window).halo, member.card.recipe

    def _read(self, halo: Window, recipes: Sequence[Recipe]) -> list[NDArray[np.float32]]:
        scalings = [self._pair.scalings(recipe) for recipe in recipes]
        scenes = read_scenes(self._workspace, self._pair, halo, self._observed[halo], scalings)
        shown: dict[tuple[tuple[str, ...], tuple[str, ...]], NDArray[np.float32]] = {}
        for number, recipe in enumerate(recipes):
            if recipe.detectors:
                said = recipe.detectors, compared_bands(self._pair, recipe)
                if said not in shown:
                    shown[said] = read_shown(self._workspace, self._pair, halo, recipe)
                scenes[number] = np.concatenate([scenes[number], shown[said]])
        return scenes


def predict_block(  # noqa: PLR0913 (a block, a model, and what they share with others)
    workspace: Workspace,
    pair: StoredPair,
    key: BlockKey,
    member: Member,
    forward: Forward,
    inputs: Inputs | None = None,
    *,
    shared: SharedPatches | None = None,
) -> NDArray[np.float32]:
    """Compute and store one block of one model's probability.

    Args:
        workspace: Where the pair lies and the result goes.
        pair: The pair.
        key: The block.
        member: The model.
        forward: Its network, see :func:`load_forward`.
        inputs: What it sees of the block, where other models see it, too.
        shared: Its patches on the pair, where other blocks are made of them, too.

    Returns:
        What was stored: (height, width), NaN where not observed.
    """
    place = Placement(member.patch_grid(pair), pair.window(key))
    observed, scene = (inputs or Inputs(workspace, pair, key, [member])).take(member)
    if scene is not None:
        probability = predict_window(forward, member.execution.batch, scene, observed, place, shared)
    else:  # no imagery is read and no network run for what nobody saw
        probability = np.full(place.window.shape, np.nan, np.float32)
    store_probability(workspace, pair, key, member, probability)
    return probability


def store_probability(
    workspace: Workspace, pair: StoredPair, key: BlockKey, member: Member, probability: NDArray[np.float32]
) -> None:
    """Store one block of one model's probability, and record it.

    Args:
        workspace: Where it goes.
        pair: The pair.
        key: The block.
        member: The model.
        probability: (height, width), NaN where not observed.
    """
    own = probability_key(pair.key, member)
    group, records = (each("probabilities", pair.pair_id, own) for each in (workspace.group, workspace.records))
    with timed("write"):
        file, digest = write_block(group, "probability", pair.window(key), probability)
        crash_point("probability-unrecorded")
        write_record(block_record(records, key), workspace.root, {file: digest})
