"""Which models a configuration means, what they would be trained on, and the folders they end in."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from cdpipe.config.schema import Config
from cdpipe.config.train import Model, Train
from cdpipe.errors import ConfigError, InputError
from cdpipe.keys import content_key
from cdpipe.models.ensemble_folder import model_folders
from cdpipe.models.familiarity import describe_learned, span_text
from cdpipe.models.folder import CARD, ModelCard, read_card, revision_part, save_model
from cdpipe.models.networks import NETWORKS, build_model, check_options, find_network, input_kind, required_bands
from cdpipe.models.pretrained import Pretrained, find_weights
from cdpipe.models.stac_item import stac_files
from cdpipe.pairs.outlook import Outlook, describe_splits
from cdpipe.pairs.plan import PlannedPair, labelled_pair, placed_pairs, stored_cells
from cdpipe.pairs.splits import (
    Leaks,
    Part,
    Splits,
    assign_folds,
    find_splits,
    fold_parts,
    group_places,
    place_groups,
    refuse_leaks,
    same_group,
    split_leaks,
)
from cdpipe.pairs.strips import strip_name
from cdpipe.store.normalisation import RGB
from cdpipe.store.pair import CELL_LAYERS, LabelledPair, read_cells
from cdpipe.training.job import TrainJob
from cdpipe.training.logs import PROGRESS
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, locate, map_files
from cdpipe.workspace.records import GROUP_RECORD, read_record

LEAST_STEPS = 32  # of an epoch, where little is labelled


def architecture_of(name: str, model: Model) -> str:
    """Name of a configured model's architecture.

    Raises:
        ConfigError: If there is none of that name.
    """
    architecture = model.architecture or name
    try:
        required_bands(architecture)
    except ValueError as error:
        raise ConfigError(
            f"train.models.{name}: {error}; name the model after its architecture or give architecture: "
            f"{', '.join(NETWORKS)}"
        ) from None
    return architecture


def needed_bands(config: Config) -> tuple[str, ...]:
    """Bands that the configuration's models need at both dates, each once.

    Raises:
        ConfigError: If a model has no architecture, or needs figures that its normalisation does not have.
    """
    if not config.predict.takes_trained:
        roles = [role for folder in model_folders(config.predict.models) for role in read_card(folder).needed]
    else:
        roles = [role for name, model in config.train.models.items() for role in _eaten_bands(config, name, model)]
    roles += [role for file in config.predict.files for role in read_card(locate(file)).needed]
    if not roles:  # detectors compare whatever bands there are
        return ()
    return tuple(dict.fromkeys([*RGB, *roles]))  # pictures and the baseline are made of the first three


def _eaten_bands(config: Config, name: str, model: Model) -> tuple[str, ...]:
    architecture = architecture_of(name, model)
    if config.normalisation.method == "robust" and input_kind(architecture, model.options) == "difference":
        raise ConfigError(
            f"train.models.{name}: normalisation.method: robust is that of each band, and {architecture} eats the "
            f"difference of the greys; give bands: [{', '.join(RGB)}] (or others), or input: stacked"
        )
    return tuple(band for band in required_bands(architecture, model.options) if band not in model.optional_bands)


def plan_training(
    workspace: Workspace,
    config: Config,
    train: Sequence[LabelledPair],
    val: Sequence[LabelledPair],
    folds: Mapping[str, int] | None = None,
    sensors: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[TrainJob]:
    """One job for each configured model, and for each fold if there are folds.

    Args:
        workspace: The store.
        config: The configuration.
        train: Labelled pairs to learn from.
        val: Labelled pairs to choose the best epoch by; with folds there may be none: another fold then serves. None
            are needed where the last epoch is kept.
        folds: Fold of each training pair.
        sensors: Names of both dates' sensors of each pair.

    Raises:
        ConfigError: If a model to start from is another than what is asked for.
        InputError: If there is nothing to learn from or nothing to choose the best epoch by.
    """
    choose = config.train.keep == "best"
    parts = [Part(None, tuple(train), tuple(val))]
    if folds:
        parts = fold_parts(config.train.folds or 0, train, val, folds, choose=choose)
    for part in parts:
        where = "" if part.fold is None else f" without fold {part.fold + 1}"
        for name, pairs in (("train", part.train), ("val", part.val)):
            if name == "val" and not choose:
                continue
            if not pairs:
                raise InputError(f"no labelled pair of the split {name!r} is in the store; training needs at least one")
            if not sum(_label_count(workspace, item, "changed") for item in pairs):
                ids = ", ".join(item.pair.pair_id for item in pairs)
                raise InputError(f"no changed pixel in any {name} pair{where} ({ids}): check label.changed and labels")
    weights = {name: _pretrained(config, name, model) for name, model in config.train.models.items()}
    jobs = [_plan_model(workspace, config, name, part, weights[name]) for name in config.train.models for part in parts]
    return [
        replace(job, sensors=tuple(sorted({each for item in job.train for each in sensors.get(item.pair.pair_id, ())})))
        for job in jobs
    ]


def _plan_model(workspace: Workspace, config: Config, name: str, part: Part, weights: Pretrained | None) -> TrainJob:
    model, options = config.train.models[name], config.train
    architecture = architecture_of(name, model)
    arguments = {**model.options, **({"encoder_weights": weights.option} if weights else {})}
    start = read_card(model.init_from) if model.init_from else None
    if start is not None:
        expected = (architecture, model.options)
        arrived = (start.architecture, {k: v for k, v in start.arguments.items() if k != "encoder_weights"})
        if expected != arrived:
            raise ConfigError(
                f"train.models.{name}.init_from: expected a model of {expected}, {model.init_from} holds {arrived}"
            )
    ingredients = {
        "architecture": architecture,
        "arguments": arguments,
        **revision_part(architecture),
        "init_from": start.key if start else None,
        "frozen_epochs": model.frozen_epochs,
        **({"optional_bands": sorted(model.optional_bands)} if model.optional_bands else {}),
        # what was not there once has its part as soon as it does something
        **({"encoder_rate": model.encoder_learning_rate} if model.encoder_learning_rate != 1 else {}),
        **({"encoder_start": 2} if weights and input_kind(architecture, arguments) == "stacked_difference" else {}),
        "options": options.model_dump(mode="json", exclude={"models", "folds"}),
        "normalisation": {
            **config.normalisation.model_dump(mode="json", exclude={"method", "clip"}),
            **({"method": "robust"} if config.normalisation.method == "robust" else {}),
            **({"clip": config.normalisation.limit} if config.normalisation.limit else {}),
        },
        **({"least_steps": least} if (least := _least_steps(workspace, config, part.train)) > 1 else {}),
        "train": sorted(item.key for item in part.train),
        "val": sorted(item.key for item in part.val),
    }
    ordered = [tuple(sorted(pairs, key=lambda item: item.key)) for pairs in (part.train, part.val)]
    return TrainJob(
        workspace=workspace,
        model=name,
        fold=part.fold,
        key=content_key("model", ingredients),
        architecture=architecture,
        arguments=arguments,
        optional=model.optional_bands,
        init_from=model.init_from,
        frozen_epochs=model.frozen_epochs,
        encoder_rate=model.encoder_learning_rate,
        pretrained=weights,
        options=options,
        normalisation=config.normalisation,
        train=ordered[0],
        val=ordered[1],
        steps=_steps(workspace, config, part.train),
    )


def _pretrained(config: Config, name: str, model: Model) -> Pretrained | None:
    """The weights that a model's encoder starts from, if it does from any; a file is hashed."""
    if model.encoder_weights is None:
        return None
    try:
        weights = find_weights(model.encoder_weights)
    except ValueError as error:
        raise ConfigError(f"train.models.{name}.{error}") from None
    return replace(weights, together=config.normalisation.bands == "together")


