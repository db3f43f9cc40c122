"""Ensemble folders, which a run hands on: its models, how they count, and the threshold, in one folder to copy."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cdpipe.errors import ConfigError, InputError
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.models.exported import is_exported
from cdpipe.models.folder import CARD, ModelCard, check_weights, read_card
from cdpipe.workspace.files import SEAL, read_json, write_sealed
from cdpipe.workspace.location import Location

ENSEMBLE = "ensemble.json"
FOLDER = "ensemble"  # in a run's folder
FORMAT = 1
COMBINATIONS = ("mean", "vote")
OPTIONS = ("overlap", "tta", "precision", "detectors_from_m")  # of the configuration's ``predict``


@dataclass(frozen=True, slots=True)
class EnsembleMember:
    """A model of an ensemble.

    Attributes:
        name: Its name.
        layer: The name that models of several folds share.
        fold: The fold that it never saw, from 0; None where it is not one of several.
        weight: Share of its layer in the ensemble (any positive number), which the layer's models share out evenly.
        temperature: What its logits are divided by.
        threshold: Of its own probability, for a vote and for the agreement of change objects.
        folder: Its model folder's name in the ensemble's folder.
        weights_sha256: Hash of its weights.
    """

    name: str
    layer: str
    fold: int | None
    weight: float
    temperature: float
    threshold: float
    folder: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class EnsembleCard:
    """What ``ensemble.json`` holds.

    Attributes:
        name: Of the run that it comes from.
        combination: ``mean`` or ``vote``, see :class:`cdpipe.prediction.ensemble.Ensemble`.
        threshold: Of the ensemble's probability.
        fitted_on: What that was fitted on, in words.
        note: What to know of that.
        options: How its members were run when it was fitted: ``overlap``, ``tta``, ``precision`` and, if there was one,
            ``detectors_from_m`` as in the configuration.
        members: Its models.
        software: What wrote it.
    """

    name: str
    combination: str
    threshold: float
    fitted_on: str
    note: str
    options: dict[str, Any]
    members: tuple[EnsembleMember, ...]
    software: str


def write_card(folder: Location, card: EnsembleCard) -> None:
    """Write ``ensemble.json``; it comes last, so a folder that has it is whole."""
    write_sealed(folder / ENSEMBLE, {"format": FORMAT, **asdict(card)})


def find_ensemble(folder: Location) -> Location | None:
    """The folder of the ensemble that is meant by its own or a run's; None of a model folder, or of anything else."""
    if is_exported(folder) or (folder / CARD).is_file():
        return None
    return next((each for each in (folder / FOLDER, folder) if (each / ENSEMBLE).is_file()), None)


def read_ensemble(folder: Location) -> EnsembleCard:
    """An ensemble folder's card.

    The seal is for verification: whoever sets another threshold by hand may do so.

    Raises:
        InputError: If it is not one that cdpipe wrote, or is of a later version.
    """
    values = read_json(folder / ENSEMBLE)
    try:
        number = values.pop("format")
        values.pop(SEAL, None)
        if number != FORMAT:
            raise InputError(
                f"ensemble {folder}: {ENSEMBLE} is of format {number}, this version of cdpipe reads {FORMAT}; "
                "update cdpipe, or hand the ensemble on from this version"
            )
        card = EnsembleCard(**{**values, "members": tuple(EnsembleMember(**each) for each in values["members"])})
        _check(card)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"ensemble {folder}: {ENSEMBLE} is not one that cdpipe wrote ({error}); copy the folder again as a whole"
        ) from None
    return card


def _check(card: EnsembleCard) -> None:
    if card.combination not in COMBINATIONS:
        raise ValueError(f"expected combination {' or '.join(COMBINATIONS)}, got {card.combination!r}")
    if not card.members:
        raise ValueError("expected members")
    for member in card.members:
        if not ID_PATTERN.fullmatch(member.folder):
            raise ValueError(f"expected folders of members beside it, got {member.folder!r}")
        if not all(isinstance(each, float | int) for each in (member.weight, member.temperature, member.threshold)):
            raise ValueError(f"expected numbers of member {member.name}")
        if not (0 < member.weight < math.inf and 0 < member.temperature < math.inf):
            raise ValueError(f"expected a positive weight and temperature of member {member.name}")
    if not all(0 <= threshold <= 1 for threshold in (card.threshold, *(member.threshold for member in card.members))):
        raise ValueError("expected thresholds from 0 to 1")
    if not set(card.options) <= set(OPTIONS):
        raise ValueError(f"expected options {', '.join(OPTIONS)}, got {', '.join(card.options)}")


def given_ensemble(folders: Sequence[Location]) -> tuple[Location, EnsembleCard] | None:
    """The ensemble that is given instead of models, with its folder; None where models are.

    Raises:
        ConfigError: If it does not stand alone.
        InputError: If it cannot be read; see :func:`read_ensemble`.
    """
    found = [ensemble for folder in folders if (ensemble := find_ensemble(folder)) is not None]
    if not found:
        return None
    if len(folders) > 1:
        raise ConfigError(
            f"predict.models: an ensemble has weights and a threshold for its own members and stands alone; got "
            f"{found[0]} among {len(folders)}: name the model folders inside it to mix them with others"
        )
    return found[0], read_ensemble(found[0])


def model_folders(folders: Sequence[Location]) -> list[Location]:
    """The model folders that are meant: those given, or an ensemble's members.

    Raises:
        ConfigError: If an ensemble does not stand alone.
        InputError: If it cannot be read.
    """
    given = given_ensemble(folders)
    if given is None:
        return list(folders)
    folder, card = given
    return [folder / member.folder for member in card.members]


def shared_weights(card: EnsembleCard) -> list[float]:
    """The weight of each member itself: the models of a layer share the layer's."""
    counts = Counter(member.layer for member in card.members)
    return [member.weight / counts[member.layer] for member in card.members]


def check_members(folder: Location, card: EnsembleCard) -> list[ModelCard]:
    """Refuse an ensemble whose models are not all there, and the ones that it was made of.

    Returns:
        The models' own cards.

    Raises:
        InputError: If one is missing or another.
        IntegrityError: If one's weights are damaged.
    """
    cards = []
    for member in card.members:
        place = folder / member.folder
        if not (place / CARD).is_file():
            raise InputError(f"ensemble {folder}: its member {member.name} is missing; copy the folder as a whole")
        own = read_card(place)
        if own.weights_sha256 != member.weights_sha256:
            raise InputError(
                f"ensemble {folder}: {place} is not the model that its weights and threshold were fitted with; copy "
                "the folder again as a whole, or name model folders under predict.models"
            )
        check_weights(place, own)
        cards.append(own)
    return cards
