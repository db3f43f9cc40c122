"""An object in a store as a file that is read by ranges, as Python's buffered files want it."""

import io
from typing import Any

from cdpipe.formats import object_requests
from cdpipe.formats.object_requests import Head
from cdpipe.formats.object_stores import Address


class ObjectReader(io.RawIOBase):
    """What is read of an object is all of one content, or an error."""

    def __init__(self, address: Address, head: Head) -> None:
        self._address, self._head, self._position = address, head, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read elsewhere next."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._head.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer by one request; 0 at the end."""
        length = max(0, min(len(buffer), self._head.size - self._position))
        if length:
            data = object_requests.read_range(self._address, self._position, length, self._head.e_tag)
            buffer[: len(data)] = data
            self._position += len(data)
            return len(data)
        return 0
