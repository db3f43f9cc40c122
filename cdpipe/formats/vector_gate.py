"""The gate that vector files pass: what they are made of, and a private folder from which they are read.

GDAL opens a file only under a name of ours, beside its own parts and nothing else, and as the kind that its first bytes
say: some kinds lead it on to other files or hosts, some have it write beside what it reads.
"""

import shutil
import stat
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.formats.gate import require_file
from cdpipe.workspace.location import Location

# How a file of each kind begins that GDAL reads.
BEGINNINGS = {
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\0\0\x27\x0a",
    ".fgb": b"fgb\x03fgb",
    ".tab": b"!table",
    ".gdbtable": b"",
}
JSON = (".geojson", ".json", ".geojsonl", ".geojsons", ".geojsonseq", ".ndjson", ".jsonl")
PARQUET = (".parquet", ".geoparquet")
TEXTS = (*JSON, ".kml", ".gml", *PARQUET)  # kinds that are read without GDAL
ZIPS = (".zip", ".kmz", ".shz")
# Kinds that hold outlines and are not read: said so, rather than that they are no rasters.
SHAPEFILE_PARTS = (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx")
OTHERS = (".topojson", ".csv", ".wkt", ".dxf", ".dgn", ".mif", ".gpx", ".sqlite", ".osm", ".pbf", ".gz", ".7z", ".rar")
VECTOR_SUFFIXES = (".gpkg", ".shp", ".fgb", ".tab", ".gdb", *TEXTS, *ZIPS)
# The parts of a file beside it, by suffix; the first ones it cannot do without.
PARTS = {".shp": (".shx", ".dbf", ".prj", ".cpg"), ".tab": (".dat", ".map", ".id", ".ind")}
NEEDED = {".shp": (".shx",), ".tab": (".dat", ".map", ".id")}

MOST_TEXT = 2**30  # bytes of a file that has no index, all of which is read
MOST_MEMBERS, MOST_INFLATED = 10_000, 2 * 2**30  # of a zip
RATIO, HARMLESS = 200, 64 * 2**20  # outlines pack ten to one; a zip that declares far more is a trap, or small
CHUNK = 2**20
HOT = bytes.fromhex("d9d505f920a163d7")  # how a journal begins that is to be rolled back


def is_vector(path: Location | Path) -> bool:
    """Whether a file's name says that it holds polygons rather than pixels."""
    return path.suffix.lower() in (*VECTOR_SUFFIXES, *OTHERS, *SHAPEFILE_PARTS)


def vector_files(path: Location) -> list[Location]:
    """All files that a vector file is made of, as far as they are there: they decide together what it holds."""
    suffix = path.suffix.lower()
    if suffix == ".gdb" and not path.is_file():
        inside = [file for file, _ in path.walk() if file.suffix.lower() != ".lock"]
        return inside or [path]
    files = [path]
    for part in PARTS.get(suffix, ()):
        files += [file for name in _spellings(part, path) if (file := path.with_suffix(name)).is_file()][:1]
    if suffix == ".gpkg":
        journal = path.with_name(f"{path.name}-wal")  # what was saved last may lie here alone
        files += [journal] if journal.is_file() and journal.stat().size else []
    return files


def _spellings(suffix: str, beside: Location) -> list[str]:
    """A suffix in capitals or not, first as the file itself has it."""
    both = [suffix, suffix.upper()]
    return both[::-1] if beside.suffix.isupper() else both


_MAKING = threading.Lock()


class PrivateFolder:
    """A folder of this machine that goes when nobody holds it any more, at the latest when this process ends."""

    def __init__(self) -> None:
        """Make it, empty."""
        with _MAKING:  # of two threads that are first, one would have the other's folder removed
            scratch = _scratch()
        self.path = Path(tempfile.mkdtemp(dir=scratch.name))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, True)


