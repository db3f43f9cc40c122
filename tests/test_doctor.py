"""``cdpipe doctor``: what it sees is so, and each thing to mind is told where it is so, and only there."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from project import Project, call

from cdpipe.api.doctor import advise
from cdpipe.cluster.machine import Machine, inspect_cluster, inspect_machine
from cdpipe.config.load import load_config
from cdpipe.errors import EXIT_CONFIG

GIB = 2**30
GOOD = Machine("m", 4, ("avx512_bf16",), 16 * GIB, (), False, 4 * GIB, 100 * GIB, 65536)


def test_the_facts_are_those_of_this_machine() -> None:
    machine = inspect_machine()
    assert machine.cpus == len(os.sched_getaffinity(0))
    assert machine.memory is not None
    assert GIB < machine.memory <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.shared_memory == shutil.disk_usage("/dev/shm").total  # noqa: S108 (not a temporary file)


@pytest.mark.usefixtures("local_ray")
def test_every_machine_of_a_cluster_is_asked() -> None:
    assert [machine.name for machine in inspect_cluster()] == [os.uname().nodename]


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (GOOD, []),
        (replace(GOOD, cpus=16), ["resources.workers: 8"]),
        (replace(GOOD, memory=None, cpus=16), []),
        (replace(GOOD, cpus=64, gpus=(("L4", 24 * GIB),)), []),  # one worker a GPU
        (replace(GOOD, driver=True), ["torch sees no GPU"]),
        (replace(GOOD, driver=True, gpus=(("L4", 24 * GIB),)), []),
        (replace(GOOD, shared_memory=2**26), ["--shm-size"]),
        (replace(GOOD, shared_memory=None), []),
        (replace(GOOD, temporary=GIB), ["RAY_TMPDIR"]),
        (replace(GOOD, open_files=1024), ["ulimit"]),
    ],
)
def test_what_to_mind(machine: Machine, expected: list[str]) -> None:
    found = advise(machine, None)
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_the_configuration_is_looked_at(finished: Project) -> None:
    slow = replace(GOOD, flags=())
    assert advise(slow, load_config(finished.config, ["predict.precision=float32"])) == []
    for precision in ("bfloat16", "int8"):
        assert advise(GOOD, load_config(finished.config, [f"predict.precision={precision}"])) == []
    [faster] = advise(GOOD, load_config(finished.config))
    assert "half the time with predict.precision: bfloat16" in faster
    assert "emulated" in advise(slow, load_config(finished.config, ["predict.precision=bfloat16"]))[0]
    assert "resources.workers: 8" in advise(GOOD, load_config(finished.config, ["resources.workers=9"]))[0]


def test_the_verb(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    said = call(["doctor", str(finished.config), "--set", f"workspace={tmp_path / 'not' / 'yet'}"])
    assert said.code == 0
    assert f"workspace {tmp_path / 'not' / 'yet'}: " in said.out
    assert os.uname().nodename in said.out
    assert not (tmp_path / "not").exists()
    assert call(["doctor", str(tmp_path / "none.yaml")]).code == EXIT_CONFIG
