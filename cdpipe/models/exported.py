"""Networks that come as one file with their contract inside, as ``cdpipe export`` writes them: ONNX and ``.pt2``.

Such a file takes the place of a model's folder. Nothing here runs it or needs its runtime. Formats: ONNX's ModelProto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), of whose fields those but one are passed over; and the zip
archive that ``torch.export.save`` writes.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import IO, Any, get_args

from cdpipe.config.detectors import DETECTORS
from cdpipe.config.schema import RUNTIMES
from cdpipe.errors import InputError
from cdpipe.geo.grid import ID_PATTERN
from cdpipe.store.normalisation import InputKind, Recipe
from cdpipe.workspace.location import Location

EXPORTED = "exported"  # in place of an architecture
KEY = "cdpipe"  # under which a file has its contract
PT2_CONTRACT = "cdpipe.json"  # and its name among the extra files of a .pt2
MOST = 2**20  # bytes of a contract
METADATA = 14  # the field of a ModelProto that has strings by name
EXPORT_IT = "cdpipe export MODEL --out FILE writes one that can be"


def is_exported(place: Location) -> bool:
    """Whether a file is meant and no folder, by its name."""
    return place.suffix.lower() in RUNTIMES


def describe_exported(file: Location) -> dict[str, Any]:
    """What a model's card holds of an exported network, see :class:`cdpipe.models.folder.ModelCard`.

    Raises:
        InputError: If there is no such file, it has no contract, or one that is not to be kept.
    """
    if not ID_PATTERN.fullmatch(file.stem):
        raise InputError(
            f"model {file}: goes by the file's name, which names rasters, too: expected letters, digits, ., _ and -; "
            "rename it"
        )
    try:
        stat = file.stat()
    except OSError:
        raise InputError(f"model {file}: there is no such file; {EXPORT_IT}") from None
    return json.loads(_described(file, stat.size, stat.tag))  # type: ignore[no-any-return]


@lru_cache(maxsize=64)
def _described(file: Location, _size: int, _tag: int | str) -> str:
    runtime = RUNTIMES[file.suffix.lower()]
    contract = (_read_onnx if runtime == "onnx" else _read_pt2)(file)
    if contract is None:
        raise InputError(
            f"model {file}: has no contract of cdpipe's inside, so nobody knows what its channels are; {EXPORT_IT}"
        )
    try:
        values = _card_values(json.loads(contract), runtime)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"model {file}: its contract is none that this version keeps: {said}; {EXPORT_IT}") from None
    return json.dumps({**values, "name": file.stem, "weights_sha256": file.sha256()})


def _card_values(contract: Mapping[str, Any], runtime: str) -> dict[str, Any]:
    """The contract's part of a card; whatever is not as it must be raises."""
    source, result, how = contract["input"], contract["output"], contract["normalisation"]
    recipe = Recipe(
        kind=_one_of(get_args(InputKind), source["kind"]),
        roles=tuple(map(str, source["bands"])),
        statistics=_one_of(("common", "per_date"), how["statistics"]),
        together=_one_of(("together", "each"), how["bands"]) == "together",
        clip=None if how["clip"] is None else float(how["clip"][1]),
        method=_one_of(("moments", "robust"), how["method"]),
        optional=tuple(map(str, how["bands_that_may_lack"])),
        detectors=tuple(_one_of(DETECTORS, name) for name in source["detectors"]),
    )
    batch, channels, side, width = source["shape"]
    if not (side == width and 1 <= side <= 2**14 and 1 <= batch <= 2**10 and channels == recipe.channels):
        raise ValueError(f"a shape of {source['shape']} for {recipe.channels} channels and square patches")
    if source["dtype"] != "float32" or result["shape"] != [batch, 1, side, side] or result["dtype"] != "float32":
        raise ValueError(f"expected float32 in and float32 probabilities of {[batch, 1, side, side]} out")
    threshold = result["threshold"]
    if threshold is not None and not 0 <= float(threshold) <= 1:
        raise ValueError(f"a threshold of {threshold}")
    if recipe.clip is not None and not 0 < recipe.clip < math.inf:
        raise ValueError(f"a clip of {how['clip']}")
    return {
        "architecture": EXPORTED,
        "arguments": {
            "runtime": runtime,
            "batch": batch,
            "input": recipe.kind,
            "detectors": list(recipe.detectors),
            "names": [str(source["name"]), str(result["name"])],
        },
        "roles": list(recipe.roles),
        "statistics": recipe.statistics,
        "together": recipe.together,
        "patch": side,
        "threshold": None if threshold is None else float(threshold),
        "clip": recipe.clip,
        "method": recipe.method,
        "optional": list(recipe.optional),
    }


def _one_of(known: tuple[Any, ...], value: Any) -> Any:
    if value not in known:
        raise ValueError(f"{value!r}, where {', '.join(map(str, known))} are known")
    return value


def _read_pt2(file: Location) -> str | None:
    try:
        with file.file_on_disk() as path, zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{PT2_CONTRACT}")]
            if len(names) != 1 or archive.getinfo(names[0]).file_size > MOST:
                return None
            return archive.read(names[0]).decode()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"model {file}: is not what torch.export.save writes: {error}; {EXPORT_IT}") from None


def _read_onnx(file: Location) -> str | None:
    try:
        with file.open() as stream:
            for entry in _fields(stream, METADATA):
                pair = dict(_strings(entry))
                if pair.get(1) == KEY:
                    return pair.get(2)
    except (ValueError, OSError) as error:
        raise InputError(f"model {file}: is not an ONNX file: {error}; {EXPORT_IT}") from None
    return None


def _fields(stream: IO[bytes], wanted: int) -> Iterator[bytes]:
    """Contents of a field of a message of protocol buffers, as often as it is there; others are passed over."""
    end = stream.seek(0, 2)
    stream.seek(0)
    while stream.tell() < end:
        tag = _varint(stream)
        kind = tag & 7
        if kind == 0:
            _varint(stream)
        elif kind in (1, 5):
            stream.seek(8 if kind == 1 else 4, 1)
        elif kind == 2:
            length = _varint(stream)
            if length > end - stream.tell():
                raise ValueError("it is cut off")
            if tag >> 3 == wanted and length <= MOST:
                yield stream.read(length)
            else:
                stream.seek(length, 1)
        else:
            raise ValueError(f"a field of kind {kind}")


def _strings(message: bytes) -> Iterator[tuple[int, str]]:
    for number in (1, 2):
        for content in _fields(io.BytesIO(message), number):
            yield number, content.decode()


def _varint(stream: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it is cut off")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number without end")
