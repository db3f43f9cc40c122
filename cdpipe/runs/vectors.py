"""A finished pair's change objects as a vector layer."""

import itertools
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from cdpipe.config.schema import MAX_OBJECTS
from cdpipe.formats.vectors import SUFFIXES, WRITTEN, write_features
from cdpipe.keys import content_key
from cdpipe.objects.features import SCHEMA, ChangeScene, change_features
from cdpipe.runs.products import Product
from cdpipe.runs.styles import style_digest, style_path, write_style
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored


@dataclass(frozen=True, slots=True)
class PairLayer:
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
        # what was not there once has its part as soon as it does something
        untold = {"crs", "also"} | ({"max_objects"} if scene.options.max_objects == MAX_OBJECTS else set())
        return content_key(
            "vector",
            {
                "run": self.run,
                "change": scene.change_key,
                "members": [list(member) for member in scene.members],
                "options": scene.options.model_dump(mode="json", exclude=untold),
                "dates": list(scene.dates),
                "tags": self.tags,
                "written": WRITTEN,
                "styles": style_digest("objects"),
            },
        )

    @property
    def path(self) -> Location:
        """The layer's file."""
        scene = self.scene
        name = f"{scene.pair.pair_id}_change{SUFFIXES[scene.options.format]}"
        return scene.workspace.run(self.run) / "vectors" / name


def pair_layer_product(layer: PairLayer) -> Product:
    """A pair's vector layer as a product, with a QGIS style beside it."""
    scene = layer.scene
    replaces = (*names_in_all_formats(layer.path), style_path(layer.path))
    return Product(scene.workspace, "vectors", scene.pair.pair_id, layer.key, replaces, layer, write_pair_layer)


def write_pair_layer(layer: PairLayer) -> dict[Location, str]:
    """Find a pair's change objects and write them.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If the layer does not read back as what was to be written.
        InputError: If the pair's place or the options do not allow it, see :func:`change_features`.
        RefusedError: If there are more than the options allow.
    """
    scene = layer.scene
    spill = layer.path.temporary("objects.partial")
    shutil.rmtree(spill, ignore_errors=True)
    spill.mkdir(parents=True)
    try:
        features = change_features(scene, spill)
        # now, since GDAL, which draws the others, would make another error of a refusal
        first = list(itertools.islice(features, 1))
        found = itertools.chain(first, features)
        return write_layer(layer.path, found, SCHEMA, scene.pair.grid.crs, layer.tags)
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def names_in_all_formats(path: Location) -> tuple[Location, ...]:
    """The file that a vector layer has in each format: a run has it in one of them."""
    return tuple(path.with_suffix(suffix) for suffix in SUFFIXES.values())


def write_layer(
    path: Location, features: Iterable[pa.RecordBatch], schema: pa.Schema, crs: str | None, tags: Mapping[str, str]
) -> dict[Location, str]:
    """Write a vector layer and the QGIS style beside it; what it was in other formats is removed.

    Args:
        path: The layer's file, whose suffix tells the format.
        features: See :func:`cdpipe.formats.vectors.write_features`, as for the others.
        schema: Of the features.
        crs: WKT, None without a georeference.
        tags: Metadata of the layer.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If the layer does not read back as what was to be written.
    """
    for other in names_in_all_formats(path):
        if other != path:
            other.unlink(missing_ok=True)
    digest = write_features(path, features, schema, crs, tags)
    return {path: digest} | hash_stored([write_style(path, "objects")])
