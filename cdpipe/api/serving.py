"""A view's server: it listens on this machine's loopback alone, and answers nobody who came by another name."""

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cdpipe.api.view import TEXT, Answer, View, answer
from cdpipe.errors import ConfigError
from cdpipe.version import __version__

LOOPBACK = "127.0.0.1"
# A page elsewhere may have its own name resolved to 127.0.0.1, and would then be answered as if it were ours.
NAMES = (LOOPBACK, "localhost")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LASTING = "private, max-age=600"


class Server(ThreadingHTTPServer):
    """Answers in threads."""

    daemon_threads = True

    def __init__(self, view: View, port: int) -> None:
        """Listen.

        Raises:
            ConfigError: If the port is not to be had.
        """
        self.view = view
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"--port {port}: expected a port that is free, got: {reason}; leave it out to get a free one"
            ) from None

    @property
    def host(self) -> str:
        """Its name and port, as in its address."""
        return f"{LOOPBACK}:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that went away before they had their answer; all else is a bug, and is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = f"cdpipe/{__version__}", ""
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may be idle

    def do_GET(self) -> None:
        """Answer."""
        self._send(self._find(), body=True)

    def do_HEAD(self) -> None:
        """Answer without what was asked for."""
        self._send(self._find(), body=False)

    def _find(self) -> Answer:
        host = self.headers.get("Host", "")
        name, _, port = host.partition(":")
        if name.lower() not in NAMES or not (port.isdecimal() or host == name):
            return Answer(HTTPStatus.FORBIDDEN, TEXT, f"expected {LOOPBACK} or localhost as the host\n".encode())
        return answer(self.server.view, self.path, host)  # through a tunnel, the port may be another

    def _send(self, found: Answer, *, body: bool) -> None:
        self.send_response(found.status)
        self.send_header("Content-Type", found.kind)
        self.send_header("Content-Length", str(len(found.body)))
        self.send_header("Cache-Control", LASTING if found.lasting else "no-cache")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(found.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the library)
        """Say nothing: every tile would be a line."""
