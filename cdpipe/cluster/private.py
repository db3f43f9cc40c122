"""What cdpipe needs of Ray that has no public name, all in one place.

Tried with the versions that pyproject.toml lets in; where Ray has moved something, a message says so.
"""

import contextlib
import importlib.metadata
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from cdpipe.errors import CdpipeError

HEAD = "node:__internal_head__"  # a resource of the head node alone
TRIES, PAUSE_SECONDS = 5, 2.0  # of asking Kubernetes
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # of a pod


@contextlib.contextmanager
def _door(what: str) -> Iterator[None]:
    """Tell which version of Ray lacks what.

    Raises:
        CdpipeError: If it does.
    """
    try:
        yield
    except (ImportError, AttributeError) as error:
        version = importlib.metadata.version("ray")
        raise CdpipeError(
            f"Ray {version}: {what} is not where it was in the versions that cdpipe was tried with ({error}); "
            "install the version of constraints.txt"
        ) from error


def read_autoscaling(gcs_port: str) -> dict[str, Any] | None:
    """The configuration that the autoscaler was started with; to be called on the head node.

    With ``ray up`` that is a file that the autoscaler's process names, on Kubernetes the RayCluster.

    Args:
        gcs_port: Of the cluster.

    Returns:
        As a ``cluster.yaml``; None where there is no autoscaler, or none that starts nodes.

    Raises:
        CdpipeError: If it cannot be told: to plan for what is there would turn networks to the CPU.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            line = process.cmdline()
            options = dict(part.split("=", 1) for part in line if part.startswith("--") and "=" in part)
            mine = any("monitor.py" in part for part in line) and options.get("--gcs-address", "").endswith(gcs_port)
            if mine and "--autoscaling-config" in options:
                return dict(yaml.safe_load(Path(options["--autoscaling-config"]).expanduser().read_text()))
    if "RAY_CLUSTER_NAME" in os.environ and NAMESPACE.exists():
        return _read_kuberay(os.environ["RAY_CLUSTER_NAME"], NAMESPACE.read_text().strip())
    return None


def _read_kuberay(cluster: str, namespace: str) -> dict[str, Any] | None:
    """What KubeRay's autoscaler goes by, as the API server has it; None where there is none, or no right to know.

    Raises:
        CdpipeError: If the API server does not say.
    """
    with _door("what KubeRay's autoscaler reads"):
        from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as derive
        from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient
    for left in range(TRIES - 1, -1, -1):
        try:
            found = KubernetesHttpApiClient(namespace=namespace).get(f"rayclusters/{cluster}")
            break
        except Exception as error:
            if getattr(getattr(error, "response", None), "status_code", None) in (401, 403, 404):
                return None
            if not left:
                raise CdpipeError(
                    f"RayCluster {cluster} in {namespace}: expected Kubernetes to say what may be started: {error}; "
                    "the same command tries again"
                ) from error
            time.sleep(PAUSE_SECONDS)
    return dict(derive(found)) if found["spec"].get("enableInTreeAutoscaling") else None


def describe_starts() -> list[str]:
    """What the autoscaler is starting and what failed to start, as far as it tells, a line each."""
    import ray

    with _door("the autoscaler's state"):
        from ray.autoscaler.v2.sdk import get_cluster_status
        from ray.autoscaler.v2.utils import is_autoscaler_v2
        from ray.experimental.internal_kv import _internal_kv_get
    try:
        if is_autoscaler_v2():
            return list(_describe_v2(get_cluster_status(ray.get_runtime_context().gcs_address)))
        status = _internal_kv_get("__autoscaling_status")
        return list(_describe_v1(json.loads(status))) if status else []
    except Exception:  # noqa: BLE001 (nice to know, not more)
        return []


def _describe_v2(status: Any) -> Iterator[str]:
    starting = [(launch.ray_node_type_name, launch.count) for launch in status.pending_launches]
    starting += [(node.ray_node_type_name, 1) for node in status.pending_nodes]
    for name in dict.fromkeys(name for name, _ in starting):
        yield f"starting {sum(count for own, count in starting if own == name)} × {name}"
    for failed in dict.fromkeys((each.ray_node_type_name, str(each.details)) for each in status.failed_launches):
        yield f"{failed[0]} does not start: {' '.join(failed[1].split())}"
    for name in dict.fromkeys(node.ray_node_type_name for node in status.failed_nodes):
        yield f"{name} was lost"


def _describe_v1(status: Mapping[str, Any]) -> Iterator[str]:
    report = status.get("autoscaler_report") or {}
    starting = dict(report.get("pending_launches") or {})
    for _, name, _ in report.get("pending_nodes") or ():
        starting[name] = starting.get(name, 0) + 1
    yield from (f"starting {count} × {name}" for name, count in starting.items())
    kinds = ((report.get("node_availability_summary") or {}).get("node_availabilities") or {}).values()
    for kind in kinds:
        if not kind["is_available"]:
            found = kind.get("unavailable_node_information") or {}
            yield f"{kind['node_type']} does not start: {found.get('description') or found.get('category', '')}"
    for name in dict.fromkeys(name for _, name in report.get("failed_nodes") or ()):
        yield f"{name} was lost"
