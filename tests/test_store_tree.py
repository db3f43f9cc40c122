"""The store opens as a whole: in zarr-python and xarray, without a warning, and the same whatever was killed before."""

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from rasterio.crs import CRS
from rasters import UTM33, utm_grid

from cdpipe.geo.grid import Grid, Window
from cdpipe.store import tree
from cdpipe.store.arrays import write_block
from cdpipe.store.groups import CHANGE_ARRAYS, LABEL_ARRAYS, create_group, finish_group, pair_arrays
from cdpipe.store.tree import describe_store
from cdpipe.workspace.layout import NodeKind, Workspace
from cdpipe.workspace.location import here

ROOT = Path(__file__).resolve().parents[1]
GRID = utm_grid(60, 90)
ARRAYS = {"pairs": pair_arrays(("red", "green"), "uint16", "uint16"), "labels": LABEL_ARRAYS, "changes": CHANGE_ARRAYS}
GROUPS: list[tuple[NodeKind, str, str]] = [
    ("changes", "north", "1f2e3d4c5b6a"),
    ("pairs", "north", "0a"),
    ("pairs", "south.2", "0b"),
    ("labels", "north", "0c"),
]
MASK = np.array([[0, 1, 255]], np.uint8).repeat(30, axis=1).repeat(60, axis=0)


def add(workspace: Workspace, kind: NodeKind, pair_id: str, key: str) -> None:
    group = workspace.group(kind, pair_id, key)
    create_group(group, ARRAYS[kind], GRID, 512, {"made": "for a test"})
    if kind == "changes":
        write_block(group, "change", Window(0, 0, *GRID.shape), MASK)
    finish_group(workspace, kind, pair_id, key)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    workspace = Workspace(here(tmp_path / "work"))
    for group in GROUPS:
        add(workspace, *group)
    describe_store(workspace)
    return tmp_path / "work" / "store.zarr"


def test_it_is_what_zarr_python_makes_of_it(store: Path, tmp_path: Path) -> None:
    """Of the tree and of each group; the order of names is ours."""
    other = shutil.copytree(store, tmp_path / "other")
    for group in ["", *("/".join(group) for group in GROUPS)]:
        with warnings.catch_warnings(action="ignore"):  # that it is not in the specification
            zarr.consolidate_metadata(str(other / group))
        ours, theirs = (json.loads((folder / group / "zarr.json").read_text()) for folder in (store, other))
        assert theirs["consolidated_metadata"]["metadata"]  # not of nothing
        assert ours == theirs


def test_the_tree_opens_without_a_warning(store: Path) -> None:
    with warnings.catch_warnings(action="error"):
        found = xarray.open_datatree(store, engine="zarr")
        assert {leaf.path for leaf in found.leaves} == {f"/{'/'.join(group)}" for group in GROUPS}
        assert not xarray.open_zarr(store).sizes
        change = xarray.open_zarr(store / "changes" / "north" / "1f2e3d4c5b6a")
        assert float(change["change"].mean()) == 0.5
        assert np.array_equal(change["change"].isnull(), MASK == 255)
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    assert {"/".join(each) for each in GROUPS} <= {name for name, _ in group.members(max_depth=2)}


def test_rioxarray_finds_the_crs_without_options(store: Path) -> None:
    pytest.importorskip("rioxarray", reason="rioxarray is not installed")
    for group, name in (
        ("changes/north/1f2e3d4c5b6a", "change"),
        ("pairs/north/0a", "before"),
        ("labels/north/0c", "label"),
    ):
        data = xarray.open_zarr(store / group)
        assert data.rio.crs == data[name].rio.crs == CRS.from_wkt(UTM33)
        assert data[name].rio.bounds() == pytest.approx((GRID.xy(60, 0)[0], GRID.xy(60, 0)[1], *GRID.xy(0, 90)))


def test_odc_geo_finds_the_crs_without_options(store: Path) -> None:
    pytest.importorskip("odc.geo.xr", reason="odc-geo is not installed")
    data = xarray.open_zarr(store / "changes" / "north" / "1f2e3d4c5b6a")
    assert data.odc.crs.to_epsg() == data["change"].odc.crs.to_epsg() == 32633


def test_the_pages_code_does_what_it_says(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rioxarray", reason="rioxarray is not installed")
    page = (ROOT / "docs" / "workspace.md").read_text()
    monkeypatch.chdir(store.parents[1])
    found: dict[str, Any] = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)), found)  # noqa: S102
    assert (found["share"], found["change"].sizes["x"]) == (0.5, 90)


