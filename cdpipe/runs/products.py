"""What a run publishes: files that belong together, written at one go, with a record that says so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import GROUP_RECORD, read_record, withdraw_records, write_record

ProductKind = Literal["rasters", "vectors", "layers", "ensembles", "catalogs"]  # of records; names in the workspace

_CRASH_POINTS: Mapping[ProductKind, str] = {
    "rasters": "rasters-unrecorded",
    "vectors": "vectors-unrecorded",
    "layers": "vectors-unrecorded",
    "ensembles": "ensemble-unrecorded",
    "catalogs": "stac-unrecorded",
}
PRODUCT_KINDS = tuple(_CRASH_POINTS)


@dataclass(frozen=True, slots=True)
class Product:
    """Files that are published together, and how they are made. It travels to workers.

    Attributes:
        workspace: Where all lies.
        kind: Of the record.
        name: Whose files they are: a pair's id, or the run's name.
        key: Content key of the files.
        replaces: Files that it takes the place of; records of other results that speak of them are withdrawn.
        spec: What is written.
        write: A function of a module that writes ``spec`` and returns every file with its SHA-256.
    """

    workspace: Workspace
    kind: ProductKind
    name: str
    key: str
    replaces: tuple[Location, ...]
    spec: object
    write: Callable[[Any], dict[Location, str]]

    @property
    def record(self) -> Location:
        """File of the record that says the files are written."""
        return self.workspace.records(self.kind, self.name, self.key) / GROUP_RECORD


def is_written(product: Product) -> bool:
    """Whether a product is recorded and its files are there; ``verify`` also looks inside."""
    record = read_record(product.record)
    return record is not None and all((product.workspace.root / name).is_file() for name in record.objects)


def recorded(product: Product) -> dict[str, str]:
    """Files of a product relative to the workspace, each with its SHA-256; empty where it is not recorded."""
    record = read_record(product.record)
    return record.objects if record else {}


def write_product(product: Product) -> dict[Location, str]:
    """Write a product, whether it is there or not; records of what it replaces go first, its own comes last.

    Returns:
        Every file with its SHA-256.

    Raises:
        IntegrityError: If a file does not read back as what was to be written.
        InputError: If the pixels' place or the options do not allow it.
    """
    withdraw_records(product.record, product.workspace.root, product.replaces)
    files = product.write(product.spec)
    crash_point(_CRASH_POINTS[product.kind])
    write_record(product.record, product.workspace.root, files)
    return files


def ensure_written(product: Product) -> None:
    """Write a product unless it is there; see :func:`write_product`."""
    if not is_written(product):
        write_product(product)
