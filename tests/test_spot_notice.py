"""A spot machine's notice, from metadata served on loopback, reaches Ray as a drain of that node."""

import datetime
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray
from ray._private.state import state
from ray.cluster_utils import Cluster

SCRIPT = Path(__file__).resolve().parents[1] / "deploy" / "aws" / "spot_notice.py"
TOKEN = "a-token"  # noqa: S105 (of the server below)
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]


class Metadata(BaseHTTPRequestHandler):
    """As IMDSv2: a token for who PUTs, a notice for who brings it, and only once there is one."""

    asked = 0

    def do_PUT(self) -> None:
        self._answer(TOKEN if self.path == "/latest/api/token" else None)

    def do_GET(self) -> None:
        Metadata.asked += 1
        known = self.headers["X-aws-ec2-metadata-token"] == TOKEN and self.path.endswith("/spot/instance-action")
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
        notice = json.dumps({"action": "terminate", "time": end.strftime("%Y-%m-%dT%H:%M:%SZ")})
        self._answer(notice if known and Metadata.asked > 1 else None)

    def _answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_notice_drains_the_node(metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 10**8})
    try:
        cluster.connect()  # type: ignore[no-untyped-call]
        # an idle node would be gone at once
        busy = ray.remote(num_cpus=1)(lambda: time.sleep(200)).remote()
        assert not ray.wait([busy], timeout=5)[0]
        command = [sys.executable, str(SCRIPT), cluster.address, "--metadata", metadata]
        subprocess.run(command, check=True, capture_output=True, env=dict(os.environ))
        [(node, deadline)] = state.get_draining_nodes().items()
        assert node == ray.nodes()[0]["NodeID"]  # type: ignore[no-untyped-call]
        assert 60 < deadline / 1000 - time.time() < 95
        assert Metadata.asked == 2
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
