"""The report's pages: valid, complete, self-contained, and the same bytes for the same run."""

import hashlib
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import html5lib
import pytest
from reports import EVIL, make_job, make_page, make_report, make_report_files, write_report

from cdpipe.geo.grid import Window
from cdpipe.report.facts import PairPage
from cdpipe.report.tables import without_twins
from cdpipe.report.words import area, figure, share, summarise, took
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

XHTML = "{http://www.w3.org/1999/xhtml}"
ELSEWHERE = ("https://www.openstreetmap.org/", "geo:")  # links that need the network, or an app, once clicked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report_files(Workspace(here(tmp_path_factory.mktemp("report"))))


@pytest.fixture(scope="module")
def pair_page(tmp_path_factory: pytest.TempPathFactory) -> PairPage:
    return make_page(make_job(Workspace(here(tmp_path_factory.mktemp("page"))), "p", 0), "p")


def parse(path: Path) -> Any:
    """The page's tree; a mistake in its HTML raises."""
    return html5lib.HTMLParser(strict=True).parse(path.read_bytes(), transport_encoding="utf-8")


def text_of(node: Any) -> str:
    return " ".join("".join(node.itertext()).split())


def test_every_page_is_valid_html_with_one_title_and_unique_ids(folder: Path) -> None:
    pages = [folder / "index.html", *sorted((folder / "pairs").iterdir())]
    assert len(pages) == 3
    for path in pages:
        tree = parse(path)
        assert len(list(tree.iter(f"{XHTML}h1"))) == len(list(tree.iter(f"{XHTML}main"))) == 1
        ids = [node.get("id") for node in tree.iter() if node.get("id")]
        assert len(ids) == len(set(ids))
        assert all(node.get("alt") is not None for node in tree.iter(f"{XHTML}img"))


def test_every_reference_is_a_file_beside_the_pages(folder: Path) -> None:
    for path in (folder / "index.html", *(folder / "pairs").iterdir()):
        tree, found = parse(path), 0
        for node in tree.iter():
            for name in ("href", "src"):
                reference = node.get(name)
                if reference is None or reference.startswith(("#", "data:")):
                    continue
                if reference.startswith(ELSEWHERE):
                    assert node.tag == f"{XHTML}a", "what needs the network is asked for by a click alone"
                    continue
                target = (path.parent / reference.partition("#")[0]).resolve()
                assert target.is_relative_to(folder.parent)
                assert target.exists() or target.name == "manifest.json"
                found += 1
        assert found > 10
    for path in (*folder.rglob("*.html"), folder / "report.css", folder / "report.js"):
        text = path.read_text()
        for place in ELSEWHERE:
            text = text.replace(place, "")
        assert not re.search(r"(https?:)?//[a-z]", text.replace("http://www.w3.org/", "")), path
        assert "@import" not in text
        assert "url(" not in text


def test_names_are_text_wherever_they_stand(folder: Path) -> None:
    for path in (folder / "index.html", folder / "pairs" / "p.html"):
        tree = parse(path)
        assert EVIL not in path.read_text()
        assert EVIL in "".join(tree.itertext())
        for script in tree.iter(f"{XHTML}script"):
            assert script.get("src") or script.get("type") == "application/json"


def test_the_same_run_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = make_report_files(Workspace(here(tmp_path)))

    def hashes(root: Path) -> dict[str, str]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    # GDAL writes the time into a GeoPackage, whose hash is part of the facts' key
    changing = re.compile(r"facts\.json$")
    first, second = (
        {name: sha for name, sha in hashes(root).items() if not changing.search(name)} for root in (folder, again)
    )
    assert first == second


def test_the_index_says_what_was_found(folder: Path) -> None:
    text = text_of(parse(folder / "index.html"))
    for expected in (
        "Of 4 pairs of scenes 2 are finished, 1 failed and 1 skipped; reasons are below.",
        (
            "On 1 test pair, which neither training nor selection saw, the ensemble's IoU is 0.500"
            " (interval over pairs 0.400 to 0.600), its F1 0.500; the best single model, net, has IoU 0.400"
        ),
        "the ensemble's probability reaches 0.5 (best F1 on p)",
        "IoU 0.300 in epoch 4 of 4, which is used.",
        "Expected calibration error: ensemble 0.030.",
        "How much more often change starts or ends at the borders",
        "not among the run's pairs",
    ):
        assert expected in text


