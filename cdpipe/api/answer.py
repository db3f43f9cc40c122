"""Answers without labels: whether a configuration asks for one, and the page of a pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cdpipe.cluster.memory import give_back_memory
from cdpipe.config.detectors import DETECTORS, FINE_M, SHIPPED, named_folder
from cdpipe.config.schema import Config
from cdpipe.errors import CdpipeError
from cdpipe.models.answering import who_answers
from cdpipe.pairs.catalog import load_catalog
from cdpipe.pairs.coregistration import known_corrections
from cdpipe.report.answer import AnswerJob, write_answer
from cdpipe.runs.manifest import Manifest
from cdpipe.runs.pairs import result_pairs
from cdpipe.runs.run import Run
from cdpipe.workspace.location import Location, here


def without_labels(config: Config) -> Config:
    """The configuration with what needs no training here, where no model is named and no pair has a label."""
    options = config.predict
    if options.models or options.members or _labelled(config):
        return config
    own: dict[str, Any] = {"models": tuple(map(named_folder, _answering(config)))}
    if "detectors_from_m" not in options.model_fields_set:
        own["detectors_from_m"] = FINE_M
    return config.model_copy(update={"predict": options.model_copy(update=own)})


def _answering(config: Config) -> tuple[str, ...]:
    """Names of what answers where nothing can be trained; a model has to suit all sensors."""
    return who_answers(set.intersection(*(set(sensor.bands) for sensor in config.sensors.values())))


def describe_answer(names: Sequence[str]) -> str:
    """Who answers, in words."""
    detectors = f"the detectors {' and '.join(name for name in names if name != SHIPPED)}"
    return (
        detectors if SHIPPED not in names else f"{SHIPPED}, a model that learned from made-up scenes, and {detectors}"
    )


def _labelled(config: Config) -> bool:
    """Whether any pair has a label; a catalog that cannot be read is for the check to tell."""
    try:
        pairs = load_catalog(config).pairs
    except CdpipeError:
        return True
    return not pairs or any(pair.label is not None for pair in pairs)


def say_who_answers(run: Run) -> None:
    """Tell before any work that nothing is trained, where no pair has a label."""
    names = _answering(run.config)
    if run.config.predict.models != tuple(map(named_folder, names)) or _labelled(run.config):
        return
    run.say(
        f"no pair of {run.config.catalog.name} has a label, so nothing is trained: what looks different is found by "
        f"{describe_answer(names)}. That says where to look first; to find one kind of change, label some of it"
    )


def answer_page(run: Run, manifest: Manifest, path: Path, files: tuple[str, str], remarks: Sequence[str]) -> None:
    """Write the page of a run's first pair.

    Args:
        run: The run.
        manifest: What it published.
        path: Where to.
        files: Names of both dates' files.
        remarks: What was said of the pair on the way.

    Raises:
        IntegrityError: If what is stored is damaged.
    """
    results = result_pairs(run, manifest)[0]
    finished = results.finished
    if finished is None:
        raise ValueError(f"pair {results.pair.pair_id}: expected a finished one")
    objects: list[Location] = [run.workspace.root / name for name in finished.vectors]
    moved = [
        f"The second date was moved: {each.reason}." if each.moved else f"The second date was not moved: {each.reason}."
        for each in known_corrections(run.workspace).values()
    ]
    names = [str(model["name"]) for model in manifest.models if model["name"] in finished.probabilities]
    job = AnswerJob(
        workspace=run.workspace,
        pair=results.stored,
        change_key=finished.change,
        threshold=manifest.threshold,
        objects=objects[0] if objects and objects[0].is_file() else None,
        files=files,
        fits={name: fit for name, fit in finished.detectors.items() if name in names},  # not those that models ask
        others=[name for name in names if name not in DETECTORS],
        doubts=finished.doubts,
        remarks=[*remarks, *moved, *([finished.no_objects] if finished.no_objects else [])],
    )
    give_back_memory()  # of rasters and objects
    write_answer(here(path), job)
