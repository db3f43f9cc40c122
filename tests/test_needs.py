"""What runs ask clusters for, how long they wait and what they say; no Ray runs here, the cluster is made up."""

import copy
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import requests
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient
from ray.autoscaler._private.util import prepare_config

from cdpipe.cluster import needs, private
from cdpipe.cluster.needs import Need, asked, asked_for_models, following, gpu_kind, plan_device, plan_gpus
from cdpipe.cluster.private import HEAD, _describe_v1, _describe_v2, _read_kuberay
from cdpipe.cluster.supply import NodeType, Supply, parse_types
from cdpipe.config.resources import Resources
from cdpipe.errors import EXIT_LOCKED, CdpipeError, ConfigError, ShortageError

ROOT = Path(__file__).resolve().parents[1]
EMPTY_HEAD = {HEAD: 1.0, "memory": 1e9}
CPU_NODE, GPU_NODE = {"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0}
TYPES = (NodeType("cpu", CPU_NODE, 16), NodeType("gpu", GPU_NODE, 4))
FRESH = Supply((EMPTY_HEAD,), TYPES, 20)
GPU = {"GPU": 1.0}


class Cluster:
    """A cluster of which a test says what it has; it notes what it is asked for, and a clock of its own goes on."""

    def __init__(self, supply: Supply) -> None:
        self.supply = supply
        self.requests: list[list[dict[str, float]]] = []
        self.now = 0.0
        self.later: dict[float, Supply] = {}
        self.stop: type[BaseException] | None = None

    def request(self, bundles: list[dict[str, float]]) -> None:
        self.requests.append(bundles)

    def sleep(self, seconds: float) -> None:
        if self.stop is not None:
            raise self.stop
        self.now += seconds
        for moment in [moment for moment in self.later if moment <= self.now]:
            self.supply = self.later.pop(moment)


Make = Callable[[Supply], Cluster]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(supply: Supply) -> Cluster:
        cluster = Cluster(supply)
        monkeypatch.setattr(needs, "look_up_supply", lambda: cluster.supply)
        monkeypatch.setattr(needs, "request_resources", cluster.request)
        monkeypatch.setattr(needs, "describe_starts", lambda: ["gpu does not start: no capacity"])
        clock = SimpleNamespace(monotonic=lambda: cluster.now, sleep=cluster.sleep, strftime=time.strftime)
        monkeypatch.setattr(needs, "time", clock)
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        return cluster

    return made


def run_of(said: list[str] | None = None, *, batch: int = 8, **resources: Any) -> Any:
    train = SimpleNamespace(global_batch=batch)
    config = SimpleNamespace(resources=Resources(**resources), train=train)
    return SimpleNamespace(config=config, say=[].append if said is None else said.append)


def joined(supply: Supply, *nodes: dict[str, float]) -> Supply:
    return replace(supply, nodes=(*supply.nodes, *nodes))


def test_the_shipped_cluster_offers_its_gpus_before_one_is_there() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for read in (config, prepare_config(config)):  # as it stands, and as `ray up` hands it to the autoscaler
        types, most = parse_types(read)
        supply = Supply((EMPTY_HEAD,), types, most)
        assert (supply.could(GPU), supply.could({"GPU": 1, "CPU": 1}), supply.has(GPU)) == (4, 4, 0)
        assert supply.without_gpus().could({"CPU": 1}) == 16 * 16
        assert supply.could({"CPU": 1}) == 16 * 16 + 4 * 8


@given(
    kinds=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 5)), max_size=3),
    most=st.integers(0, 9),
)
def test_what_could_be_had_is_what_the_best_nodes_give(kinds: list[tuple[int, int, int]], most: int) -> None:
    types = tuple(
        NodeType(str(number), {"GPU": gpus, "CPU": cpus}, many) for number, (gpus, cpus, many) in enumerate(kinds)
    )
    startable = sorted((gpus for gpus, _, many in kinds for _ in range(many)), reverse=True)[:most]
    assert Supply((EMPTY_HEAD,), types, most).could(GPU) == sum(startable)


