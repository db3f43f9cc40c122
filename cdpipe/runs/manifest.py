"""The manifest of a run: written last, it says that everything it lists was complete and matched."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cdpipe.workspace.files import json_bytes, read_json
from cdpipe.workspace.location import Location, locate


@dataclass(frozen=True, slots=True)
class ManifestPair:
    """What a run has of a pair.

    Attributes:
        pair_id: The pair.
        split: Its split, None where it has none as a whole.
        pair: Key of its imagery.
        label: Key of its label, None without one.
        probabilities: Key of each model's probability, by the model's name.
        change: Key of the ensemble's change.
        rasters: Published files relative to the workspace, each with its SHA-256.
        vectors: Likewise.
        detectors: What each detector found out about it, by its name: the bands it compares, its threshold in units of
            what differs where nothing changed, and how many pixels it looked at, in every so many rows and columns.
        doubts: In which ways it is unlike all that a model learned from which predicts it.
        strips: First row, first column, height and width of each split's strip, where the pair is cut.
        no_objects: Why it has no change objects though they are wanted; None where it has them.
    """

    pair_id: str
    split: str | None
    pair: str
    label: str | None
    probabilities: dict[str, str]
    change: str
    rasters: dict[str, str]
    vectors: dict[str, str] = field(default_factory=dict)
    strips: dict[str, list[int]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    no_objects: str | None = None
    detectors: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run is made of.

    Attributes:
        name: The run's name.
        models: Name, layer (the name that models of several folds share), key, folder relative to the workspace (or
            absolute), weight and own threshold of each model.
        ensemble: ``mean`` or ``vote``.
        threshold: Of the ensemble.
        fitted_on: What the threshold was fitted on, in words.
        pairs: Finished pairs.
        failed: Reason for every pair that failed.
        vectors: Published files of the run as a whole relative to the workspace, each with its SHA-256.
        mosaic: Likewise its mosaic of change; none of fewer than two pairs.
        handed_on: Likewise the files of its ensemble; none where it was given one.
        stac: Likewise the Collection and Items that describe the run.
    """

    name: str
    models: list[dict[str, Any]]
    ensemble: str
    threshold: float
    fitted_on: str
    pairs: list[ManifestPair]
    failed: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, str] = field(default_factory=dict)
    stac: dict[str, str] = field(default_factory=dict)
    handed_on: dict[str, str] = field(default_factory=dict)
    mosaic: dict[str, str] = field(default_factory=dict)


def model_folder(root: Location, model: Mapping[str, Any]) -> Location:
    """The folder of a model that a manifest lists.

    Args:
        root: The workspace's folder.
        model: One of :attr:`Manifest.models`.
    """
    return locate(str(model["folder"]), root)


def manifest_path(run_folder: Location) -> Location:
    """File of a run's manifest."""
    return run_folder / "manifest.json"


def write_manifest(run_folder: Location, manifest: Manifest) -> None:
    """Write a run's manifest; the same run gives the same bytes."""
    manifest_path(run_folder).write_alone(json_bytes(asdict(manifest)))


def read_manifest(run_folder: Location) -> Manifest | None:
    """A run's manifest, or None where there is none or it is damaged."""
    value = read_json(manifest_path(run_folder))
    try:
        return Manifest(**{**value, "pairs": [ManifestPair(**pair) for pair in value["pairs"]]})
    except (TypeError, KeyError):
        return None
