"""A finished pair's change objects as a vector layer, recorded as its rasters are."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from cdpipe.formats.qgis import objects_style
from cdpipe.formats.vectors import SUFFIXES, write_features
from cdpipe.keys import content_key
from cdpipe.objects.features import SCHEMA, ChangeScene, change_features
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.local import temporary_folder, write_atomically
from cdpipe.workspace.records import GROUP_RECORD, hash_stored, read_record, withdraw_records, write_record


@dataclass(frozen=True, slots=True)
class VectorJob:
    """The vector layer of one pair.

    Attributes:
        run: The run's name.
        scene: The pair's change.
        tags: Metadata of the layer.
    """

    run: str
    scene: ChangeScene
    tags: dict[str, str]

    @property
    def key(self) -> str:
        """Content key of the layer."""
        scene = self.scene
        return content_key(
            "vector",
            {
                "run": self.run,
                "change": scene.change_key,
                "members": [list(each) for each in scene.members],
                "options": scene.options.model_dump(mode="json", exclude={"crs"}),
                "dates": list(scene.dates),
                "tags": self.tags,
            },
        )

    @property
    def record(self) -> Path:
        """File of the record that says the layer is written."""
        return self.scene.workspace.records("vectors", self.scene.pair.pair_id, self.key) / GROUP_RECORD

    @property
    def path(self) -> Path:
        """The layer's file."""
        scene = self.scene
        name = f"{scene.pair.pair_id}_change{SUFFIXES[scene.options.format]}"
        return scene.workspace.run(self.run) / "vectors" / name


def remove_other_formats(path: Path) -> list[Path]:
    """Remove a layer's files in other formats; all names that it may have."""
    names = [path.with_suffix(suffix) for suffix in SUFFIXES.values()]
    for other in names:
        if other != path:
            other.unlink(missing_ok=True)
    return names


def vectors_are_written(job: VectorJob) -> bool:
    """Whether a pair's layer is there; ``verify`` also looks inside."""
    record = read_record(job.record)
    return record is not None and all((job.scene.workspace.root / name).is_file() for name in record.objects)


def write_vectors(job: VectorJob) -> None:
    """Write, read back and publish a pair's layer, then record it; records of what it replaces are withdrawn.

    Raises:
        IntegrityError: If it does not read back as what was to be written.
        InputError: If the pair's place or the options do not allow it, see :func:`change_features`.
    """
    scene, path = job.scene, job.path
    withdraw_records(job.record, scene.workspace.root, remove_other_formats(path))
    spill = temporary_folder(path, "objects.partial")
    shutil.rmtree(spill, ignore_errors=True)
    spill.mkdir(parents=True)
    try:
        digest = write_features(path, change_features(scene, spill), SCHEMA, scene.pair.grid.crs, job.tags)
    finally:
        shutil.rmtree(spill, ignore_errors=True)
    style = write_style(path)
    crash_point("vectors-unrecorded")
    write_record(job.record, scene.workspace.root, {path: digest} | hash_stored([style]))


def write_style(path: Path) -> Path:
    """Write the QGIS style beside a layer; its file."""
    style = path.with_suffix(".qml")
    write_atomically(style, objects_style())
    return style
