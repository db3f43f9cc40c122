"""deploy/ and the Dockerfile: what can be told without machines, a cloud or Docker."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
POLICIES = sorted((ROOT / "deploy" / "aws").glob("*.json"))


def read(name: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / name).read_text())
    return value


def test_ray_accepts_the_cluster_of_local_machines() -> None:
    prepared = prepare_config(read("local.yaml"))
    validate_config(prepared)
    assert prepared["provider"]["type"] == "local"


def test_local_machines_are_set_up_and_guarded_as_those_of_the_cloud() -> None:
    local, cloud = read("local.yaml"), yaml.safe_load((ROOT / "cluster.yaml").read_text())
    notice = "~/cdpipe/spot_notice.py"  # of spot machines alone
    assert local["file_mounts"] | {notice: cloud["file_mounts"][notice]} == cloud["file_mounts"]
    *commands, last = cloud["worker_start_ray_commands"]
    assert notice in last
    assert local["worker_start_ray_commands"] == commands
    own, other = (config["head_start_ray_commands"][-1] for config in (local, cloud))
    # without the one there is but a head; the newer autoscaler counts it among the workers
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in own
    assert own.replace(" RAY_enable_autoscaler_v2=0", "") == other
    for config in (local, cloud):
        assert config["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"
    assert "-c ~/cdpipe/constraints.txt" in local["setup_commands"][-1]


def test_the_job_runs_on_kubernetes_as_the_image_is_built() -> None:
    job, image = read("rayjob.yaml"), (ROOT / "Dockerfile").read_text()
    spec = job["spec"]
    _, script, config = spec["entrypoint"].split()
    assert script.startswith("/opt/cdpipe/")
    assert "WORKDIR /opt/cdpipe\n" in image
    assert (ROOT / Path(script).relative_to("/opt/cdpipe")).is_file()
    cluster = spec["rayClusterSpec"]
    [version] = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert cluster["rayVersion"] == version
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpus = 0
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert {"/dev/shm"} | {str(Path(config).parent)} == mounts.keys()  # noqa: S108 (not a temporary file)
        assert {*mounts.values()} == {volume["name"] for volume in pod["volumes"]}
        assert f"USER {pod['securityContext']['runAsUser']}\n" in image
        wants_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        gpus += wants_gpu
        target = container["image"].partition(":")[2]
        assert f" AS {target}\n" in image
        assert wants_gpu == (target == "cuda")
    assert gpus == 1


def test_the_image_is_made_of_what_is_here_and_pinned() -> None:
    image, let_through = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text().splitlines()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE) for name in line.split()]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in let_through
    assert set(re.findall(r"pip install (?!-c constraints.txt )", image)) == set()
    for extra in re.findall(r'"\.\[(\w+)\]"', image):
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_allows_nothing_wholesale(path: Path) -> None:
    policy = json.loads(path.read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if statement["Effect"] == "Allow":
            assert statement.get("Principal") != "*"
            assert not [action for action in actions if action == "*" or action.endswith(":*")]
            looks = all(re.match(r"ec2:(Describe|Get)", action) for action in actions)
            assert statement.get("Resource") != "*" or looks or "Condition" in statement


def test_policies_speak_of_the_cluster_s_roles_and_bucket() -> None:
    cluster = (ROOT / "cluster.yaml").read_text()
    for path in POLICIES:
        for role in re.findall(r"role/([\w-]+)", path.read_text()):
            assert f"instance-profile/{role}" in cluster
        for bucket in re.findall(r"arn:aws:s3:::([\w-]+)", path.read_text()):
            assert bucket in cluster