def check_buildable(job: TrainJob) -> None:
    """Refuse what no network can be built of or run on, and what no sample can be augmented by.

    Networks are built on the device "meta", which takes no memory. It imports torch, which takes seconds: for those who
    are about to train, not for those who look.

    Raises:
        ConfigError: If the job's network cannot be built, or an augmentation fails.
    """
    import torch

    from cdpipe.training.augment import check_augmentation

    patch = job.options.patch
    try:
        check_options(job.architecture, {**job.arguments, "encoder_weights": job.pretrained})
        with torch.device("meta"), torch.no_grad():
            network = build_model(job.architecture, **job.built).eval()
            network(torch.empty(1, job.recipe.channels, patch, patch))
            if job.frozen_epochs or job.encoder_rate != 1:
                network.get_submodule("encoder")
    except (ValueError, TypeError, RuntimeError, AssertionError, AttributeError) as error:
        given = f"patches of {patch} pixels, " + ", ".join(f"{key}: {value}" for key, value in job.arguments.items())
        what = f"no {job.architecture} can be built with {given}"
        raise ConfigError(f"train.models.{job.model}: {what}: {error}") from None
    bands = 1 if job.recipe.kind == "difference" else len(job.recipe.roles)
    check_augmentation(job.options.augment, bands, patch)


