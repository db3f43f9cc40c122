"""Model folders: weights as safetensors, and a JSON card with all that prediction needs besides."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cdpipe.config.detectors import DETECTORS
from cdpipe.errors import InputError, IntegrityError
from cdpipe.keys import content_key
from cdpipe.models.exported import EXPORTED, describe_exported, is_exported
from cdpipe.models.networks import build_model, find_network, input_kind, shown_detectors
from cdpipe.store.normalisation import Recipe
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.files import SEAL, read_json, write_json, write_sealed
from cdpipe.workspace.location import Location

if TYPE_CHECKING:
    import torch
    from torch import nn

WEIGHTS = "model.safetensors"
CARD = "model.json"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What ``model.json`` holds.

    Attributes:
        name: The user's name for it.
        architecture: Name in :func:`cdpipe.models.networks.build_model`.
        arguments: Keyword arguments of the network's constructor.
        roles: Bands it reads, in order.
        statistics: Pixels that normalisation counts: ``common`` or ``per_date``.
        together: Whether the bands share one mean and deviation.
        patch: Side of a patch in pixels.
        weights_sha256: Hash of the weights' file.
        training_key: What it was trained on and how; None where that is not known.
        threshold: Suggested threshold, fitted on validation pairs.
        metrics: Figures on validation pairs, or what an imported file said.
        fresh: Parameters that still have random values, since the imported file had none that fit.
        clip: What normalised values are clipped to; None for not at all.
        method: How they are normalised: ``moments`` or ``robust``.
        revision: The network's arithmetic that the weights were trained or imported with, see
            :class:`cdpipe.models.networks.Network`; cards that do not say are of the first.
        pretrained: The weights that the encoder started from, with bands, scale and SHA-256, see
            :meth:`cdpipe.models.pretrained.Pretrained.describe`; None for none.
        learned: What scenes it was trained on, see :func:`cdpipe.models.familiarity.describe_learned`; None where that
            is not known.
        optional: Those of ``roles`` that a pair may lack; they are 0 then.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    roles: tuple[str, ...]
    statistics: str
    together: bool
    patch: int
    weights_sha256: str
    training_key: str | None = None
    threshold: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    clip: float | None = None
    method: str = "moments"
    revision: int = 1
    pretrained: dict[str, Any] | None = None
    learned: dict[str, Any] | None = None
    optional: tuple[str, ...] = ()

    @property
    def is_detector(self) -> bool:
        """Whether it finds out from each pair itself what to look for, and has no network."""
        return self.architecture in DETECTORS

    @property
    def is_exported(self) -> bool:
        """Whether its network came as one file, whose runtime runs it."""
        return self.architecture == EXPORTED

    @property
    def key(self) -> str:
        """Hash of everything that bears on what the model predicts."""
        if self.is_detector:
            return content_key("detector", {"detector": self.architecture})
        parts = {**asdict(self), "roles": list(self.roles), "optional": list(self.optional)}
        for other in ("name", "training_key", "threshold", "metrics", "fresh", "revision", "pretrained", "learned"):
            del parts[other]
        for later, before in (("clip", None), ("method", "moments"), ("optional", [])):
            if parts[later] == before:
                del parts[later]
        # what runs is the arithmetic of today, whatever the card says
        return content_key("model", {**parts, **revision_part(self.architecture)})

    @property
    def needed(self) -> tuple[str, ...]:
        """Bands that a pair must have."""
        return tuple(role for role in self.roles if role not in self.optional)

    @property
    def recipe(self) -> Recipe:
        """How stored pixels become its input."""
        return Recipe(
            input_kind(self.architecture, self.arguments),
            self.roles,
            self.statistics,
            self.together,
            self.clip,
            self.method,
            self.optional,
            shown_detectors(self.arguments),
        )


def revision_part(architecture: str) -> dict[str, int]:
    """A network's part of a key, as soon as its arithmetic is no longer the first."""
    revision = 1 if architecture == EXPORTED else find_network(architecture).revision
    return {"revision": revision} if revision > 1 else {}


def save_model(
    folder: Location,
    card: ModelCard,
    state: "dict[str, torch.Tensor]",
    beside: Callable[[ModelCard, int], Mapping[str, Any]] = lambda _card, _size: {},
) -> ModelCard:
    """Write a model folder; the card comes last, so a folder with a card is whole.

    Args:
        folder: Where to.
        card: Its ``weights_sha256`` is filled in here.
        state: The network's state dict.
        beside: Gives what else the folder is to hold, JSON values by the files' names, of the whole card and the bytes
            that the weights have.

    Returns:
        The card as written.
    """
    import safetensors.torch

    data = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    (folder / WEIGHTS).write(data)
    crash_point("weights-without-card")
    card = replace(card, weights_sha256=hashlib.sha256(data).hexdigest())
    for name, values in beside(card, len(data)).items():
        write_json(folder / name, values)
    write_sealed(folder / CARD, asdict(card))
    return card


