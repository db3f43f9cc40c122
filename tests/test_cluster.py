"""Starting and joining Ray: what goes wrong there is told in a line, after another try where that may help."""

from typing import Any

import pytest
import ray

from cdpipe.distributed.cluster import STARTS, ray_session
from cdpipe.values.config import Resources
from cdpipe.values.errors import CdpipeError, ConfigError


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Ray is not connected, and every start of it fails."""
    found: list[Any] = []

    def fail(**options: Any) -> None:
        found.append(options["address"])
        raise RuntimeError("the current node\ntimed out")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", fail)
    return found


def test_a_start_is_tried_again_and_then_told(tries: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(CdpipeError, match=f"did not start here, tried {STARTS} times: the current node timed out"),
        ray_session(Resources(), verbose=False),
    ):
        pass
    assert tries == ["local"] * STARTS


def test_a_cluster_that_does_not_answer_is_named(tries: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with (
        pytest.raises(ConfigError, match=r"RAY_ADDRESS=10.0.0.1:6379: expected"),
        ray_session(Resources(), verbose=False),
    ):
        pass
    assert tries == ["10.0.0.1:6379"]
