"""From the original's own tree and JSON files to its submission, as one of its users would type it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from project import Project, array, call, draw_change, snapshot, succeed
from rasters import utm_grid, write_raster
from workbooks import write_xls

from cdpipe.config.original import convert
from cdpipe.errors import EXIT_INPUT
from cdpipe.formats.submission import decode_window, parse_runs
from cdpipe.geo.grid import Window

# Names as the original's images have them; the third and fourth place are to be submitted, one has no change.
PLACES = [(f"KVI_2018092{n}_SCN{n}_UN{n}1", f"KV1_2019080{n}_SCN{n}_UN{n}2") for n in range(1, 5)]
SHAPE = (70, 90)
SMALL = [
    "train.patch=64", "train.epochs=1", "train.samples_per_pair=5", "predict.tta=none", "resources.gpus=0"
]  # fmt: skip
NETWORKS = {
    "unet++_resnet34": [
        "train.models.unetplusplus_resnet34.arguments={encoder_depth: 3, decoder_channels: [16, 8, 8]}"
    ],
    "siamese_snunet32": ["train.models.siamese_unet_snunet.arguments.channels=16"],
}

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(900), pytest.mark.heavy]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original's project with its data, nested as it really is, and two of its configurations."""
    root = tmp_path_factory.mktemp("original")
    data, random = root / "data", np.random.default_rng(3)
    composites, masks = data / "Images_composit" / "Images_composit" / "8_ch", data / "mask" / "mask"
    for folder in (composites, masks, root / "configs"):
        folder.mkdir(parents=True)
    for number, (before, after) in enumerate(PLACES):
        dates = draw_change(random, SHAPE)
        four = [np.concatenate([date, date[:1]]) // 4 for date in dates[:2]]  # 10-bit values in four bands
        write_raster(composites / f"{before}__{after}.tif", np.concatenate(four), utm_grid(*SHAPE))
        if number < 2:
            write_raster(masks / f"{before}__{after}.tif", dates[2], utm_grid(*SHAPE))
    write_xls(data / "Rucode.xls", [["№", "до", "после"], *([n, *names] for n, names in enumerate(PLACES))])
    ids = [f"{before}__{after}" for before, after in PLACES[2:]]
    (data / "sample_submission.csv").write_text("Id,mask\n" + "".join(f"{name},\n" for name in reversed(ids)))
    for network in NETWORKS:
        values = {
            "is_siamese": "siamese" in network, "model": network.partition("_")[2], "model_name": network,
            "img_size": 256, "batch": 5, "patience": 7, "device": "cuda", "activation": "sigmoid",
            "sample_submission_path": "data/sample_submission.csv", "pretrained": None,
        }  # fmt: skip
        (root / "configs" / f"config_{network}.json").write_text(json.dumps(values))
    return root


@pytest.fixture(scope="module")
def projects(tree: Path) -> dict[str, Project]:
    """Both configurations, turned into ours, run on the catalog made of the tree, in one workspace."""
    catalog = tree / "pairs.csv"
    said = succeed(["catalog", "original", str(tree), "--out", str(catalog)]).out
    assert "No pair has split val" in said
    catalog.write_text(catalog.read_text().replace(",train", ",val", 1))
    found = {}
    for network, small in NETWORKS.items():
        path = tree / f"{network}.yaml"
        overrides = [part for text in (*SMALL, *small, f"catalog={catalog}") for part in ("--set", text)]
        if network.startswith("unet"):
            overrides += ["--set", "train.models.unetplusplus_resnet34.encoder_weights=null"]
        file = tree / "configs" / f"config_{network}.json"
        path.write_text(succeed(["config", "--from", str(file), *overrides]).out)
        found[network] = Project(path, tree / "work")
        succeed(found[network].arguments("pipeline"))
    return found


def rows(path: Path) -> dict[str, str]:
    with path.open() as stream:
        return {row["Id"]: row["mask"] for row in csv.DictReader(stream)}


def change_of(project: Project, run: str, name: str) -> NDArray[np.uint8]:
    manifest = json.loads((project.workspace / "runs" / run / "manifest.json").read_text())
    pair = next(each for each in manifest["pairs"] if each["pair_id"] == name)
    return array(project, "changes", name, pair["change"], "change")


def test_its_recipe_is_what_was_trained(projects: dict[str, Project]) -> None:
    for network, project in projects.items():
        values = yaml.safe_load(project.config.read_text())
        assert (values["train"]["global_batch"], values["predict"]["threshold"]) == (5, 0.4)
        assert values["normalisation"] == {"statistics": "per_date", "bands": "together"}
        name = convert(project.config.parent / "configs" / f"config_{network}.json")[0]["name"]
        card = json.loads(next((project.workspace / "models").glob(f"{values['name']}/*/model.json")).read_text())
        assert (values["name"], card["statistics"], card["together"]) == (name, "per_date", True)


def test_two_models_are_averaged_and_submitted_without_running_any(projects: dict[str, Project]) -> None:
    """What the original's notebook did: mean of two models, threshold, submission in the sample's order."""
    project = projects["unet++_resnet34"]
    tree = project.config.parent
    folders = sorted(str(path.parent) for path in (project.workspace / "models").glob("*/*/model.json"))
    both = ["--set", f"predict.models=[{', '.join(folders)}]", "--set", "name=both"]
    before = snapshot(project.workspace, "store.zarr/probabilities/**/*")
    succeed(project.arguments("predict", *both))
    assert snapshot(project.workspace, "store.zarr/probabilities/**/*") == before
    out = tree / "submission.csv"
    sample = tree / "data" / "sample_submission.csv"
    succeed(project.arguments("submission", *both, "--template", str(sample), "--out", str(out)))
    submitted = rows(out)
    assert list(submitted) == list(rows(sample))
    for name, text in submitted.items():
        change = change_of(project, "both", name)
        flat = change.T.reshape(-1) == 1
        runs = [int(number) for number in text.split()]
        expected = np.zeros(flat.size, np.bool_)
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            expected[start - 1 : start - 1 + length] = True
        np.testing.assert_array_equal(flat, expected)


def test_two_submissions_are_compared_and_come_back_as_rasters(projects: dict[str, Project]) -> None:
    tree = projects["unet++_resnet34"].config.parent
    files = []
    for network, project in projects.items():
        files.append(tree / f"sub_{network}.csv")
        sample = str(tree / "data" / "sample_submission.csv")
        succeed(project.arguments("submission", "--template", sample, "--out", str(files[-1])))
    project = projects["siamese_snunet32"]
    succeed(project.arguments("evaluate", "--submission", str(files[0])))
    agreement = (project.workspace / "runs" / "siamese_unet_snunet" / "report" / "agreement.csv").read_text()
    assert "sub_unet++_resnet34" in agreement
    succeed(project.arguments("submission", "--rasters", str(files[0]), "--out", str(tree / "back")))
    for name, text in rows(files[0]).items():
        expected = decode_window(parse_runs(text), SHAPE[0], Window(0, 0, *SHAPE))
        change = change_of(projects["unet++_resnet34"], "unetplusplus_resnet34", name)
        np.testing.assert_array_equal(change == 1, expected)
        assert (tree / "back" / f"{name}.tif").is_file()


def test_a_published_start_that_is_not_there_says_how_to_get_it(tree: Path, projects: dict[str, Project]) -> None:
    project = projects["siamese_snunet32"]
    path = tree / "dpn.yaml"
    path.write_text(
        succeed(["config", "--preset", "original/siamese_dpn92", "--set", f"catalog={tree / 'pairs.csv'}"]).out
    )
    found = call(Project(path, project.workspace).arguments("train"))
    assert found.code == EXIT_INPUT
    assert "cdpipe import-weights" in found.err
