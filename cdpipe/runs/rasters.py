"""A finished pair's rasters: probability and change as GeoTIFFs, each model's probability on request."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from cdpipe.formats.cog import CHANGE_COLORS, Band, write_cog
from cdpipe.geo.grid import Window
from cdpipe.keys import content_key
from cdpipe.metrics.classes import NOT_OBSERVED
from cdpipe.runs.products import Product
from cdpipe.runs.styles import style_digest, style_path, write_style
from cdpipe.store.arrays import open_array, read_window
from cdpipe.store.pair import StoredPair
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

AT_ONCE = 2  # rasters of a pair


@dataclass(frozen=True, slots=True)
class PairRasters:
    """The rasters of one pair.

    Attributes:
        workspace: The store.
        run: The run's name.
        pair: The pair.
        change_key: Key of its change.
        members: Name and probability key of each model whose own raster is wanted.
        tags: Metadata for every raster.
    """

    workspace: Workspace
    run: str
    pair: StoredPair
    change_key: str
    members: tuple[tuple[str, str], ...]
    tags: dict[str, str]

    @property
    def key(self) -> str:
        """Content key of the set of rasters."""
        return content_key(
            "raster",
            {
                "run": self.run,
                "change": self.change_key,
                "members": [list(member) for member in self.members],
                "tags": self.tags,
                "styles": style_digest("change", "probability"),
            },
        )

    @property
    def paths(self) -> list[Location]:
        """Files of change, of the ensemble's probability and of each member's."""
        folder = self.workspace.run(self.run) / "rasters"
        names = ["change", "probability", *(f"probability_{name}" for name, _ in self.members)]
        return [folder / f"{self.pair.pair_id}_{name}.tif" for name in names]


def raster_product(rasters: PairRasters) -> Product:
    """A pair's rasters as a product, with a QGIS style beside each."""
    replaces = (*rasters.paths, *map(style_path, rasters.paths))
    return Product(rasters.workspace, "rasters", rasters.pair.pair_id, rasters.key, replaces, rasters, write_rasters)


def write_rasters(rasters: PairRasters) -> dict[Location, str]:
    """Write a pair's rasters and their styles; what is stored is read again to compare.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If a raster does not read back as what is stored.
    """
    workspace, pair = rasters.workspace, rasters.pair
    change = workspace.group("changes", pair.pair_id, rasters.change_key)
    probability = Band("float32", float("nan"), "probability of change", tags=rasters.tags)
    mask = Band("uint8", NOT_OBSERVED, "change: 0 no, 1 yes, 255 not observed", CHANGE_COLORS, rasters.tags)
    arrays = [(change, "change", mask), (change, "probability", probability)]
    for _, key in rasters.members:
        arrays.append((workspace.group("probabilities", pair.pair_id, key), "probability", probability))

    def write(path: Location, array: tuple[Location, str, Band]) -> str:
        group, name, band = array
        write_style(path, "change" if band is mask else "probability")
        return write_cog(path, _reader(group, name), pair.grid, band)

    with ThreadPoolExecutor(AT_ONCE, "cdpipe-rasters") as pool:
        hashes = dict(zip(rasters.paths, pool.map(write, rasters.paths, arrays), strict=True))
    return hashes | hash_stored(map(style_path, rasters.paths))


def _reader(group: Location, name: str) -> Callable[[Window], NDArray[Any]]:
    array = open_array(group, name)
    return lambda window: read_window(array, window)
