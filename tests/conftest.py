"""Settings that hold for every test, and the data beside the repository."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from buckets import Proxy
    from project import Project

    from cdpipe.workspace.location import Location

# Read when these libraries are imported, hence before any test is.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"  # saves some 8 s for every Train run
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # torch's threads spin otherwise, which starves Ray's processes and them

# How fast an example runs says nothing on a busy machine.
SLOW = [HealthCheck.too_slow]
settings.register_profile("default", deadline=None, max_examples=50, suppress_health_check=SLOW)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put one file that needs the finished project first, the others behind a third of the rest: they would wait."""
    files = dict.fromkeys(item.path for item in items)
    users = dict.fromkeys(item.path for item in items if "finished" in getattr(item, "fixturenames", ()))
    maker, others = list(users)[:1], [file for file in files if file not in users]
    third = len(others) // 3
    sorted_files = [*maker, *others[:third], *list(users)[1:], *others[third:]]
    order = {file: at for at, file in enumerate(sorted_files)}
    items.sort(key=lambda item: order[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data that lies beside the repository on some machines, and is no part of it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}, which is not on this machine")
    return folder


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of engines for these tests alone, those in Ray's workers too: set before Ray starts."""
    os.environ["CDPIPE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch with one thread, as actors have it: sums are then in one order."""
    import torch  # noqa: PLC0415 (takes seconds, and only if needed)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray on this machine's CPUs, for all tests that call jobs in this process: it takes seconds to start."""
    from cdpipe.cluster.session import ray_session  # noqa: PLC0415 (after the settings above, and only if needed)
    from cdpipe.config.resources import Resources  # noqa: PLC0415

    with ray_session(Resources(gpus=0), verbose=False):
        yield


@pytest.fixture
def in_threads() -> Iterator[None]:
    """See :func:`project.by_threads`."""
    from project import by_threads  # noqa: PLC0415

    with by_threads():
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Project":
    """A project whose pipeline has run undisturbed, made once by one of pytest's workers; tests leave it as it is.

    Without Ray: tests that are about Ray compare the bytes that it leaves with these.
    """
    from project import CONFIG, Project, by_threads, make_project, succeed  # noqa: PLC0415

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "finished"
    done = folder / "done"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return Project(folder / "config.yaml", folder / "work")
        shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
        folder.mkdir()
        project = make_project(folder, predict={**CONFIG["predict"], "backend": "auto"})
        with by_threads():
            succeed(project.arguments("pipeline"))
        done.touch()
    return project


@pytest.fixture
def branch(finished: "Project", tmp_path: Path) -> "Project":
    """A copy of the finished workspace, to go on from."""
    from project import Project  # noqa: PLC0415

    shutil.copytree(finished.workspace, tmp_path / "work")
    return Project(finished.config, tmp_path / "work")


@pytest.fixture(scope="module")
def proxy() -> "Iterator[Proxy]":
    """An S3 server on loopback behind a proxy that can break requests; the environment leads there."""
    from buckets import in_environment, running_proxy, running_server  # noqa: PLC0415

    with running_server() as port, running_proxy(port) as proxy, in_environment(proxy.port):
        yield proxy


@pytest.fixture
def bucket(proxy: "Proxy") -> "Iterator[Location]":
    """A new bucket there, and nothing remembered of earlier ones."""
    from buckets import new_bucket  # noqa: PLC0415

    from cdpipe.workspace.remembered import forget_everything  # noqa: PLC0415

    proxy.faults = {}
    forget_everything()
    yield new_bucket(proxy.target)
    proxy.faults = {}
