"""The code keeps to its floors: imports point down or sideways, never in a circle, and Ray has one place."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up. A package imports its own modules and those of floors beneath, never those beside it.
FLOORS = (
    ("errors", "keys", "processors", "timing", "units", "version"),
    ("geo", "metrics"),
    ("workspace", "demo"),
    ("config", "store"),
    ("formats", "models", "detectors"),
    ("pairs", "objects", "inference"),
    ("report", "training"),
    ("prediction",),
    ("runs",),
    ("evaluation",),
    ("cluster",),
    ("api",),
    ("cli", "__init__"),
    ("__main__",),
)
LINES_PER_FILE = 500
LINES_PER_FUNCTION = 70


def read_modules(*folders: Path) -> dict[str, ast.Module]:
    """Syntax trees by dotted name; a package goes by its own name."""
    files = [(folder, path) for folder in folders for path in sorted(folder.rglob("*.py"))]
    parts = [(path.relative_to(folder.parent).with_suffix("").parts, path) for folder, path in files]
    return {".".join(p[:-1] if p[-1] == "__init__" else p): ast.parse(path.read_text()) for p, path in parts}


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Every dotted name that a module imports, wherever in it: ``from a import b`` counts as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # a relative import keeps its dots, and so is no module of ours: see `relative_imports`
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def imported_modules(modules: dict[str, ast.Module], name: str) -> set[str]:
    """The modules of ours that one of them imports."""
    owners = (n if n in modules else n.rpartition(".")[0] for n in imported_names(modules[name]))
    return {owner for owner in owners if owner in modules}


def floor(module: str) -> int | None:
    """The floor of a module of cdpipe, None if it stands on none."""
    return next((number for number, packages in enumerate(FLOORS) if package(module) in packages), None)


def package(module: str) -> str:
    """The package of a module of cdpipe, the module itself where it lies in none."""
    return [*module.split("."), "__init__"][1]


def wrong_floors(modules: dict[str, ast.Module]) -> list[str]:
    """Modules on no floor, and imports that point up."""
    found = [f"{name} is on no floor" for name in modules if floor(name) is None]
    for name in modules:
        for other in sorted(imported_modules(modules, name)):
            below, above = floor(name), floor(other)
            beside = above == below and package(name) != package(other)
            if below is not None and above is not None and (above > below or beside):
                found.append(f"{name} (floor {below}) imports {other} (floor {above})")
    return found


def cycles(modules: dict[str, ast.Module]) -> list[str]:
    """The first circle of imports, if there is one."""
    try:
        TopologicalSorter({name: imported_modules(modules, name) for name in modules}).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def ray_outside(modules: dict[str, ast.Module]) -> list[str]:
    """Modules that import Ray without being in cdpipe.cluster."""
    users = (name for name, tree in modules.items() if any(top(n) == "ray" for n in imported_names(tree)))
    return [name for name in users if not name.startswith("cdpipe.cluster")]


def relative_imports(modules: dict[str, ast.Module]) -> list[str]:
    """Modules with relative imports, which the other checks cannot follow."""
    return [name for name, tree in modules.items() if any(n.startswith(".") for n in imported_names(tree))]


def long_files(modules: dict[str, ast.Module]) -> list[str]:
    """Files whose last statement ends beyond the limit."""
    lengths = {name: max((s.end_lineno or 0 for s in tree.body), default=0) for name, tree in modules.items()}
    return [f"{name}: {length} lines" for name, length in lengths.items() if length > LINES_PER_FILE]


def long_functions(modules: dict[str, ast.Module]) -> list[str]:
    """Functions longer than the limit, signature and docstring included."""
    nodes = ((name, node) for name, tree in modules.items() for node in ast.walk(tree))
    functions = ((n, f) for n, f in nodes if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = {f"{name}.{f.name}": (f.end_lineno or 0) - f.lineno + 1 for name, f in functions}
    return [f"{name}: {length} lines" for name, length in lengths.items() if length > LINES_PER_FUNCTION]


def undeclared(modules: dict[str, ast.Module], declared: set[str]) -> list[str]:
    """Third-party packages that are imported without being declared as dependencies."""
    known = importlib.metadata.packages_distributions()
    names = {top(n) for tree in modules.values() for n in imported_names(tree)}
    foreign = names - {top(m) for m in modules} - set(sys.stdlib_module_names)
    return sorted(n for n in foreign if not declared & {normalised(d) for d in known.get(n, [])})


def eager_extras(modules: dict[str, ast.Module], extras: set[str]) -> list[str]:
    """Modules that cannot be imported without an extra, because of what stands at their own top or beneath."""
    tops = {name: ast.Module(list(statements(tree.body)), []) for name, tree in modules.items()}
    needing = {name for name, tree in tops.items() if any(top(n) in extras for n in imported_names(tree))}
    while more := {name for name in tops if imported_modules(tops, name) & needing} - needing:
        needing |= more
    return sorted(needing)


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when a module is imported: functions are left out."""
    return (node for node in body if not isinstance(node, ast.FunctionDef))


def top(name: str) -> str:
    """First part of a dotted name."""
    return name.partition(".")[0]


