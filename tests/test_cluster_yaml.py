"""cluster.yaml is one that Ray accepts, and keeps what Ray's own check does not look at."""

import copy
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
SETUPS = ["setup_commands", "head_setup_commands", "worker_setup_commands"]
STARTS = ["head_start_ray_commands", "worker_start_ray_commands"]


def read() -> dict[str, Any]:
    """The file as it stands."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration that `ray up` would start, checked by Ray."""
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def start_command(role: str) -> str:
    """The one command that starts Ray on the head or on a worker."""
    (command,) = (c for c in read()[f"{role}_start_ray_commands"] if "ray start" in c)
    return str(command)


def repository_mounts() -> dict[str, Path]:
    """What of the repository is copied to the nodes, by remote path."""
    mounts = read()["file_mounts"]
    return {remote: ROOT / local for remote, local in mounts.items() if not local.startswith("~/")}


def test_ray_accepts_it() -> None:
    assert prepare(read())["head_node_type"] == "head"


@pytest.mark.parametrize("broken", [{"autoscaling_mode": "eager"}, {"max_workers": "many"}])
def test_ray_would_refuse_a_broken_one(broken: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(broken.values()))):
        prepare(read() | broken)


@pytest.mark.parametrize("key", [*SETUPS, *STARTS])
def test_nothing_is_left_to_rays_default_commands(key: str) -> None:
    config = read()
    assert key in config
    own = [command for group in [*SETUPS, *STARTS] for command in config[group]]
    assert set(prepare(config)[key]) <= set(own)


def test_every_installation_is_pinned() -> None:
    installs = [command for key in SETUPS for command in read()[key] if "pip install" in command]
    assert installs
    assert all("-c ~/cdpipe/constraints.txt" in command for command in installs)


def test_node_types_say_what_they_offer_in_whole_numbers() -> None:
    config = read()
    kinds = config["available_node_types"]
    offers = {name: kind["resources"] for name, kind in kinds.items()}
    assert all(type(amount) is int for offer in offers.values() for amount in offer.values())
    assert offers.pop(config["head_node_type"]) == {"CPU": 0}
    assert any("GPU" in offer for offer in offers.values())
    assert any("GPU" not in offer for offer in offers.values())
    for name in offers:
        assert kinds[name]["min_workers"] == 0 < kinds[name]["max_workers"] <= config["max_workers"]
        assert kinds[name]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"


def test_what_is_mounted_is_there_and_enough_to_install(tmp_path: Path) -> None:
    for remote, source in repository_mounts().items():
        target = tmp_path / remote.removeprefix("~/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    assert (tmp_path / "cdpipe/constraints.txt").is_file()
    offline = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", "wheels"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *offline, "./cdpipe"], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheels").glob("cdpipe-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "cdpipe").rglob("*.py")}
    assert modules | {"cdpipe/py.typed"} <= names
    assert {name.partition("/")[0] for name in names if not name.startswith("cdpipe-")} == {"cdpipe"}


@pytest.mark.parametrize("role", ["head", "worker"])
def test_nobody_joins_without_the_token(role: str) -> None:
    assert "RAY_AUTH_MODE=token ray" in re.sub(r"RAY_(?:USAGE|task)\w+=\S+ ", "", start_command(role))
    assert ("~/.ray/auth_token", "~/.ray/auth_token") in read()["file_mounts"].items()


def test_the_dashboard_listens_on_loopback_alone() -> None:
    assert re.findall(r"--dashboard-host[= ](\S+)", start_command("head")) == ["127.0.0.1"]


def test_the_job_it_tells_to_submit_exists() -> None:
    jobs = re.findall(r"-- python (jobs/\w+\.py)", (ROOT / "cluster.yaml").read_text())
    assert jobs
    assert all((ROOT / job).is_file() for job in jobs)


def test_nothing_is_opened_to_the_world() -> None:
    """Ray makes a group that admits SSH from everywhere for node types without one of their own."""
    config = read()
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] == ["sg-00000000000000000"]
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()  # noqa: S104 (looked for, not bound to)
