"""What a cluster has, and what its autoscaler may start besides."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cdpipe.cluster import spread
from cdpipe.cluster.private import HEAD, read_autoscaling
from cdpipe.errors import CdpipeError

ASK_SECONDS = 60.0  # a task on the head starts within seconds

Bundle = Mapping[str, float]  # amounts of Ray's resources


@dataclass(frozen=True, slots=True)
class NodeType:
    """A kind of node that an autoscaler starts.

    Attributes:
        name: Its name in the autoscaler's configuration.
        resources: What Ray may schedule on each; empty where only the node itself will know.
        most: How many of them there may be.
    """

    name: str
    resources: Bundle
    most: int


@dataclass(frozen=True, slots=True)
class Supply:
    """What there is at a moment, and what there may be.

    Attributes:
        nodes: What each node that is alive has.
        types: What may be started; empty without an autoscaler.
        most: How many nodes may be started, whatever their kind.
    """

    nodes: tuple[Bundle, ...]
    types: tuple[NodeType, ...] = ()
    most: int = 0

    def has(self, bundle: Bundle) -> int:
        """How many such bundles fit on the nodes that are alive, in use or not."""
        return sum(_fit(node, bundle) for node in self.nodes)

    def could(self, bundle: Bundle) -> int:
        """How many fit on the nodes that are alive or may be started."""
        room = self.most
        found = sum(_fit(node, bundle) for node in self.nodes if HEAD in node)
        for kind in sorted(self.types, key=lambda kind: -_fit(kind.resources, bundle)):
            number = min(kind.most, room)
            found, room = found + number * _fit(kind.resources, bundle), room - number
        return max(found, self.has(bundle))

    def without_gpus(self) -> "Supply":
        """What work without networks should have started: nodes with GPUs only where there are no others."""
        plain = tuple(kind for kind in self.types if not kind.resources.get("GPU") and kind.resources.get("CPU"))
        return replace(self, types=plain) if plain and plain != self.types else self

    def describe(self, resource: str) -> str:
        """Where such a resource is and may come from."""
        total = sum(node.get(resource, 0) for node in self.nodes)
        text = f"the cluster has {total:g} {resource}(s) on {len(self.nodes)} node(s)"
        if not self.types:
            return f"{text} and no autoscaler that would start more"
        kinds = (f"{kind.most} × {kind.name} with {kind.resources.get(resource, 0):g}" for kind in self.types)
        return f"{text}; its autoscaler may start {', '.join(kinds)}, {self.most} nodes in all"

    def describe_types(self) -> list[str]:
        """What the autoscaler may start, a line; nothing without one."""
        if not self.types:
            return []
        kinds = (
            f"{kind.most} × {kind.name} ({', '.join(f'{name} {amount:g}' for name, amount in kind.resources.items())})"
            for kind in self.types
        )
        return [f"the autoscaler may start {', '.join(kinds)}, {self.most} nodes in all; runs ask it to"]


def _fit(node: Bundle, bundle: Bundle) -> int:
    # what a node has for the bundle's own resources, of which an autoscaler need not list the accelerator's name
    return min((int(node.get(name, 0) / amount + 1e-6) for name, amount in bundle.items() if amount), default=0)


def look_up_supply() -> Supply:
    """What the cluster that this process has joined has, and may start; or what this process uses of its machine."""
    if spread.threads_here():
        return Supply(({"CPU": spread.threads_here()},))
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = tuple(node["Resources"] for node in nodes if node["Alive"])
    context = ray.get_runtime_context()
    types, most = parse_types(_autoscaling(str(context.gcs_address), str(context.get_job_id())))
    return Supply(alive, types, most)


def parse_types(config: Mapping[str, Any] | None) -> tuple[tuple[NodeType, ...], int]:
    """The kinds of workers of an autoscaler's configuration, and how many there may be in all."""
    if not config:
        return (), 0
    most = int(config.get("max_workers", 2))
    head = config.get("head_node_type")
    types = (
        NodeType(str(name), _numbers(kind.get("resources", {})), int(kind.get("max_workers", most)))
        for name, kind in (config.get("available_node_types") or {}).items()
        if name != head
    )
    return tuple(kind for kind in types if kind.most > 0), most


def _numbers(resources: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(amount) for name, amount in resources.items()}


@functools.lru_cache(maxsize=1)
def _autoscaling(address: str, _job: str) -> dict[str, Any] | None:
    """The autoscaler's configuration, which lies on the head node; looked up once a session.

    Raises:
        CdpipeError: If the head does not say: to plan for what is there would turn networks to the CPU.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: Sequence[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    heads = [node["NodeID"] for node in nodes if node["Alive"] and HEAD in node["Resources"]]
    port = address.rpartition(":")[2]
    if not heads or heads[0] == ray.get_runtime_context().get_node_id():
        return read_autoscaling(f":{port}")
    strategy = NodeAffinitySchedulingStrategy(heads[0], soft=False)
    task = ray.remote(num_cpus=0)(read_autoscaling).options(scheduling_strategy=strategy).remote(f":{port}")
    try:
        found: dict[str, Any] | None = ray.get(task, timeout=ASK_SECONDS)
    except ray.exceptions.RayError as error:
        reason = " ".join(str(getattr(error, "cause", None) or error).split())
        raise CdpipeError(
            f"the cluster's head did not say what its autoscaler may start: {reason}; the same command tries again"
        ) from error
    return found