def test_nodes_that_are_there_count_once() -> None:
    supply = joined(FRESH, GPU_NODE, GPU_NODE)
    assert (supply.has(GPU), supply.could(GPU)) == (2, 4)
    assert Supply((CPU_NODE, GPU_NODE)).could(GPU) == 1
    assert Supply(({HEAD: 1.0, **GPU_NODE},), TYPES, 20).could(GPU) == 5


def ray_cluster(*, autoscaling: bool = True) -> dict[str, Any]:
    """The cluster of deploy/rayjob.yaml as the API server gives it: with what operator and server have added."""
    spec = copy.deepcopy(yaml.safe_load((ROOT / "deploy/rayjob.yaml").read_text())["spec"]["rayClusterSpec"])
    spec["enableInTreeAutoscaling"] = autoscaling
    for group in spec["workerGroupSpecs"]:
        group |= {"numOfHosts": 1, "scaleStrategy": {}, "suspend": False}
        group["template"]["metadata"] = {"creationTimestamp": None}
    owner = {"apiVersion": "ray.io/v1", "blockOwnerDeletion": True, "controller": True, "kind": "RayJob"}
    metadata = {
        "annotations": {"ray.io/autoscaler-version": "v2"},
        "creationTimestamp": "2026-11-02T07:12:44Z",
        "generation": 3,
        "labels": {"ray.io/job-submission-mode": "K8sJobMode", "ray.io/originated-from-crd": "RayJob"},
        "name": "cdpipe-7xk2p",
        "namespace": "change",
        "ownerReferences": [owner | {"name": "cdpipe", "uid": "0c5d6a2e-52c1-4b52-9f3e-6a1f6e1d6a53"}],
        "resourceVersion": "482113",
        "uid": "9b1b6f8e-0b9d-4a8a-8a43-9f7d0a6cb6b4",
    }
    status = {
        "conditions": [{"type": "HeadPodReady", "status": "True", "reason": "HeadPodRunningAndReady"}],
        "desiredCPU": "4",
        "desiredGPU": "0",
        "desiredMemory": "16Gi",
        "endpoints": {"client": "10001", "dashboard": "8265", "gcs-server": "6379"},
        "head": {"podIP": "10.244.0.12", "podName": "cdpipe-7xk2p-head", "serviceIP": "10.96.11.7"},
        "maxWorkerReplicas": 20,
        "observedGeneration": 3,
        "state": "ready",
    }
    answer = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": spec, "status": status}
    return dict(json.loads(json.dumps(answer)))


def test_on_kubernetes_what_may_come_is_what_the_ray_cluster_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(_client: object, path: str) -> dict[str, Any]:
        asked.append(path)
        return ray_cluster(autoscaling=len(asked) == 1)

    monkeypatch.setattr(KubernetesHttpApiClient, "get", get)
    types, most = parse_types(_read_kuberay("cdpipe-7xk2p", "change"))
    supply = Supply((EMPTY_HEAD,), types, most)
    assert asked == ["rayclusters/cdpipe-7xk2p"]
    assert (most, supply.could(GPU), supply.without_gpus().could({"CPU": 1})) == (20, 4, 16 * 4)
    assert supply.could({"GPU": 1, "memory": 24 * 2**30}) == 4
    assert supply.could({"GPU": 1, "memory": 25 * 2**30}) == 0
    assert _read_kuberay("cdpipe-7xk2p", "change") is None  # an autoscaler that is off starts nothing