@lru_cache(maxsize=1)
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    folder = tempfile.TemporaryDirectory(prefix="cdpipe-")
    if ":" in folder.name:  # which GDAL would take for the end of a name
        raise InputError(f"{folder.name}: expected a folder for temporary files without a colon; set TMPDIR")
    return folder


def take_in(
    path: Location, files: Sequence[Location], settings: Input, member: str | None
) -> tuple[Path, PrivateFolder]:
    """A vector file as it may be opened.

    Args:
        path: The file, as users know it.
        files: What it is made of, see :func:`vector_files`.
        settings: Where files may lie.
        member: Which of several in a zip, by its name without suffix.

    Returns:
        The file under a name of ours, and the folder that is to be held as long as it is read.

    Raises:
        InputError: If it is not there, lies elsewhere, is a trap or not what its name says.
    """
    suffix = path.suffix.lower()
    if suffix in SHAPEFILE_PARTS:
        raise InputError(f"{path}: expected a raster or a file of polygons, got part of a Shapefile; name its .shp")
    if suffix in OTHERS:
        raise InputError(
            f"{path}: expected a raster, or polygons in a file of {', '.join(VECTOR_SUFFIXES)}; save it as a GeoPackage"
        )
    if suffix == ".gdb" and files == [path]:
        there = "a file of that name" if path.is_file() else "nothing"
        raise InputError(f"{path}: expected a folder, as a file geodatabase is one, got {there}")
    for number, file in enumerate(files):
        require_file(file, settings, "a part of it" if number else "a file of polygons")
    folder = PrivateFolder()
    own = folder.path / f"label{suffix}"
    if suffix == ".gdb":
        own.mkdir()
        for file in files:
            _place(file, own / file.relative_to(path), copy=False)
    else:
        # SQLite writes beside a file that keeps a journal: not beside the user's
        copy = suffix == ".gpkg" and (len(files) > 1 or _keeps_journal(path))
        for file in files:
            end = file.suffix.lower() if file.suffix.lower() in PARTS.get(suffix, ()) else suffix
            name = f"label{suffix}-wal" if file.name.endswith("-wal") else f"label{end}"
            _place(file, folder.path / name, copy=copy)
    if suffix in ZIPS:
        own = _unpack(path, own, folder.path / "inside", member)
    _check(path, own)
    return own, folder


def _keeps_journal(path: Location) -> bool:
    """Whether a GeoPackage is in SQLite's mode WAL; see "The Database Header" in SQLite's file format.

    Raises:
        InputError: If it was left half-written, or is being written.
    """
    journal = path.with_name(f"{path.name}-journal")
    if journal.is_file() and _start(journal, len(HOT)) == HOT:
        raise InputError(f"{path}: is being written, or was left half-written; save and close it where it is edited")
    return 2 in _start(path, 20)[18:]


def _start(file: Location, length: int) -> bytes:
    with file.open() as stream:
        return stream.read(length)


def _place(file: Location, own: Path, *, copy: bool) -> None:
    own.parent.mkdir(parents=True, exist_ok=True)
    if not file.far and not copy:
        own.symlink_to(file.local().absolute())
        return
    with file.open() as source, own.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK)


def _check(path: Location, own: Path) -> None:
    """What stands in a private folder is what its name says, with all its parts."""
    suffix = own.suffix.lower()
    if suffix == ".gdb":
        files = list(own.iterdir())
        if not any(file.name.lower() == "a00000001.gdbtable" for file in files):
            raise InputError(f"{path}: expected a file geodatabase, its table a00000001.gdbtable is missing")
        return
    if suffix in TEXTS:
        if own.stat().st_size > MOST_TEXT:
            raise InputError(
                f"{path}: {own.stat().st_size / 2**30:.1f} GiB; expected at most 1: save it as a GeoPackage"
            )
        return
    with own.open("rb") as file:
        start = file.read(4096)
    if (
        not start.lower().startswith(BEGINNINGS[suffix])
        if suffix == ".tab"
        else not start.startswith(BEGINNINGS[suffix])
    ):
        raise InputError(f"{path}: expected a {suffix} file, it does not begin like one")
    if suffix == ".shp" and own.stat().st_size < 2 * int.from_bytes(start[24:28], "big"):
        raise InputError(f"{path}: damaged: shorter than it says; copy it again")
    missing = [part for part in NEEDED.get(suffix, ()) if not own.with_suffix(part).exists()]
    if missing:
        raise InputError(f"{path}: {' and '.join(missing)} are missing beside it; copy all files of that name along")
    if suffix == ".tab" and (b"seamless" in start.lower() or b"type native" not in start.lower()):
        raise InputError(
            f"{path}: expected a native MapInfo table, got one that refers to others; save it as a GeoPackage"
        )