def read_card(folder: Location) -> ModelCard:
    """Read a model folder's card.

    Raises:
        InputError: If there is no readable card, or it names a network that does not exist; or of an exported network's
            file, see :func:`cdpipe.models.exported.describe_exported`.
    """
    values = describe_exported(folder) if is_exported(folder) else read_json(folder / CARD)
    if values is None:
        raise InputError(
            f"model {folder}: expected a model folder with a readable {CARD}, or an ensemble; cdpipe train makes one, "
            f"and cdpipe import-weights FILE --model NAME --out {folder} of weights that others trained"
        )
    try:
        values.pop(SEAL, None)  # for verification; whoever sets another threshold by hand may do so
        lists = {name: tuple(values.get(name, ())) for name in ("roles", "fresh", "optional")}
        card = ModelCard(**{**values, **lists})
        if not card.is_detector:
            input_kind(card.architecture, card.arguments)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"model {folder}: {CARD} is not one that cdpipe wrote: {error}") from None
    return card


def check_trained(folder: Location, card: ModelCard) -> None:
    """Refuse a model that would predict noise: its last layer is random, or it learned with another arithmetic.

    Raises:
        InputError: If that is so.
    """
    if card.fresh:
        raise InputError(
            f"model {folder}: {', '.join(card.fresh)} never learned anything (the imported weights had other classes); "
            f"train it first: train.models.{card.architecture}.init_from: {folder}"
        )
    if card.is_detector or card.is_exported:
        return
    current = find_network(card.architecture).revision
    if card.training_key is not None and card.revision != current:
        raise InputError(
            f"model {folder}: was trained with revision {card.revision} of {card.architecture}, this version of cdpipe "
            f"computes revision {current}, which gives other probabilities; train it again, from these weights with "
            f"train.models.{card.architecture}.init_from: {folder}"
        )


def weights_name(card: ModelCard) -> str:
    """What a model's folder calls its weights, or the network's file that it has in their place."""
    return f"network.{card.arguments['runtime']}" if card.is_exported else WEIGHTS


def weights_file(folder: Location, card: ModelCard) -> Location:
    """The file that ``weights_sha256`` is of."""
    return folder if is_exported(folder) else folder / weights_name(card)


def check_weights(folder: Location, card: ModelCard) -> None:
    """Refuse weights that are not the ones the card names.

    Raises:
        IntegrityError: If they are missing or others.
    """
    file = weights_file(folder, card)
    try:
        whole = file.sha256() == card.weights_sha256
    except OSError as error:
        raise IntegrityError(f"model {folder}: cannot load {file.name}: {error}") from None
    if not whole:
        raise IntegrityError(f"model {folder}: {file.name} is not the file that {CARD} describes (SHA-256 differs)")


def load_network(folder: Location, card: ModelCard) -> "nn.Module":
    """Build a model's network with its weights, in evaluation mode on the CPU.

    Raises:
        InputError: If there is no such network, or its weights are not finite.
        IntegrityError: If the weights are missing, are not the ones the card names, or do not fit.
    """
    import safetensors.torch
    import torch

    if card.is_exported:
        raise InputError(
            f"model {folder}: is an exported network, which predicts as it is, and is neither trained further nor "
            "exported again; name the folder of the model that it was exported of"
        )
    try:
        # what would be fetched is overwritten right away
        options = {name: value for name, value in card.arguments.items() if name != "encoder_weights"}
        network = build_model(card.architecture, **options)
    except ValueError as error:
        raise InputError(f"model {folder}: {CARD}: {error}") from None
    check_weights(folder, card)
    try:
        network.load_state_dict(_load_state(folder / WEIGHTS))
    except (OSError, safetensors.SafetensorError, RuntimeError) as error:
        raise IntegrityError(f"model {folder}: cannot load {WEIGHTS}: {error}") from None
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise InputError(f"model {folder}: {WEIGHTS} holds NaN or infinity; train or import it again")
    return network.eval()


def _load_state(weights: Location) -> "dict[str, torch.Tensor]":
    import safetensors.torch

    if weights.far:
        return safetensors.torch.load(weights.read_bytes())
    return safetensors.torch.load_file(weights.local())