def test_kubernetes_that_does_not_say_is_not_taken_for_a_cluster_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks would turn to the CPU; only where nobody may ask is there no autoscaler that one could use."""
    status, asked = 503, []

    def get(_client: object, _path: str) -> dict[str, Any]:
        response = requests.Response()
        response.status_code = status
        asked.append(status)
        raise requests.HTTPError(f"{status} for url", response=response)

    monkeypatch.setattr(KubernetesHttpApiClient, "get", get)
    monkeypatch.setattr(private, "PAUSE_SECONDS", 0.0)
    with pytest.raises(CdpipeError, match="RayCluster c in n: expected Kubernetes to say what may be started: 503"):
        _read_kuberay("c", "n")
    assert len(asked) == 5
    status = 403
    assert _read_kuberay("c", "n") is None
    assert len(asked) == 6


def test_no_autoscaler_and_types_that_only_the_nodes_know() -> None:
    assert parse_types(None) == ((), 0)
    types, most = parse_types(yaml.safe_load((ROOT / "deploy/local.yaml").read_text()))
    assert Supply((EMPTY_HEAD, GPU_NODE), types, most).could(GPU) == 1


@pytest.mark.parametrize(
    ("resources", "device", "gpus"),
    [({}, "cuda", 4), ({"gpus": 2}, "cuda", 2), ({"gpus": 0}, "cpu", 0), ({"device": "cpu"}, "cpu", 4)],
)
def test_plans_do_not_depend_on_what_happens_to_be_there(
    make: Make, resources: dict[str, Any], device: str, gpus: int
) -> None:
    """The device is part of every key of a prediction, so a GPU that is late must not change it."""
    run = run_of(**resources)
    for nodes in ((), (CPU_NODE,), (CPU_NODE, GPU_NODE), (GPU_NODE,) * 4):
        make(joined(FRESH, *nodes))
        assert (plan_device(run), plan_gpus(run)) == (device, gpus)


@pytest.mark.parametrize("supply", [Supply((CPU_NODE,)), Supply((EMPTY_HEAD,), TYPES[:1], 20)])
def test_gpus_where_there_can_be_none_are_refused_at_once(make: Make, supply: Supply) -> None:
    cluster = make(supply)
    assert plan_device(run_of()) == "cpu"
    with pytest.raises(ConfigError, match=r"resources.gpus: 4 cannot be had: the cluster has 0 GPU\(s\) .*gpus: 0"):
        plan_gpus(run_of(gpus=4))
    with pytest.raises(ConfigError, match="cannot be had"), asked_for_models(run_of(gpus=4), "predict", 100):
        pass
    assert (cluster.now, cluster.requests) == (0, [])


def test_a_cluster_that_runs_no_tasks_and_starts_no_nodes_is_told_at_once(make: Make) -> None:
    make(Supply((EMPTY_HEAD,)))
    with (
        pytest.raises(ConfigError, match=r"no autoscaler that would start more; start Ray on nodes with CPUs"),
        needs.asked_for_cpus(run_of(), "ingest", 100),
    ):
        pass


def test_more_than_there_can_be_goes_on_with_less_or_stops(make: Make) -> None:
    cluster, said = make(joined(FRESH, *[GPU_NODE] * 4)), list[str]()
    with asked_for_models(run_of(said, gpus=9), "predict", 1000) as actors:
        assert (actors.count, actors.gpus) == (4, True)
    assert "resources.gpus: 9 cannot be had" in said[0]
    assert "4 × gpu with 1" in said[0]
    assert "goes on with 4" in said[0]
    assert cluster.requests[-1] == []
    with pytest.raises(ConfigError, match="ask for at most 4"):
        plan_gpus(run_of(gpus=9, on_shortage="stop"))


def test_a_stage_begins_with_the_first_and_asks_for_all(make: Make) -> None:
    cluster, said = make(FRESH), list[str]()
    cluster.later = {90: joined(FRESH, GPU_NODE)}
    with asked_for_models(run_of(said), "predict", 1000) as actors:
        assert (actors.count, actors.gpus, actors.grow) == (4, True, False)
        assert cluster.requests[-1] == [GPU] * 4
    assert cluster.requests[-1] == []
    assert cluster.now == pytest.approx(90, abs=1)
    assert "for 4 GPU(s), of which the first will do; waits: the cluster has 0 GPU(s)" in said[0]
    assert "waits since" in said[1]
    assert "gpu does not start: no capacity" in said[1]
    assert said[-1] == "predict: begins with 1 of 4 GPU(s) after 1 min 30 s"


def test_or_with_all_of_them(make: Make) -> None:
    cluster = make(FRESH)
    cluster.later = {10: joined(FRESH, GPU_NODE), 200: joined(FRESH, GPU_NODE, GPU_NODE)}
    with asked_for_models(run_of(gpus=2, on_shortage="stop"), "predict", 1000) as actors:
        assert (actors.count, round(cluster.now)) == (2, 200)


@pytest.mark.parametrize(("shortage", "came"), [("continue", ()), ("stop", ()), ("stop", (GPU_NODE,))])
def test_what_does_not_come_in_time_ends_the_run(make: Make, shortage: Any, came: tuple[dict[str, float], ...]) -> None:
    """Networks never turn to CPUs by themselves: what they compute there has other keys."""
    cluster = make(joined(FRESH, *came))
    run = run_of(gpus=2, wait_minutes=5, on_shortage=shortage)
    with (
        pytest.raises(ShortageError, match="gpu does not start: no capacity") as caught,
        asked_for_models(run, "p", 99),
    ):
        pass
    assert f"asked for 2 GPU(s), and in 5 min 0 s {len(came)} came" in str(caught.value)
    assert "nothing is asked for any more" in str(caught.value)
    assert caught.value.exit_code == EXIT_LOCKED
    assert cluster.now == pytest.approx(300, abs=2)
    assert cluster.requests[-1] == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_stays_requested_whatever_happens(make: Make, error: type[BaseException]) -> None:
    cluster = make(FRESH)
    cluster.stop = error
    with pytest.raises(error), asked(run_of(), "predict", Need("GPU", 1, GPU)):
        pass
    assert cluster.requests == [[GPU], []]
    cluster.supply = joined(FRESH, GPU_NODE)
    with pytest.raises(error), asked(run_of(), "predict", Need("GPU", 1, GPU)):
        raise error
    assert cluster.requests[2:] == [[GPU], []]
    assert threading.active_count() < 50


def test_without_an_autoscaler_nobody_is_asked(make: Make) -> None:
    cluster, said = make(Supply((CPU_NODE, GPU_NODE))), list[str]()
    with asked_for_models(run_of(said), "predict", 100) as actors:
        assert (actors.count, actors.gpus, actors.grow) == (1, True, True)
    with asked_for_models(run_of(said, gpus=0, workers=3), "predict", 100) as actors:
        assert (actors.count, actors.gpus, actors.grow) == (3, False, False)
    make(Supply((CPU_NODE,)))
    with asked_for_models(run_of(said), "predict", 100) as actors:
        assert (actors.count, actors.gpus, actors.grow) == (16, False, False)
    assert (cluster.requests, said) == ([], [])


def test_little_work_asks_for_few_nodes(make: Make) -> None:
    cluster = make(joined(FRESH, GPU_NODE, CPU_NODE))
    with asked_for_models(run_of(), "predict", 20) as actors:
        assert actors.count == 2
    with needs.asked_for_cpus(run_of(), "ingest", 9):
        pass
    assert cluster.requests == [[GPU] * 2, [], [{"CPU": 1.0}] * 3, []]


def test_tasks_in_flight_follow_the_cluster_and_start_no_gpus(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "FOLLOW_SECONDS", 0.0)
    cluster = make(FRESH)
    limit = following(64)
    assert limit() == 64
    cluster.supply = joined(FRESH, *[CPU_NODE] * 5)
    assert limit() == 160
    cluster.supply = joined(FRESH, *[CPU_NODE] * 16)
    assert limit() == 256  # more would wait, and have nodes with GPUs started for them
    make(Supply((CPU_NODE,) * 10))
    assert following(64)() == 320


def test_kinds_of_gpus(make: Make) -> None:
    """The kind does not depend on which node comes first."""
    types = tuple(NodeType(kind, {**GPU_NODE, f"accelerator_type:{kind}": 1.0}, 2) for kind in ("L4", "A10G"))
    make(Supply(({**GPU_NODE, "accelerator_type:L4": 1.0},), types, 4))
    assert gpu_kind(Resources()) == ("A10G", ("A10G", "L4"))
    assert gpu_kind(Resources(accelerator_type="L4"))[0] == "L4"
    assert plan_gpus(run_of()) == 4
    assert plan_gpus(run_of(accelerator_type="L4")) == 2
    with pytest.raises(ConfigError, match="cannot be had"):
        plan_gpus(run_of(gpus=1, accelerator_type="H100"))


def test_memory_that_is_asked_for_goes_with_every_worker(make: Make) -> None:
    """A node has as many workers as it has memory for; what nobody lists cannot be had."""
    wide = {**GPU_NODE, "GPU": 2.0, "memory": 48.0 * 2**30}
    cluster = make(Supply((EMPTY_HEAD,), (NodeType("gpu", wide, 2),), 4))
    assert (plan_gpus(run_of()), plan_gpus(run_of(memory_gib=24)), plan_gpus(run_of(memory_gib=32))) == (4, 4, 2)
    with pytest.raises(ConfigError, match=r"resources.gpus: 1, each with 64 GiB of memory, cannot be had"):
        plan_gpus(run_of(gpus=1, memory_gib=64))
    with pytest.raises(ConfigError, match=r"1, each with H100 and 1 GiB of memory, cannot be had"):
        plan_gpus(run_of(gpus=1, memory_gib=1, accelerator_type="H100"))
    cluster.supply = joined(cluster.supply, wide)
    with asked_for_models(run_of(memory_gib=32), "predict", 1000) as actors:
        assert (actors.count, actors.memory) == (2, 32 * 2**30)
    assert cluster.requests == [[{"GPU": 1.0, "memory": 32.0 * 2**30}] * 2, []]


def test_stages_that_overlap_are_asked_for_together(make: Make) -> None:
    """A request takes the place of the one before it; what ends first takes only its own part away."""
    cluster = make(joined(FRESH, GPU_NODE, CPU_NODE))
    with needs.asked_for_cpus(run_of(), "ingest", 8):
        with asked_for_models(run_of(), "predict", 20):
            pass
        assert cluster.requests[-1] == [{"CPU": 1.0}] * 2
    assert cluster.requests == [[{"CPU": 1.0}] * 2, [{"CPU": 1.0}] * 2 + [GPU] * 2, [{"CPU": 1.0}] * 2, []]


def test_what_the_autoscaler_says_of_its_starts() -> None:
    launch = SimpleNamespace(ray_node_type_name="gpu", count=2, details="InsufficientInstanceCapacity")
    node = SimpleNamespace(ray_node_type_name="cpu")
    status = SimpleNamespace(
        pending_launches=[launch], pending_nodes=[node], failed_launches=[launch, launch], failed_nodes=[node]
    )
    assert list(_describe_v2(status)) == [
        "starting 2 × gpu",
        "starting 1 × cpu",
        "gpu does not start: InsufficientInstanceCapacity",
        "cpu was lost",
    ]
    kinds = {"gpu": {"node_type": "gpu", "is_available": False, "unavailable_node_information": {"category": "full"}}}
    report = {
        "pending_launches": {"gpu": 1},
        "pending_nodes": [["10.0.0.1", "gpu", "setting-up"]],
        "failed_nodes": [],
        "node_availability_summary": {"node_availabilities": kinds},
    }
    assert list(_describe_v1({"autoscaler_report": report})) == ["starting 2 × gpu", "gpu does not start: full"]
