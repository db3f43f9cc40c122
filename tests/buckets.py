"""An S3 server on loopback, and a proxy before it that counts requests and breaks some of them."""

import http.client
import logging
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from moto.server import ThreadedMotoServer

from cdpipe.workspace import clients
from cdpipe.workspace.location import Location, locate
from cdpipe.workspace.remembered import forget_everything

SECRET = "this-secret-must-be-nowhere"  # noqa: S105 (the server takes any)
OWN = ("connection", "transfer-encoding", "keep-alive", "content-length")  # headers that the proxy makes itself
LATE = 0.1  # seconds


@dataclass
class Proxy:
    """A server that passes requests on, and some of them not.

    Attributes:
        target: Port of the server behind it.
        faults: Share of the requests that meet each kind of fault: ``500``, ``503``, ``reset``, ``cut``, ``late``,
            ``lost`` (the server acts, the answer is lost).
        seen: Requests by method, those that were broken too.
        broken: Faults by kind.
    """

    target: int
    faults: dict[str, float] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    lock: Any = field(default_factory=threading.Lock)
    port: int = 0

    def choose(self, method: str) -> str:
        """The fault that a request meets, if any."""
        with self.lock:
            self.seen[method] += 1
            [kind] = self.chance.choices(
                ["", *self.faults], [max(0.0, 1 - sum(self.faults.values())), *self.faults.values()]
            )
            self.broken[kind] += 1
        return kind


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: Proxy

    def handle_error(self, *_: Any) -> None:
        """Say nothing: connections that break are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.proxy.choose(self.command)
        if kind in ("500", "503"):
            text = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            self._answer(int(kind), [], b"" if self.command == "HEAD" else text, len(text))
            return
        if kind == "reset":
            self._reset()
            return
        if kind == "late":
            time.sleep(LATE)
        server = http.client.HTTPConnection("127.0.0.1", self.server.proxy.target, timeout=60)
        server.request(self.command, self.path, body or None, dict(self.headers))
        answer = server.getresponse()
        data = answer.read()
        server.close()
        if kind == "lost":
            self._reset()
            return
        length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(data)
        self._answer(answer.status, answer.getheaders(), data[: len(data) // 2] if kind == "cut" else data, length)
        if kind == "cut":
            self._reset()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)

    def _reset(self) -> None:
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815 (the library's names)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def running_proxy(target: int) -> Iterator[Proxy]:
    """A proxy before the server at a port of this machine."""
    proxy = Proxy(target)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = proxy
    proxy.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def running_server() -> Iterator[int]:
    """An S3 server; its port on this machine."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


def environment(port: int) -> dict[str, str]:
    """What leads every library to the server at a port of this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "an-access-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def in_environment(port: int) -> Iterator[None]:
    """This process led to the server at a port of this machine."""
    known = {name: os.environ.get(name) for name in environment(port)}
    backoff, pause = clients.RETRIES["backoff"], clients.PAUSE
    os.environ.update(environment(port))
    clients.RETRIES["backoff"], clients.PAUSE = backoff | {"init_backoff": timedelta(milliseconds=10)}, 0.02
    clients._store.cache_clear()
    try:
        yield
    finally:
        clients.RETRIES["backoff"], clients.PAUSE = backoff, pause
        for name, value in known.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        clients._store.cache_clear()
        forget_everything()


def new_bucket(port: int) -> Location:
    """An empty bucket."""
    name = f"test-{uuid4().hex[:12]}"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{name}", headers={"Content-Length": "0"})
    assert connection.getresponse().status == 200
    connection.close()
    return locate(f"s3://{name}")
