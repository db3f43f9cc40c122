"""Runs, kills, damage, changed options and verification in any order: what is claimed is always so."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from project import PRODUCTS, Project, call, contents, make_project, succeed, untrained_model
from test_tamper import COVERED, UNHASHED, WAYS

from cdpipe.errors import EXIT_DONE, EXIT_INTEGRITY
from cdpipe.runs.manifest import read_manifest
from cdpipe.runs.verify import check_manifest
from cdpipe.workspace.crash import ARMED, POINTS
from cdpipe.workspace.location import here

REPOSITORY = Path(__file__).resolve().parents[1]
OPTIONS: tuple[tuple[str, ...], ...] = (
    ("predict.threshold=0.5",),
    ("predict.threshold=0.3",),
    ("predict.overlap=0.5",),
)
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.heavy, pytest.mark.timeout(3600)]


class Runs(RuleBasedStateMachine):
    """A workspace that is used and abused."""

    project: Project
    expected: dict[tuple[str, ...], dict[str, str]]

    @initialize()
    def begin(self) -> None:
        """A new workspace."""
        self.folder = Path(tempfile.mkdtemp())
        self.own = Project(self.project.config, self.folder / "work")
        self.options = OPTIONS[0]
        self.damaged: set[str] = set()

    def arguments(self, verb: str) -> list[str]:
        return self.own.arguments(verb, *(part for option in self.options for part in ("--set", option)))

    @precondition(lambda self: not self.damaged)
    @rule()
    def run(self) -> None:
        """To the end, with the same rasters as in a workspace of its own."""
        succeed(self.arguments("pipeline"))
        assert contents(self.own.workspace, *PRODUCTS) == self.expected[self.options]

    @precondition(lambda self: not self.damaged)
    @rule(point=st.sampled_from(POINTS))
    def killed(self, point: str) -> None:
        """At a crash point, if the run gets there."""
        charges = self.folder / "charges"
        shutil.rmtree(charges, ignore_errors=True)
        charges.mkdir()
        (charges / point).touch()
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        command = [sys.executable, "jobs/pipeline.py", *self.arguments("pipeline")[1:]]
        subprocess.run(
            command, cwd=REPOSITORY, env={**environment, ARMED: str(charges)}, capture_output=True, check=False
        )

    @rule(options=st.sampled_from(OPTIONS))
    def other_options(self, options: tuple[str, ...]) -> None:
        """Of prediction."""
        self.options = options

    @precondition(lambda self: (self.own.workspace / "store.zarr").exists())
    @rule(seed=st.integers(0, 2**16), way=st.sampled_from(WAYS))
    def damage(self, seed: int, way: object) -> None:
        """Any file that verification covers."""
        assert callable(way)
        names = sorted(name for name in contents(self.own.workspace, *COVERED) if Path(name).name not in UNHASHED)
        if names and (manifest := read_manifest(here(self.own.outputs))) is not None and manifest.pairs:
            name = random.Random(seed).choice(names)
            before = (self.own.workspace / name).read_bytes()
            way(self.own.workspace / name)
            path = self.own.workspace / name
            if not path.exists() or path.read_bytes() != before:
                self.damaged.add(name)

    @precondition(lambda self: (self.own.workspace / "records").exists())
    @rule()
    def verified(self) -> None:
        """Says what is damaged, once."""
        found = call(self.arguments("verify"))
        assert found.code == (EXIT_INTEGRITY if self.damaged else EXIT_DONE), (found, self.damaged)
        self.damaged = set()

    @invariant()
    def manifests_are_honest(self) -> None:
        """Unless something was damaged that nobody has looked at yet."""
        own = getattr(self, "own", None)
        if own is not None and not self.damaged:
            manifest = read_manifest(own.outputs)
            assert manifest is None or check_manifest(own.workspace, manifest) == []

    def teardown(self) -> None:
        """Remove the workspace."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


def test_any_order_of_events(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("machine")
    untrained_model(folder, "third")
    project = make_project(folder, predict={"models": ["third"], "tta": "none", "threshold": 0.5})
    expected = {}
    for number, options in enumerate(OPTIONS):
        own = Project(project.config, folder / f"expected{number}")
        succeed(own.arguments("pipeline", *(part for option in options for part in ("--set", option))))
        expected[options] = contents(own.workspace, *PRODUCTS)
    machine = type("Machine", (Runs,), {"project": project, "expected": expected})
    settings_ = settings(
        max_examples=8, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(machine, settings=settings_)