def _steps(workspace: Workspace, config: Config, train: Sequence[LabelledPair]) -> int:
    """Steps of an epoch: its samples in global batches; by default as many as cover the labelled area once."""
    options = config.train
    samples = options.samples_per_epoch
    if options.samples_per_pair is not None:
        samples = options.samples_per_pair * len(train)
    elif samples == "auto":
        samples = sum(_label_count(workspace, item, "valid") for item in train) // options.patch**2
    return max(_least_steps(workspace, config, train), samples // options.global_batch)


def _least_steps(workspace: Workspace, config: Config, train: Sequence[LabelledPair]) -> int:
    """Steps that an epoch has at least: where little is labelled, a pass over it is too short to judge epochs by."""
    options = config.train
    if options.samples_per_pair is not None or options.samples_per_epoch != "auto":
        return 1
    little = any(
        item.within is not None or 2 * _label_count(workspace, item, "valid") < math.prod(item.pair.grid.shape)
        for item in train
    )
    return LEAST_STEPS if little else 1


def _label_count(workspace: Workspace, item: LabelledPair, name: str) -> int:
    if item.within is not None:
        return int(read_cells(workspace, item)[CELL_LAYERS.index(name)].sum(dtype=np.int64))
    return _counted(workspace, [(item.pair.pair_id, item.label_key)], name)[0]


def _counted(workspace: Workspace, labels: Sequence[tuple[str, str]], name: str) -> list[int]:
    """A count of each label, given by its pair's id and its key: pixels that are ``valid`` or ``changed``."""
    paths = [workspace.records("labels", pair_id, key) / GROUP_RECORD for pair_id, key in labels]
    return [int(record.facts[name]) if record else 0 for record in map_files(read_record, paths)]


def trained_model(job: TrainJob) -> ModelCard | None:
    """The card of a job's model if it has been trained to its end."""
    folder = job.workspace.model(job.name, job.key)
    return read_card(folder) if (folder / CARD).is_file() else None


def finish_model(job: TrainJob, checkpoint: Location) -> ModelCard:
    """Make a model folder of what a finished run's last checkpoint keeps; checkpoints are then removed."""
    import torch

    from cdpipe.training.loop import BEST, HISTORY, NUMBERS, PRETRAINED, kept_epoch

    folder = job.workspace.model(job.name, job.key)
    history = json.loads((checkpoint / HISTORY).read_text())
    with (checkpoint / BEST).open() as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    row = history[kept_epoch(history, job.options)]
    kept = {name: value for name, value in row.items() if not math.isnan(value)}
    (folder / "history.csv").write(_csv(history))
    card = ModelCard(
        name=job.name,
        architecture=job.architecture,
        arguments=job.arguments,
        roles=job.recipe.roles,
        optional=job.recipe.optional,
        statistics=job.normalisation.statistics,
        together=job.normalisation.bands == "together",
        clip=job.normalisation.limit,
        method=job.normalisation.method,
        patch=job.options.patch,
        weights_sha256="",
        training_key=job.key,
        threshold=kept.get("best_threshold"),
        metrics=kept,
        revision=find_network(job.architecture).revision,
        learned=describe_learned([item.pair for item in job.train], job.recipe.roles, job.sensors),
        pretrained=json.loads((checkpoint / PRETRAINED).read_text()) if (checkpoint / PRETRAINED).is_file() else None,
    )
    precision = json.loads((checkpoint / NUMBERS).read_text())
    (folder / "model.md").write(_describe(job, card, len(history), precision).encode())
    card = save_model(folder, card, state, stac_files)
    crash_point("model-with-checkpoints")
    sweep_training(job)
    return card


def sweep_training(job: TrainJob) -> None:
    """Remove what only the training of a finished model needed."""
    folder = job.workspace.model(job.name, job.key)
    (folder / "checkpoints").remove_tree()
    (folder / PROGRESS).unlink(missing_ok=True)


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _describe(job: TrainJob, card: ModelCard, epochs: int, precision: str) -> str:
    options, kept = job.options, card.metrics
    train, val = (", ".join(sorted(map(_describe_pair, items))) for items in (job.train, job.val))
    training = (
        f"{epochs} epochs of {job.steps} steps of {options.global_batch} patches of {options.patch} pixels in "
        f"{precision}; {options.keep} epoch: {kept['epoch'] + 1}"
    )
    figures = "quantiles" if job.recipe.method == "robust" else "statistics"
    bands = f"{', '.join(job.recipe.roles)}, normalised by {job.normalisation.statistics} {figures}"
    kind = {"difference": "grey difference"}.get(job.recipe.kind, job.recipe.kind.replace("_", " "))
    clipped = "" if job.recipe.clip is None else f", clipped to {job.recipe.clip:g} deviations"
    said = job.recipe.detectors
    beside = f"; beside it what the detector(s) {', '.join(said)} say of the pair" if said else ""
    learned = card.learned or {}
    pixels = learned.get("pixel_m")
    facts = {
        "architecture": f"{job.architecture} {json.dumps(job.arguments)}",
        "input": f"{kind} of {bands} of {job.normalisation.bands} band{clipped}{beside}",
        **({"encoder starts from": _describe_start(job, card.pretrained)} if card.pretrained else {}),
        "training": training,
        "learning": _describe_learning(options),
        "samples": _describe_samples(options),
        "learned from": train,
        **({"sensors": ", ".join(learned["sensors"])} if learned.get("sensors") else {}),
        **({"pixels": f"{span_text(pixels)} m wide"} if pixels else {}),
        **({"values": values} if (values := _describe_values(learned)) else {}),
    }
    if val:
        facts["best epoch chosen by" if options.keep == "best" else "validated on"] = val
    if "best_threshold" in kept:
        facts["validation at threshold 0.5"] = f"IoU {kept['val_iou']:.3f}, F1 {kept['val_f1']:.3f}"
        fitted = f"{kept['best_threshold']:.3f} (F1 {kept['f1_at_best_threshold']:.3f} on those pairs)"
        facts["suggested threshold"] = fitted
    return "\n".join([f"# {job.name}", "", *(f"- {what}: {fact}" for what, fact in facts.items()), ""])


def _describe_values(learned: Mapping[str, Any]) -> str:
    ranges = [f"{role} {span_text(span)}" for role, span in learned.get("values", {}).items()]
    return f"{', '.join(ranges)} (1 % to 99 % of the pixels)" if ranges else ""


def _describe_pair(item: LabelledPair) -> str:
    strip = item.within
    return item.pair.pair_id if strip is None else f"{item.pair.pair_id} ({strip_name(strip, item.pair.grid.shape)})"


def _describe_start(job: TrainJob, start: dict[str, Any]) -> str:
    known = ", ".join(band for band in job.recipe.roles if band in start["bands"])
    others = ", ".join(band for band in job.recipe.roles if band not in start["bands"])
    other = {"mean": "the mean of these", "zeros": "zeros"}.get(start["other_bands"], "")
    facts = [
        f"{start['name']}, kernels of {known}" + (f"; {others} from {other}" if others else ""),
        f"SHA-256 {start['sha256']}" if start["sha256"] else "",
        f"frozen for {job.frozen_epochs} epoch(s)" if job.frozen_epochs else "",
        f"learning rate times {job.encoder_rate:g}" if job.encoder_rate != 1 else "",
    ]
    return "; ".join(filter(None, facts))


def _describe_learning(options: Train) -> str:
    terms = options.loss.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    loss = " + ".join(f"{name} {json.dumps(term)}" if term else name for name, term in terms.items())
    falls = f"decay {options.decay:g}" if options.schedule == "exponential" else f"warm-up {options.warmup:g}"
    facts = [
        f"{options.optimizer}, learning rate {options.learning_rate:g}, {options.schedule} ({falls})",
        f"weight decay {options.weight_decay:g}" if options.weight_decay else "",
        f"gradients clipped at {options.clip_norm:g}" if options.clip_norm else "",
        f"average of the weights {options.ema:g}" if options.ema else "",
        f"loss: {loss}",
    ]
    return ", ".join(filter(None, facts))


def _describe_samples(options: Train) -> str:
    weight = f" (pairs by {options.pair_weight})" if options.sampling == "pixels" else ""
    where = f"{options.changed_share:g} of them at changed {options.sampling}{weight}"
    return f"{where}; augmented by {', '.join(json.dumps(each) for each in options.augment) or 'nothing'}"


def training_jobs(
    config: Config, workspace: Workspace, planned: Sequence[PlannedPair], splits: Splits
) -> list[TrainJob]:
    """What the configuration wants trained on some of the catalog's pairs.

    Args:
        config: The configuration.
        workspace: The store.
        planned: The pairs.
        splits: What each split has of them; nothing where there are too few places, and no scene can be cut.

    Raises:
        ConfigError: If a model to start from is another than what is asked for.
        InputError: If there are no splits, they leak, or there is nothing to learn from or to choose the best epoch by.
    """
    if not splits:
        splits = splits_of(config, workspace, planned)  # says why there are none
    if not config.splits.allow_leak:
        refuse_leaks(training_leaks(config, planned, splits).leaks)
    train, val = (labelled_parts(workspace, planned, splits, split) for split in ("train", "val"))
    folds = training_folds(config, workspace, planned, splits)
    sensors = {item.pair.pair_id: [date.sensor_name for date, _ in item.pair.dates] for item in planned}
    return plan_training(workspace, config, train, val, folds, sensors)


def splits_of(config: Config, workspace: Workspace, planned: Sequence[PlannedPair]) -> Splits:
    """What each split has of pairs in the store.

    Raises:
        InputError: If there are too few places, and no scene can be cut.
    """
    return find_splits(config, placed_pairs(planned), stored_cells(workspace, planned))


def describe_stored(config: Config, workspace: Workspace, planned: Sequence[PlannedPair], splits: Splits) -> Outlook:
    """What each split has of pairs in the store, as :func:`cdpipe.pairs.outlook.look_ahead` tells it of files."""
    labels = {item.pair.pair_id: item.label_key for item in planned if item.label_key is not None}
    labels = {name: key for name, key in labels.items() if name in splits.whole}
    counts = [_counted(workspace, list(labels.items()), name) for name in CELL_LAYERS]
    whole = dict(zip(labels, zip(*counts, strict=True), strict=True))
    return describe_splits(config, placed_pairs(planned), splits, whole, stored_cells(workspace, planned))


def labelled_parts(
    workspace: Workspace, planned: Sequence[PlannedPair], splits: Splits, split: str
) -> list[LabelledPair]:
    """What a split has of the pairs that are in the store with their labels."""
    parts = splits.parts(split)
    found = ((item, labelled_pair(workspace, item)) for item in planned if item.pair.pair_id in parts)
    return [replace(pair, within=parts[item.pair.pair_id]) for item, pair in found if pair is not None]


def training_folds(
    config: Config, workspace: Workspace, planned: Sequence[PlannedPair], splits: Splits
) -> dict[str, int]:
    """Fold of each labelled training pair, as even as may be in changed pixels; empty without folds."""
    if config.train.folds is None:
        return {}
    train = splits.parts("train")
    chosen = [item for item in planned if item.label_key and item.pair.pair_id in train]
    placed = [(item.pair, item.grid) for item in chosen]
    if config.splits.allow_leak:
        together = same_group({pair.pair_id: pair.group for pair, _ in placed})
    else:
        together = place_groups(placed, config.split_buffer)
    places = group_places([pair.pair_id for pair, _ in placed], together)
    names = {pair.pair_id: pair.group or pair.pair_id for pair, _ in placed}
    counts = _counted(workspace, [(item.pair.pair_id, str(item.label_key)) for item in chosen], "changed")
    changed = {item.pair.pair_id: count for item, count in zip(chosen, counts, strict=True)}
    return assign_folds({pair_id: names[ids[0]] for ids in places for pair_id in ids}, config.train.folds, changed)


def training_leaks(config: Config, planned: Sequence[PlannedPair], splits: Splits) -> Leaks:
    """Where training pairs lie too near to those that choose or judge models."""
    return split_leaks(placed_pairs(planned), splits, config.train.patch)
