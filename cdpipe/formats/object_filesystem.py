"""Object storage as the file system that Ray Train keeps its checkpoints in."""

import tempfile
from typing import Any

import pyarrow.fs
from fsspec import AbstractFileSystem

from cdpipe.workspace.bucket import ObjectPath


def arrow_filesystem(folder: ObjectPath) -> tuple[pyarrow.fs.FileSystem, str]:
    """A file system that holds a folder, and what the folder is called in it; workers may be handed both."""
    scheme, bucket, key = folder.address.scheme, folder.address.bucket, folder.address.key
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(ObjectFileSystem(scheme=scheme))), f"{bucket}/{key}"


class ObjectFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """What fsspec demands, by :class:`ObjectPath`: the same requests, retries and counts as for all else."""

    cachable = False

    def __init__(self, scheme: str, **options: Any) -> None:
        """The buckets of ``s3``, ``gs`` or ``az``."""
        super().__init__(**options)
        self.scheme = scheme

    def _at(self, path: str) -> ObjectPath:
        return ObjectPath(f"{self.scheme}:", *path.strip("/").split("/"))

    def _name(self, path: ObjectPath) -> str:
        return "/".join(path.parts[1:])

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size and kind of an object or folder."""
        there = self._at(path)
        if there.address.key and there.is_file():
            return {"name": self._name(there), "size": there.head().size, "type": "file"}
        if there.is_dir():
            return {"name": self._name(there), "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies right in a folder."""
        there = self._at(path)
        names = [self._name(each) for each in there.iterdir()]
        return [self.info(name) for name in names] if detail else names

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing to do: folders come with their objects."""

    def rm_file(self, path: str) -> None:
        """Remove an object."""
        self._at(path).unlink(missing_ok=True)

    def rm(self, path: str, recursive: bool = False, **_: Any) -> None:
        """Remove an object, or a folder with all that lies beneath."""
        if recursive:
            for each, _head in self._at(path).listed():
                each.unlink(missing_ok=True)
        self.rm_file(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        there = self._at(path)
        return there.open("rb", buffering=2**20) if mode == "rb" else _Upload(there)


class _Upload(tempfile.SpooledTemporaryFile[bytes]):
    """A file of this machine that is stored once it is closed."""

    def __init__(self, path: ObjectPath) -> None:
        super().__init__(max_size=2**24)
        self._path = path

    def close(self) -> None:
        if not self.closed:
            self.flush()
            size = self.seek(0, 2)
            self._path.store(self, size)
        super().close()
