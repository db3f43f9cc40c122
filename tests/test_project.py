"""The project for QGIS beside a pair's page: well-formed XML whose layers are the files that were published."""

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from reports import EVIL, make_job, make_page, make_report

from cdpipe.report.pages import plan_pages, project_path, write_page
from cdpipe.report.project import describe_project
from cdpipe.runs.styles import read_styles
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

FILES = [
    ("p_probability.tif", "rasters/p_probability.tif"),
    ("p_probability_net.tif", "rasters/p_probability_net.tif"),
    ("p_change.tif", "rasters/p_change.tif"),
    ("p_change.qml", "rasters/p_change.qml"),
    ("p_change.gpkg", "vectors/p_change.gpkg"),
    ("p.png", "report/pictures/p.png"),
]


def test_a_project_has_the_pairs_layers_by_paths_from_where_it_lies(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path))
    page = make_page(make_job(workspace, "p", 0), EVIL)
    report = make_report([page], styles=read_styles())
    (plan,) = plan_pages(workspace.run("run") / "report", report)
    assert plan.key != plan_pages(workspace.run("run") / "report", make_report([page]))[0].key
    assert list(write_page(plan)) == [plan.path, project_path(plan.path)]
    path = project_path(plan.path).local()
    assert path == plan.path.local().with_suffix(".qgs")
    root = fromstring(path.read_text())  # noqa: S314 (our own)
    assert root.findtext("title") == EVIL
    (source,) = (layer.findtext("datasource") for layer in root.findall("projectlayers/maplayer"))
    assert (path.parent / str(source)).resolve() == (tmp_path / "runs/run/vectors/p_change.gpkg").resolve()
    assert (path.parent / str(source)).is_file()
    assert root.find("projectlayers/maplayer/renderer-v2") is not None, "with its colours"


def test_layers_are_named_and_in_the_order_in_which_they_are_drawn() -> None:
    facts = {"size": [10, 20], "place": {"transform": [2.0, 0.0, 100.0, 0.0, -2.0, 50.0], "wkt": "PROJCS[]"}}
    found = describe_project("p", facts, FILES, read_styles())
    assert found is not None
    assert [(layer["name"], layer["shown"]) for layer in found["layers"]] == [
        ("Changes", True),
        ("Changed pixels", True),
        ("Probability of change", False),
        ("Probability of change, net", False),
    ]
    assert len({layer["id"] for layer in found["layers"]}) == 4
    west, south, east, north = found["extent"]
    assert (west < 100, south < 30, east > 140, north > 50) == (True,) * 4


@pytest.mark.parametrize(
    ("place", "files"), [({}, FILES), ({"transform": [1, 0, 0, 0, 1, 0], "wkt": "PROJCS[]"}, FILES[-1:])]
)
def test_without_a_place_or_layers_there_is_none(place: dict[str, object], files: list[tuple[str, str]]) -> None:
    assert describe_project("p", {"size": [10, 20], "place": place}, files, read_styles()) is None