def test_pairs_without_change_get_a_sentence_in_place_of_figures() -> None:
    row = {"split": "test", "layer": "ensemble", "pairs": 2, "iou": 0.0, "f1": 0.0, "tp": 0, "fn": 0}
    totals = {"observed_px": 9.0, "changed_px": 0.0, "observed_m2": None, "changed_m2": None}
    for iou in (0.0, None, float("nan")):
        told = summarise(
            totals, {"finished": 2, "failed": 0, "skipped": 0}, [row | {"iou": iou}], ("mean", 0.5, "given")
        )
        assert "No pixel of the labels of 2 test pairs changed, so their figures say nothing." in told
        assert "IoU" not in " ".join(told)


def test_what_was_not_found_out_is_left_out(pair_page: PairPage, tmp_path: Path) -> None:
    bare = PairPage(
        **{
            **{name: getattr(pair_page, name) for name in PairPage.__slots__},
            "facts": {**pair_page.facts, "objects": []},
        }
    )
    write_report(here(tmp_path), make_report([bare], evaluation=None, audits=None, training=[], problems=[]))
    for path in (tmp_path / "index.html", tmp_path / "pairs" / "p.html"):
        sections = {node.get("id") for node in parse(path).iter()}
        assert not sections & {"changes", "figures", "training", "audits", "problems", "review"}


def test_strips_of_a_scene_are_told_and_shown_where_they_lie(pair_page: PairPage, tmp_path: Path) -> None:
    height, _ = pair_page.facts["size"]
    strips = {"train": Window(0, 0, height, 100), "val": Window(0, 164, height, 64), "test": Window(0, 292, height, 20)}
    write_report(here(tmp_path), make_report([replace(pair_page, split="", strips=strips)]))
    for path in (tmp_path / "index.html", tmp_path / "pairs" / "p.html"):
        (drawn,) = [node for node in parse(path).iter() if node.get("class") == "strips"]
        rects = [node for node in drawn.iter() if node.tag.endswith("rect")]
        sides = [tuple(int(node.get(name)) for name in ("y", "x", "height", "width")) for node in rects]
        assert sides == [(at.row, at.col, at.height, at.width) for at in strips.values()]
        assert [text_of(node) for node in drawn.iter() if node.tag.endswith("text")] == list(strips)
        assert int(drawn.get("viewBox").split()[3]) >= height
    told = text_of(parse(tmp_path / "index.html"))
    assert "Train, val and test are strips of the same scene, p, with a patch in between" in told
    assert "On 1 test strip, which neither training nor selection saw" in told


def test_what_is_not_to_be_believed_stands_on_top(pair_page: PairPage, tmp_path: Path) -> None:
    report = make_report([pair_page])
    write_report(here(tmp_path), report)
    assert "Not to be believed" not in text_of(parse(tmp_path / "index.html"))
    doubts = [f"on test pairs the IoU of net (0.400) is below {EVIL}"]
    told = {**report.evaluation, "doubts": doubts}
    write_report(here(tmp_path), replace(report, evaluation=told, doubts=["pair p: its pixels are 0.5 m wide"]))
    text = text_of(parse(tmp_path / "index.html"))
    start, end = text.index("Not to be believed"), text.index("of scenes")
    assert all(each in text[start:end] for each in (*doubts, "pair p: its pixels are 0.5 m wide"))
    assert "observed; not to be believed, with an IoU of 0.500" in text


