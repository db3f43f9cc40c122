"""Keeps to the folders that the configuration allows to read from."""

from pathlib import Path

from cdpipe.config.schema import Input
from cdpipe.errors import InputError
from cdpipe.workspace.bucket import ObjectPath


def require_file(path: Path, settings: Input, what: str) -> None:
    """A file that is there, and lies in one of ``settings.roots`` where there are any, links followed.

    Raises:
        InputError: If it is not so.
    """
    try:
        there, real = path.is_file(), path.resolve()
        str(path).encode()
    except OSError as error:
        if isinstance(path, ObjectPath):
            raise InputError(str(error)) from None
        raise _unusable(path, error) from None
    except (UnicodeError, ValueError, RuntimeError) as error:  # not UTF-8, NUL, links in a circle
        raise _unusable(path, error) from None
    if settings.roots and not any(real.is_relative_to(root) for root in settings.roots):
        roots = ", ".join(map(str, settings.roots))
        raise InputError(f"{path}: lies at {real}, outside of {roots} (input.roots)")
    if not there:
        raise InputError(f"{path}: expected {what}; there is no such file")


def _unusable(path: Path, error: Exception) -> InputError:
    return InputError(f"{str(path)!a}: expected the name of a file in UTF-8: {error}")