def test_only_what_is_finished_is_listed_and_the_order_does_not_matter(tmp_path: Path, store: Path) -> None:
    other = Workspace(here(tmp_path / "other"))
    describe_store(other)
    assert not (tmp_path / "other").exists()
    for number, group in enumerate(reversed(GROUPS)):
        create_group(other.group(*group), ARRAYS[group[0]], GRID, 512, {"made": "for a test"})
        describe_store(other)  # as a run that is killed before this group is finished
        assert not number or "/".join(group) not in (tmp_path / "other/store.zarr/zarr.json").read_text()
        add(other, *group)
    describe_store(other)
    assert contents(tmp_path / "other" / "store.zarr") == contents(store)


def test_what_is_damaged_or_gone_is_written_again(store: Path) -> None:
    workspace, whole, root = Workspace(here(store.parent)), contents(store), store / "zarr.json"
    root.unlink()
    for damage in ("", "[]", '{"node_type": "group"}', '{"node_type": "group", "consolidated_metadata": 1}'):
        describe_store(workspace)
        assert contents(store) == whole
        root.write_text(damage)
    for name in ("pairs", "changes/north"):
        (store / name / "zarr.json").unlink()
        describe_store(workspace)
        assert contents(store) == whole
    (store / "pairs" / "zarr.json").write_text("{}")
    root.write_bytes(whole["zarr.json"].replace(b"uint16", b"uint32"))
    describe_store(workspace, afresh=True)
    assert contents(store) == whole
    time = root.stat().st_mtime_ns
    describe_store(workspace)
    describe_store(workspace, afresh=True)
    assert root.stat().st_mtime_ns == time
    (store / "pairs/north/0a/zarr.json").write_text("{")
    describe_store(workspace, afresh=True)
    assert "pairs/north/0a" not in root.read_text()


def test_groups_of_earlier_versions_are_listed(store: Path) -> None:
    whole = json.loads((store / "zarr.json").read_text())
    group = store / "pairs" / "north" / "0a" / "zarr.json"
    plain = json.loads(group.read_text())
    del plain["consolidated_metadata"]
    group.write_text(json.dumps(plain))
    describe_store(Workspace(here(store.parent)), afresh=True)
    assert json.loads((store / "zarr.json").read_text()) == whole


def test_of_very_many_groups_none_is_listed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MOST", 3)
    describe_store(Workspace(here(store.parent)))
    assert json.loads((store / "zarr.json").read_text()) == {"attributes": {}, "zarr_format": 3, "node_type": "group"}
    group: Any = zarr.open_group(store, mode="r")
    assert group["pairs/north/0a/valid"].shape == GRID.shape
    time = (store / "zarr.json").stat().st_mtime_ns
    describe_store(Workspace(here(store.parent)))
    assert (store / "zarr.json").stat().st_mtime_ns == time


TURNED = Grid(20, 30, (8.0, 6.0, 500_000.0, 6.0, -8.0, 4e6), UTM33)


@pytest.mark.parametrize(
    ("grid", "code", "bounds"),
    [
        (GRID, "EPSG:32633", [*GRID.xy(60, 0), *GRID.xy(0, 90)]),
        (TURNED, "EPSG:32633", [500_000.0, 4e6 - 160, 500_360.0, 4e6 + 180]),
        (Grid(60, 90, (2.0, 0.0, 5.0, 0.0, -2.0, 9.0)), None, [5.0, -111.0, 185.0, 9.0]),
        (Grid(60, 90), None, None),
    ],
    ids=["straight", "turned", "no CRS", "no place"],
)
def test_the_conventions_of_zarr_say_where_pixels_lie(
    tmp_path: Path, grid: Grid, code: str | None, bounds: list[float] | None
) -> None:
    create_group(here(tmp_path / "g"), [*LABEL_ARRAYS, *CHANGE_ARRAYS], grid, 512, {})
    node = json.loads((tmp_path / "g" / "zarr.json").read_text())
    attributes = node["attributes"]
    assert attributes.get("proj:code") == code
    assert attributes.get("spatial:bbox") == (None if bounds is None else pytest.approx(bounds))
    assert attributes.get("spatial:transform") == (None if bounds is None else list(grid.transform))
    library = pytest.importorskip("zarr_cm", reason="zarr-cm is not installed")
    if bounds is not None:
        library.spatial.validate_node_metadata(node)
    if code is not None:
        library.proj.validate_node_metadata(node)
