"""How training workers reach each other: over the network that Ray's nodes know each other by.

Gloo, which connects workers on CPUs, takes the address that a machine's own name resolves to. Many installations,
Debian's among them, give their name to a loopback address, at which no other machine is found.
"""

import os
from typing import Any

import psutil
import ray.util
from ray.train.torch import TorchConfig

INTERFACE = "GLOO_SOCKET_IFNAME"  # Gloo's choice of network; NCCL leaves loopback out by itself


def interface_of(address: str) -> str | None:
    """Name of this machine's network interface that has an address, such as ``eth0``; None if none has."""
    interfaces: dict[str, Any] = psutil.net_if_addrs()
    return next((name for name, own in interfaces.items() if any(each.address == address for each in own)), None)


def use_node_network() -> None:
    """Have this worker's process group use the interface of the node's address, unless the environment names one."""
    name = interface_of(str(ray.util.get_node_ip_address()))  # type: ignore[no-untyped-call]
    if name is not None:
        os.environ.setdefault(INTERFACE, name)


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray's, which has no public name
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_node_network)
        super().on_start(worker_group, backend_config)


class NodeNetwork(TorchConfig):
    """Ray Train's way to connect workers, once each has been told its network."""

    @property
    def backend_cls(self) -> type[Any]:
        """What Ray Train calls when its workers are up."""
        return _Backend