def test_changes_to_label_come_by_turns_from_each_pair(pair_page: PairPage, tmp_path: Path) -> None:
    first = pair_page.facts["objects"][0]

    def page(name: str, scores: list[float]) -> PairPage:
        objects = [{**first, "id": f"{name}{number}", "score": score} for number, score in enumerate(scores)]
        return replace(pair_page, pair_id=name, name=name, facts={**pair_page.facts, "objects": objects})

    report = make_report([page("a", [9.0, 8.0, 7.0]), page("b", [3.0, 2.0])])
    for to_label, order in ((False, "a0 a1 a2 b0 b1"), (True, "a0 b0 a1 b1 a2")):
        write_report(here(tmp_path), replace(report, to_label=to_label))
        tree = parse(tmp_path / "index.html")
        cards = [node.get("data-change") for node in tree.iter(f"{XHTML}li") if node.get("class") == "change"]
        assert [card.partition("/")[2] for card in cards] == order.split()
        assert ("No pair has a label yet" in text_of(tree)) == to_label


def test_more_changes_are_shown_where_they_are_to_be_labelled(pair_page: PairPage, tmp_path: Path) -> None:
    first = pair_page.facts["objects"][0]
    objects = [{**first, "id": str(number), "score": 1.0} for number in range(250)]
    report = make_report([replace(pair_page, facts={**pair_page.facts, "objects": objects})])
    for to_label, shown in ((False, 60), (True, 240)):
        write_report(here(tmp_path), replace(report, to_label=to_label))
        cards = [node for node in parse(tmp_path / "index.html").iter(f"{XHTML}li") if node.get("class") == "change"]
        assert len(cards) == shown


def test_objects_that_were_refused_are_told_with_the_reason(pair_page: PairPage, tmp_path: Path) -> None:
    facts = {**pair_page.facts, "objects": []}
    noisy = replace(pair_page, facts=facts, no_objects=f"more than 9 change objects {EVIL}")
    write_report(here(tmp_path), make_report([noisy], evaluation=None))
    for path in (tmp_path / "index.html", tmp_path / "pairs" / "p.html"):
        tree = parse(path)
        assert "more than 9 change objects" in text_of(tree)
        assert "changes" in {node.get("id") for node in tree.iter()}
        assert EVIL not in path.read_text()


def test_models_agree_only_with_others(pair_page: PairPage, tmp_path: Path) -> None:
    for models, told in ((1, False), (2, True)):
        write_report(here(tmp_path), make_report([replace(pair_page, models=models)]))
        for path in (tmp_path / "index.html", tmp_path / "pairs" / "p.html"):
            assert ("agreement of models 0.50" in text_of(parse(path))) == told


def test_an_ensemble_of_one_model_is_that_model(pair_page: PairPage, tmp_path: Path) -> None:
    rows = [
        {"split": "test", "pair_id": pair_id, "layer": layer, "pairs": 1, "iou": iou, "f1": iou, "tp": 5, "fn": 1}
        for pair_id in ("p", None)
        for layer, iou in (("net", 0.4), ("ensemble", 0.4), ("grey difference", 0.3))
    ]
    points = [{"threshold": 0.5, "recall": 0.5, "precision": 0.5, "f1": 0.5}]
    curves = [{"split": "test", "layer": layer, "points": points} for layer in ("net", "ensemble")]
    evaluation = {"rows": rows, "curves": curves, "calibration": []}
    one = make_report([]).models[:1]
    write_report(here(tmp_path), make_report([pair_page], evaluation=evaluation, models=one))
    told = text_of(parse(tmp_path / "index.html"))
    assert "the model's IoU is 0.400, its F1 0.400; thresholding" in told
    assert "the model's probability reaches 0.5" in told
    assert "IoU of the model" in told
    assert "The model; change where its probability reaches" in told
    for path in (tmp_path / "index.html", tmp_path / "pairs" / "p.html"):
        assert "ensemble" not in text_of(parse(path))


