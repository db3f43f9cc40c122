"""Which network training workers use."""

import os

import pytest
import ray.util

from cdpipe.cluster.train import INTERFACE, NodeNetwork, interface_of, use_node_network


def test_the_interface_is_that_of_the_address() -> None:
    assert interface_of("127.0.0.1") in ("lo", "lo0")
    assert interface_of("203.0.113.7") is None, "an address for documentation, which no machine has"


def test_a_worker_uses_the_network_of_its_node_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INTERFACE, raising=False)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "203.0.113.7")
    use_node_network()
    assert INTERFACE not in os.environ
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    use_node_network()
    assert os.environ[INTERFACE] == interface_of("127.0.0.1")
    monkeypatch.setenv(INTERFACE, "ib0")
    use_node_network()
    assert os.environ[INTERFACE] == "ib0"


def test_workers_are_told_before_they_are_connected() -> None:
    told: list[object] = []

    class Group:
        def execute(self, function: object) -> None:
            told.append(function)

        def get_resources_per_worker(self) -> None:
            raise RuntimeError("connecting")

    with pytest.raises(RuntimeError, match="connecting"):
        NodeNetwork().backend_cls().on_start(Group(), NodeNetwork())
    assert told == [use_node_network]
