"""A whole scene through the pipeline gives what the original script gave with the published networks."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from project import Project, array, by_threads, succeed, write_catalog
from torch import Tensor

from cdpipe.geo.grid import Window
from cdpipe.geo.tilings import PatchGrid
from cdpipe.inference.patches import Execution, Placement, predict_window
from cdpipe.inference.torch import make_forward
from cdpipe.models.folder import ModelCard, load_network, read_card, save_model
from cdpipe.models.foreign import load_published
from cdpipe.models.networks import build_model
from cdpipe.store.normalisation import model_input
from cdpipe.store.pair import load_pair, read_dates, read_observed
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

NETWORKS = {"unetplusplus_resnext50": "unetplusplus", "siamese_seresnext50": "siamese_seresnext50"}
PATCH = 256
# Which patch to compare of each network: all would take a minute. The Siamese one has a test of its own, patch or not.
PLACES = (
    ("unetplusplus_resnext50", (1, 0)),
    pytest.param("siamese_seresnext50", (2, 1), marks=pytest.mark.heavy),
)
TOLERANCE = 1e-4
pytestmark = pytest.mark.timeout(900)


def filled(shapes: dict[str, Tensor], reference: Path) -> dict[str, Tensor]:
    """The reference's weights, which follow from the names of a state dict's entries."""
    spec = importlib.util.spec_from_file_location("fill_weights", reference / "fill_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights: dict[str, Tensor] = module.fill(shapes)
    return weights


def published_shapes(reference: Path) -> dict[str, Tensor]:
    """The siamese network's entries under their published names, with the reference's last layer."""
    rows = [line.split("\t") for line in (reference / "keys" / "seresnext50.tsv").read_text().splitlines()]
    sizes = {key: [int(side) for side in shape.split("x") if side] for key, shape in rows if key[:5] != "final"}
    return {key: torch.empty(size) for key, size in {**sizes, **LAST_LAYER}.items()}


LAST_LAYER = {"final.0.weight": [1, 24, 1, 1], "final.0.bias": [1]}


@pytest.fixture(scope="module")
def ingested(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The reference's scene and networks in a workspace, with the settings of the original script."""
    folder, reference = tmp_path_factory.mktemp("parity"), shared / "reference"
    unetplusplus, siamese = (build_model(architecture) for architecture in NETWORKS.values())
    unetplusplus.load_state_dict(filled(unetplusplus.state_dict(), reference))
    load_published("siamese_seresnext50", siamese, filled(published_shapes(reference), reference))
    for (name, architecture), network in zip(NETWORKS.items(), (unetplusplus, siamese), strict=True):
        card = ModelCard(name, architecture, {}, ("red", "green", "blue"), "per_date", True, PATCH, "")
        save_model(here(folder / name), card, network.state_dict())
    write_catalog(folder / "pairs.csv", [{"pair_id": "scene", "composite": str(reference / "scene" / "composite.tif")}])
    config = {
        "name": "run",
        "preset": "original",
        "catalog": "pairs.csv",
        "workspace": "work",
        "sensors": {"s": {"bands": {"red": 1, "green": 2, "blue": 3}}},
        "align": {"block": 512},
        "predict": {"models": list(NETWORKS)},
        "resources": {"gpus": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    project = Project(folder / "config.yaml", folder / "work")
    with by_threads():
        succeed(project.arguments("ingest"))
    return project


@pytest.fixture(scope="module")
def expected(shared: Path) -> Any:
    return np.load(shared / "reference" / "scene" / "expected.npz")


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_a_patch_of_the_scene(ingested: Project, expected: Any, name: str, place: tuple[int, int]) -> None:
    workspace, folder = Workspace(here(ingested.workspace)), ingested.config.parent / name
    key = next((ingested.workspace / "records" / "pairs" / "scene").iterdir()).name
    pair, card = load_pair(workspace, "scene", key), read_card(here(folder))
    assert pair is not None
    window = Window(place[0] * PATCH, place[1] * PATCH, PATCH, PATCH)
    place_ = Placement(PatchGrid(pair.grid.shape, PATCH, PATCH), window)
    assert place_.halo == window
    observed, scalings = read_observed(workspace, pair, window), pair.scalings(card.recipe)
    scene = model_input(read_dates(workspace, pair, window), observed, scalings)
    forward = make_forward(load_network(here(folder), card), Execution("d4", "float32", "cpu", 1))
    found = predict_window(forward, 1, scene, observed, place_)
    np.testing.assert_allclose(found, expected[name][window.slices], atol=TOLERANCE, rtol=0)


@pytest.mark.heavy
def test_the_whole_scene(ingested: Project, expected: Any) -> None:
    succeed(ingested.arguments("predict"))
    (pair,) = ingested.manifest.pairs
    found: dict[str, NDArray[np.float32]] = {
        name: array(ingested, "probabilities", "scene", key, "probability") for name, key in pair.probabilities.items()
    }
    found["ensemble"] = array(ingested, "changes", "scene", pair.change, "probability")
    assert set(found) == {*NETWORKS, "ensemble"} == set(expected)
    for name, probability in found.items():
        np.testing.assert_allclose(probability, expected[name], atol=TOLERANCE, rtol=0, err_msg=name)
    change = array(ingested, "changes", "scene", pair.change, "change")
    np.testing.assert_array_equal(change == 1, found["ensemble"] >= np.float32(0.4))
