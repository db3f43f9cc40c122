"""What a run publishes: files that belong together, written at one go, with a record that says so."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cdpipe.errors import RefusedError
from cdpipe.workspace.crash import crash_point
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import GROUP_RECORD, damaged_objects, read_record, withdraw_records, write_record

ProductKind = Literal[  # of records; names in the workspace
    "rasters",
    "vectors",
    "layers",
    "mosaics",
    "ensembles",
    "catalogs",
    "evaluations",
    "tables",
    "audits",
    "pictures",
    "pages",
]

_CRASH_POINTS: Mapping[ProductKind, str] = {
    "rasters": "rasters-unrecorded",
    "vectors": "vectors-unrecorded",
    "layers": "vectors-unrecorded",
    "mosaics": "mosaic-unrecorded",
    "ensembles": "ensemble-unrecorded",
    "catalogs": "stac-unrecorded",
    "evaluations": "evaluation-unrecorded",
    "tables": "tables-unrecorded",
    "audits": "audit-unrecorded",
    "pictures": "pictures-unrecorded",
    "pages": "page-unrecorded",
}
PRODUCT_KINDS = tuple(_CRASH_POINTS)
REFUSED = "refused"  # in a record's facts, with the reason


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


def is_intact(product: Product) -> bool:
    """Whether a product is recorded and its files are what was written; in object storage, whether they are there.

    For small files, which people open and may change: hashing them takes less than wondering.
    """
    root = product.workspace.root
    if root.far:
        return is_written(product)
    record = read_record(product.record)
    return record is not None and not damaged_objects(record, root)


def recorded(product: Product) -> dict[str, str]:
    """Files of a product relative to the workspace, each with its SHA-256; empty where it is not recorded."""
    record = read_record(product.record)
    return record.objects if record else {}


def refusal(product: Product) -> str | None:
    """Why a product that is recorded has no files; None where it has some, or is not recorded."""
    record = read_record(product.record)
    return record.facts.get(REFUSED) if record else None


def write_product(product: Product) -> dict[Location, str]:
    """Write a product, whether it is there or not; records of what it replaces go first, its own comes last.

    Where it is refused its record says why, and so it is not tried again: see :func:`refusal`.

    Returns:
        Every file with its SHA-256; none where it is refused.

    Raises:
        IntegrityError: If a file does not read back as what was to be written.
        InputError: If the pixels' place or the options do not allow it.
    """
    withdraw_records(product.record, product.workspace.root, product.replaces)
    product.record.parent.sweep()  # of a writer that was killed
    files, facts = dict[Location, str](), dict[str, Any]()
    try:
        files = product.write(product.spec)
    except RefusedError as error:
        facts[REFUSED] = str(error)
        for file in product.replaces:
            file.unlink(missing_ok=True)
    crash_point(_CRASH_POINTS[product.kind])
    write_record(product.record, product.workspace.root, files, facts)
    return files


def ensure_written(product: Product) -> None:
    """Write a product unless it is there; see :func:`write_product`."""
    if not is_written(product):
        write_product(product)


def ensure_intact(product: Product) -> None:
    """Write a product unless its files are what was written; see :func:`is_intact` and :func:`write_product`."""
    if not is_intact(product):
        write_product(product)


def remove_product(workspace: Workspace, kind: ProductKind, name: str, files: Sequence[Location]) -> None:
    """Remove files of a product that is wanted no more, and first whatever record speaks of them.

    Args:
        workspace: Where all lies.
        kind: Of the records.
        name: Whose files they are.
        files: What goes.
    """
    withdraw_records(workspace.records(kind, name, "-") / GROUP_RECORD, workspace.root, files)
    for file in files:
        file.unlink(missing_ok=True)
