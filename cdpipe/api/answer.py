"""Answers without labels: whether a configuration asks for one, and the page of a pair."""

from collections.abc import Sequence
from pathlib import Path

from cdpipe.cluster.memory import give_back_memory
from cdpipe.config.detectors import DETECTORS, WITHOUT_LABELS, named_folder
from cdpipe.config.schema import Config
from cdpipe.errors import CdpipeError
from cdpipe.pairs.catalog import load_catalog
from cdpipe.pairs.coregistration import known_corrections
from cdpipe.report.answer import AnswerJob, write_answer
from cdpipe.runs.manifest import Manifest
from cdpipe.runs.pairs import result_pairs
from cdpipe.runs.run import Run
from cdpipe.workspace.location import Location, here


def without_labels(config: Config) -> Config:
    """The configuration with detectors that need no training, where no model is named and no pair has a label."""
    if config.predict.models or config.predict.members or _labelled(config):
        return config
    return config.model_copy(update={"predict": config.predict.model_copy(update={"models": _answering()})})


def _answering() -> tuple[Location, ...]:
    """The folders of what answers where nothing can be trained."""
    return tuple(map(named_folder, WITHOUT_LABELS))


def _labelled(config: Config) -> bool:
    """Whether any pair has a label; a catalog that cannot be read is for the check to tell."""
    try:
        pairs = load_catalog(config).pairs
    except CdpipeError:
        return True
    return not pairs or any(pair.label is not None for pair in pairs)


def say_who_answers(run: Run) -> None:
    """Tell before any work that nothing is trained, where no pair has a label."""
    if run.config.predict.models != _answering() or _labelled(run.config):
        return
    names = " and ".join(WITHOUT_LABELS)
    run.say(
        f"no pair of {run.config.catalog.name} has a label, so nothing is trained: what looks different, whatever it "
        f"is, is found by {names}. That says where to look first; to find one kind of change, label some of it"
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
    names = [str(model["name"]) for model in manifest.models]
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