def _unpack(path: Location, archive: Path, to: Path, member: str | None) -> Path:
    """Unpack the one vector file in a zip."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = _safe_members(path, file)
            chosen = _choose(path, sorted(members), member)
            root, suffix = PurePosixPath(chosen).parent, PurePosixPath(chosen).suffix.lower()
            to.mkdir()
            own = to / f"label{suffix}"
            for name, info in members.items():
                part = PurePosixPath(name)
                if suffix == ".gdb" and part.is_relative_to(chosen) and part.suffix.lower() != ".lock":
                    own.mkdir(exist_ok=True)
                    _extract(file, info, own / part.name)
                elif suffix != ".gdb" and part.parent == root and part.stem == PurePosixPath(chosen).stem:
                    end = part.suffix.lower()
                    if end == suffix or end in PARTS.get(suffix, ()):
                        _extract(file, info, own.with_suffix(end))
            return own
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not readable as a zip: {' '.join(str(error).split())[:200]}") from None


def _safe_members(path: Location, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = [info for info in file.infolist() if not info.is_dir()]
    inflated, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    if len(infos) > MOST_MEMBERS or inflated > MOST_INFLATED or (inflated > HARMLESS and inflated > RATIO * packed):
        raise InputError(
            f"{path}: a zip of {len(infos)} files that declares {inflated / 2**20:.0f} MiB, packed in {packed} bytes; "
            f"expected at most {MOST_MEMBERS} files, {MOST_INFLATED >> 20} MiB and {RATIO} : 1"
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.filename.startswith(("/", "\\")) or ".." in parts or ":" in info.filename.partition("/")[0]:
            raise InputError(f"{path}: a zip with a file {info.filename[:80]!r}, which would lie outside of it")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise InputError(f"{path}: a zip with a link, {info.filename[:80]!r}, which is not followed")
        if parts[0] != "__MACOSX" and not parts[-1].startswith("."):
            members["/".join(parts)] = info
    return members


def _choose(path: Location, names: Sequence[str], member: str | None) -> str:
    found = list(dict.fromkeys(_datasets(names)))
    if path.suffix.lower() == ".kmz" and found:  # the others are what it links to
        first = [name for name in found if "/" not in name] or found
        return "doc.kml" if "doc.kml" in first else first[0]
    if len(found) > 1 and member is not None:
        found = [name for name in found if PurePosixPath(name).stem == member] or found
    if len(found) != 1:
        shown = ", ".join(found[:8]) or "none"
        way = f"; choose one by label.layer: {PurePosixPath(found[0]).stem}" if found else ""
        raise InputError(f"{path}: expected a zip with one vector file, got {shown}{way}")
    return found[0]


def _datasets(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        path = PurePosixPath(name)
        inside = next((folder for folder in [*path.parents][::-1] if folder.suffix.lower() == ".gdb"), None)
        if inside is not None:
            yield str(inside)
        elif path.suffix.lower() in VECTOR_SUFFIXES and path.suffix.lower() not in ZIPS:
            yield name


def _extract(file: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path) -> None:
    written = 0
    with file.open(info) as source, to.open("wb") as target:
        while piece := source.read(CHUNK):
            written += len(piece)
            if written > info.file_size:
                raise ValueError("a file is longer than the zip declares")
            target.write(piece)
