"""The ensemble that a run hands on: a folder with copies of its models, their weights, and the threshold."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cdpipe.config.schema import Config, Predict
from cdpipe.errors import InputError, IntegrityError
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.keys import content_key
from cdpipe.models.ensemble_folder import (
    ENSEMBLE,
    FOLDER,
    OPTIONS,
    EnsembleCard,
    EnsembleMember,
    given_ensemble,
    shared_weights,
    write_card,
)
from cdpipe.models.exported import is_exported
from cdpipe.models.folder import CARD, ModelCard, read_card, weights_file, weights_name
from cdpipe.models.stac_item import ITEM
from cdpipe.prediction.block import Member
from cdpipe.runs.fit import wants_fitting
from cdpipe.runs.plan import UNSEEN, RunPlan, Thresholds
from cdpipe.runs.products import Product
from cdpipe.version import __version__
from cdpipe.workspace.files import write_sealed
from cdpipe.workspace.location import Location

NOTES = "model.md"
OPTIONAL = (NOTES, ITEM)  # imported models have no notes, and those of earlier versions no Item
READ_ME = "ensemble.md"


@dataclass(frozen=True, slots=True)
class EnsembleFolder:
    """An ensemble folder to write.

    Attributes:
        folder: Where to.
        card: What ``ensemble.json`` is to hold.
        sources: The model folder of each member.
    """

    folder: Location
    card: EnsembleCard
    sources: tuple[Location, ...]


def adopt_options(config: Config) -> Config:
    """The configuration with the options that its ensemble was fitted with, where it gives none itself.

    Raises:
        ConfigError: If the ensemble does not stand alone.
        InputError: If it cannot be read.
    """
    given = given_ensemble(config.predict.models)
    if given is None:
        return config
    options, card = config.predict, given[1]
    own: dict[str, Any] = dict(card.options)
    if "auto" not in (options.weights, options.temperature):  # which are of a mean
        own["ensemble"] = card.combination
    own = {name: value for name, value in own.items() if name not in options.model_fields_set}
    try:
        Predict.model_validate(own)
    except ValueError as error:
        raise InputError(f"ensemble {given[0]}: {ENSEMBLE} has options that cdpipe does not: {error}") from None
    return config.model_copy(update={"predict": options.model_copy(update=own)})


def ensemble_product(config: Config, plan: RunPlan) -> Product | None:
    """The ensemble of a run as a product; None of one that was given its ensemble, or only models and nothing to fit.

    Detectors alone are none, either.

    Raises:
        ValueError: If the run's thresholds are not known yet.
    """
    thresholds, options = plan.thresholds, config.predict
    if thresholds is None:
        raise ValueError("expected a run whose thresholds are known")
    if all(member.card.is_detector for member in plan.members):
        return None  # whoever has cdpipe has them
    if plan.own is not None or (options.models and not any(pair.planned.label_key for pair in plan.pairs)):
        return None
    names = [_folder_name(number, member) for number, member in enumerate(plan.members)]
    members = tuple(_describe(member, name, thresholds) for member, name in zip(plan.members, names, strict=True))
    precision = "auto" if options.precision == "int8" else options.precision  # there is nothing to calibrate it on
    values = dict(zip(OPTIONS, (options.overlap, options.tta, precision, options.detectors_from_m), strict=True))
    ways = {name: value for name, value in values.items() if value is not None}
    threshold, fitted_on = thresholds.ensemble, thresholds.fitted_on
    note, software = _describe_fit(config, plan), f"cdpipe {__version__}"
    card = EnsembleCard(config.name, options.ensemble, threshold, fitted_on, note, ways, members, software)
    folder = plan.workspace.run(config.name) / FOLDER
    spec = EnsembleFolder(folder, card, tuple(member.folder for member in plan.members))
    # a model that was imported again may have the same weights, and read other bands
    key = content_key("ensemble", {**asdict(card), "models": [member.card.key for member in plan.members]})
    return Product(plan.workspace, "ensembles", config.name, key, (folder / ENSEMBLE,), spec, write_ensemble)


def write_ensemble(spec: EnsembleFolder) -> dict[Location, str]:
    """Write an ensemble folder in place of what is there; its ``ensemble.json`` goes first and comes last.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If a model's weights are not the ones that its card names.
    """
    (spec.folder / ENSEMBLE).unlink(missing_ok=True)
    spec.folder.remove_tree()
    written: dict[Location, str] = {}
    for member, source in zip(spec.card.members, spec.sources, strict=True):
        card = read_card(source)
        for name, origin in _copied(source, card):
            data, file = origin.read_bytes(), spec.folder / member.folder / name
            written[file] = hashlib.sha256(data).hexdigest()
            if name == weights_name(card) and written[file] != member.weights_sha256:
                raise IntegrityError(f"model {source}: {name} is not the file that {CARD} describes; run cdpipe verify")
            file.write(data)
        if is_exported(source):  # which is one file, and has its card in it
            file = spec.folder / member.folder / CARD
            write_sealed(file, asdict(card))
            written[file] = file.sha256()
    (spec.folder / READ_ME).write(_describe_ensemble(spec.card).encode())
    write_card(spec.folder, spec.card)
    return written | {file: file.sha256() for file in (spec.folder / READ_ME, spec.folder / ENSEMBLE)}


def _copied(source: Location, card: ModelCard) -> Iterator[tuple[str, Location]]:
    """What is copied of a model, under which name; the card last, as it is written."""
    if not is_exported(source):
        yield from ((name, source / name) for name in OPTIONAL if (source / name).is_file())
    yield weights_name(card), weights_file(source, card)
    if not is_exported(source):
        yield CARD, source / CARD


def _folder_name(number: int, member: Member) -> str:
    name = member.card.name
    return name if ID_PATTERN.fullmatch(name) else f"member{number + 1}"


def _describe(member: Member, folder: str, thresholds: Thresholds) -> EnsembleMember:
    return EnsembleMember(
        name=member.card.name,
        layer=member.name,
        fold=member.fold,
        weight=member.weight,
        temperature=member.temperature,
        threshold=thresholds.models[member.name],
        folder=folder,
        weights_sha256=member.card.weights_sha256,
    )


def _describe_fit(config: Config, plan: RunPlan) -> str:
    """What to know of a threshold that was fitted out of fold."""
    folds = sorted({member.fold for member in plan.members if member.fold is not None})
    if UNSEEN[0] not in plan.unseen.values() or len(folds) < 2 or not wants_fitting(config, plan):
        return ""
    unseeing = sum(member.fold in (None, folds[0]) for member in plan.members)
    return (
        f"fitted out of fold, where {unseeing} of the {len(plan.members)} models, which had not seen a pair, "
        "predicted it; any other pair gets all of them together, which are less extreme than each alone"
    )


def _describe_ensemble(card: EnsembleCard) -> str:
    weights = shared_weights(card)
    what = "mean" if card.combination == "mean" else "vote"
    ways = ", ".join(f"{name} {value}" for name, value in card.options.items())
    lines = [
        f"# Ensemble {card.name}",
        "",
        f"- {what} of {len(card.members)} model(s), run with {ways}",
        f"- threshold {card.threshold:.3f}: {card.fitted_on}",
        *([f"- note: {card.note}"] if card.note else []),
        *(
            f"- {each.folder}: share {weight / sum(weights):.3f}, temperature {each.temperature:g}, "
            f"own threshold {each.threshold:.3f}"
            for each, weight in zip(card.members, weights, strict=True)
        ),
        "",
        "Copy this folder as a whole. To predict with it:",
        "",
        "    cdpipe predict --before A.tif --after B.tif --model THIS_FOLDER --out RESULT",
        "",
        "or name it alone under `predict.models` of a configuration, where its threshold holds, too.",
        "",
    ]
    return "\n".join(lines)