def normalised(distribution: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


UNUSED = ("dev", "benchmarks")  # extras that the library must do without
CHECKS = [wrong_floors, cycles, ray_outside, relative_imports, long_files, long_functions]


@pytest.fixture(scope="module")
def library() -> dict[str, ast.Module]:
    """cdpipe's own modules."""
    return read_modules(ROOT / "cdpipe")


@pytest.mark.parametrize("check", CHECKS)
def test_the_code_keeps_the_rule(
    library: dict[str, ast.Module], check: Callable[[dict[str, ast.Module]], list[str]]
) -> None:
    assert len(library) > len(FLOORS), "the checks must have found the code"
    assert check(library) == []


@pytest.mark.parametrize("check", [ray_outside, relative_imports, long_files, long_functions])
def test_jobs_keep_the_rule(check: Callable[[dict[str, ast.Module]], list[str]]) -> None:
    jobs = read_modules(ROOT / "jobs")
    assert jobs, "the checks must have found the code"
    assert check(jobs) == []


def test_what_is_imported_is_declared(library: dict[str, ast.Module]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for name, lines in project["optional-dependencies"].items() if name not in UNUSED for each in lines]
    declared = {normalised(re.split(r"[\[<>=]", line)[0]) for line in [*project["dependencies"], *extras]}
    assert undeclared(library | read_modules(ROOT / "jobs"), declared) == []


def test_extras_are_imported_only_where_they_were_asked_for(library: dict[str, ast.Module]) -> None:
    """``mlflow`` where models are logged with it; the others by ``import_module``, within functions."""
    extras = {"boto3", "mlflow", "nncf", "obstore", "openvino"}
    assert eager_extras(library, extras) == ["cdpipe.training.tracking"]


def tree_of(folder: Path, **sources: str) -> dict[str, ast.Module]:
    """Modules of a made-up cdpipe, each given as ``floor__module="source"``."""
    for name, source in sources.items():
        path = folder / "cdpipe" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return read_modules(folder / "cdpipe")


def test_a_tidy_tree_passes(tmp_path: Path) -> None:
    modules = tree_of(
        tmp_path,
        geo__a="import os\n",
        store__b="from cdpipe.geo import a\nfrom cdpipe.geo.a import os\n",
        store__c="import cdpipe.store.b\n",
        cluster__d="import ray.data\nfrom cdpipe.store import c\n",
        cli__e="def main():\n    from cdpipe.cluster import d\n",
    )
    assert imported_modules(modules, "cdpipe.store.b") == {"cdpipe.geo.a"}
    assert [check(modules) for check in CHECKS] == [[]] * len(CHECKS)


@pytest.mark.parametrize(
    ("sources", "check", "names"),
    [
        ({"geo__a": "from cdpipe.store.b import x\n", "store__b": "x = 1\n"}, wrong_floors, "store.b"),
        ({"geo__a": "def f():\n    import cdpipe.cli.b\n", "cli__b": ""}, wrong_floors, "cdpipe.cli.b"),
        ({"runs__a": "from cdpipe.cluster import b\n", "cluster__b": ""}, wrong_floors, "cdpipe.cluster.b"),
        ({"geo__a": "from cdpipe.metrics import b\n", "metrics__b": ""}, wrong_floors, "cdpipe.metrics.b"),
        ({"helpers__a": ""}, wrong_floors, "cdpipe.helpers.a is on no floor"),
        ({"helpers": ""}, wrong_floors, "cdpipe.helpers is on no floor"),
        (
            {
                "store__a": "from cdpipe.store import b\n",
                "store__b": "def f():\n    from cdpipe.store.c import g\n",
                "store__c": "from cdpipe.store.a import h\n",
            },
            cycles,
            "cdpipe.store.a imports cdpipe.store.b",
        ),
        ({"runs__a": "import ray\n"}, ray_outside, "cdpipe.runs.a"),
        ({"cli__a": "def f():\n    from ray.data import Dataset\n"}, ray_outside, "cdpipe.cli.a"),
        ({"geo__a": "from . import b\n"}, relative_imports, "cdpipe.geo.a"),
        ({"geo__a": "x = 1\n" * 501}, long_files, "501 lines"),
        ({"geo__a": "class A:\n    def f():\n" + "        x = 1\n" * 70}, long_functions, "a.f: 71 lines"),
    ],
)
def test_a_broken_rule_is_found(
    tmp_path: Path,
    sources: dict[str, str],
    check: Callable[[dict[str, ast.Module]], list[str]],
    names: str,
) -> None:
    assert names in "\n".join(check(tree_of(tmp_path, **sources)))


def test_an_extra_that_nobody_asked_for_is_found(tmp_path: Path) -> None:
    modules = tree_of(
        tmp_path,
        store__a="from mlflow import x\n",
        store__b="def f():\n    import mlflow\n",
        runs__c="from cdpipe.store.a import y\n",
        cli__d="def f():\n    import cdpipe.runs.c\n",
    )
    assert eager_extras(modules, {"mlflow"}) == ["cdpipe.runs.c", "cdpipe.store.a"]


def test_an_undeclared_package_is_found(tmp_path: Path) -> None:
    modules = tree_of(tmp_path, geo__a="import os\nimport yaml.nodes\nimport numpy\nimport not_there\n")
    assert undeclared(modules, {"numpy"}) == ["not_there", "yaml"]
    assert undeclared(modules, {"numpy", "pyyaml"}) == ["not_there"]