def test_twins_are_alike_in_everything_but_their_name() -> None:
    def rows(*layers: tuple[str, float], **more: Any) -> list[dict[str, Any]]:
        return [{"layer": name, "split": "test", "iou": value, "f1": float("nan"), **more} for name, value in layers]

    alone = rows(("net", 0.4), ("ensemble", 0.4), ("grey difference", 0.2))
    assert [row["layer"] for row in without_twins(alone)] == ["net", "grey difference"]
    for kept in (
        rows(("net", 0.4), ("ensemble", 0.5)),  # at another threshold
        rows(("net", 0.4), ("other", 0.4), ("ensemble", 0.4)),
        rows(("ensemble", 0.4), ("grey difference", 0.4)),
        [*rows(("net", 0.4), pair_id="p"), *rows(("ensemble", 0.4), pair_id="q")],
    ):
        assert without_twins(kept) == kept
    assert without_twins([]) == []


def test_a_report_of_nothing_is_a_report(tmp_path: Path) -> None:
    write_report(here(tmp_path), make_report([], evaluation=None, audits=None))
    assert "No pair is finished." in text_of(parse(tmp_path / "index.html"))


def test_the_best_changes_come_first(folder: Path) -> None:
    tree = parse(folder / "index.html")
    cards = [node for node in tree.iter(f"{XHTML}li") if node.get("class") == "change"]
    areas = [re.search(r"([\d,.]+ (?:m²|ha)) · probability 0.90", text_of(card)) for card in cards]
    assert len(cards) > 3
    assert all(areas)
    assert {card.get("data-change", "").partition("/")[0] for card in cards} == {"p", "q"}


def test_areas_are_told_in_the_unit_that_suits_them() -> None:
    told = [area(value) for value in (0.0, 640.2, 9_999.0, 12_345.0, 999_000.0, 1.5e6, 2.34e9)]
    assert told == ["0 m²", "640 m²", "9,999 m²", "1.23 ha", "99.9 ha", "1.5 km²", "2,340 km²"]
    assert (area(None, 1234), area(None)) == ("1,234 px", "–")


def test_numbers_are_told_as_people_read_them() -> None:
    assert [share(part, 1000) for part in (0, 1, 12.34, 1000)] == ["0.0 %", "0.1 %", "1.2 %", "100.0 %"]
    assert (share(1, 0), figure(None), figure(float("nan")), figure(0.12345), figure(12345)) == (
        *("–", "–", "–", "0.123"),
        "12,345",
    )
    assert [took(seconds) for seconds in (3.2, 75, 7322)] == ["3 s", "1 min 15 s", "2 h 2 min"]


def test_a_run_without_labels_or_georeference_is_told_in_pixels() -> None:
    totals = {"observed_px": 1000.0, "changed_px": 25.0, "observed_m2": None, "changed_m2": None}
    states = {"finished": 1, "failed": 0, "skipped": 0}
    assert summarise(totals, states, [], ("vote", 0.5, "given")) == [
        "One pair of scenes was compared; it is finished.",
        "Of 1,000 px observed at both dates, 25 px, 2.5 %, changed.",
        "A pixel counts as changed where more than half of the models see it (given).",
    ]


def test_four_hundred_pairs_make_a_light_index(pair_page: PairPage, tmp_path: Path) -> None:
    """A kilobyte or so a pair, no picture in it but small ones that are fetched when they come into sight."""
    pages = [replace(pair_page, pair_id=f"p{number:03d}", name=f"Scene {number}") for number in range(400)]
    index = write_report(here(tmp_path), make_report(pages))
    assert index.stat().size < 700_000
    images = list(parse(index.local()).iter(f"{XHTML}img"))
    assert len(images) == 3 * 400 + 60
    assert {image.get("loading") for image in images} == {"lazy"}
    thumbs = [size for name, size in pair_page.facts["images"].items() if name.startswith("thumb")]
    assert max(thumbs) < 12_000


def test_templates_are_installed_with_the_package() -> None:
    root = Path(__file__).resolve().parents[1]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cdpipe"]
    installed = {path for pattern in patterns for path in (root / "cdpipe").glob(pattern)}
    files = {path for path in (root / "cdpipe").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert files == {path for path in installed if path.is_file()}
    assert any(path.name == "index.html.j2" for path in files)
