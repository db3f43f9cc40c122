"""A Ray cluster of this machine whose autoscaler starts and ends nodes, by the provider of Ray's own tests.

Ray's wheel lacks the configuration file of that provider, which as an "external" one needs none. The processes are
ended one by one, since `ray stop` would end every Ray of the machine.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import free_ports, kill_all_of, wait_for

RAY = Path(sys.executable).with_name("ray")
HEAD_ID = "f" * 51 + "00000"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
STORE = {"object_store_memory": 10**8}


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """A cluster.

    Attributes:
        address: For ``RAY_ADDRESS``.
        dashboard: Of its job server.
        folder: Where it keeps its files.
        environment: For processes that talk to it.
    """

    address: str
    dashboard: str
    folder: Path
    environment: dict[str, str]


def node_type(most: int, **resources: int) -> dict[str, Any]:
    """A kind of worker of which there are none at first."""
    return {"resources": {**resources, **STORE}, "node_config": {}, "min_workers": 0, "max_workers": most}


@contextlib.contextmanager
def autoscaling(types: Mapping[str, Mapping[str, Any]], *, idle_minutes: float = 0.2) -> Iterator[Autoscaling]:
    """A head that runs no tasks, and workers of some types, started when they are asked for.

    By version 2 of Ray's autoscaler: with version 1 nodes of this provider were lost seconds after they had joined.

    Args:
        types: As in a ``cluster.yaml``, by name.
        idle_minutes: After which a worker without work ends.
    """
    folder = Path(tempfile.mkdtemp(prefix="cdpipe-"))  # a socket's path may have 107 characters
    gcs, dashboard, client, agent, agent_grpc = free_ports(5)
    provider = {"type": "external", "module": PROVIDER, "gcs_address": f"127.0.0.1:{gcs}", "head_node_id": HEAD_ID}
    head_type = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "made-up",
        "max_workers": 8,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_minutes,
        "provider": {**provider, "launch_multiple": True},
        "available_node_types": {**types, "ray.head.default": head_type},
        "head_node_type": "ray.head.default",
        "auth": {"ssh_user": "nobody"},
        "initialization_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{role}setup_commands": [] for role in ("", "head_", "worker_")},
        **{f"{role}_start_ray_commands": [] for role in ("head", "worker")},
    }
    (folder / "cluster.json").write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PATH": f"{RAY.parent}:{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}
    own = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
    own |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
    own |= {"RAY_NODE_TYPE_NAME": "ray.head.default"}
    command = [str(RAY), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(gcs)]
    command += ["--autoscaling-config", str(folder / "cluster.json"), "--temp-dir", str(folder)]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--disable-usage-stats"]
    command += ["--ray-client-server-port", str(client), "--dashboard-agent-listen-port", str(agent)]
    command += ["--dashboard-agent-grpc-port", str(agent_grpc), "--min-worker-port", "0", "--max-worker-port", "0"]
    command += ["--num-cpus", "0", "--num-gpus", "0", "--object-store-memory", "200000000"]
    with (folder / "head.txt").open("wb") as log:
        head = subprocess.Popen(command, env={**environment, **own}, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(dashboard, head, folder / "head.txt")
        made = Autoscaling(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", folder, environment)
        made.environment["RAY_ADDRESS"] = made.address
        yield made
    finally:
        kill_all_of(folder)
        head.wait()
        kill_all_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
