"""What evaluation, audits and the report found is kept as long as it holds, missed where it is damaged, without Ray."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reports import make_job, make_page, make_report
from stored import bright_squares, store_change, store_pair, store_probability

from cdpipe.api.report import write_pages
from cdpipe.evaluation.audit import AuditJob, audit_stored
from cdpipe.evaluation.audit_tables import describe_stored, pool_audits, table_rows
from cdpipe.evaluation.comparison import compare_masks
from cdpipe.evaluation.products import (
    PairAudit,
    PairEvaluation,
    audit_product,
    evaluation_product,
    read_audit,
    read_evaluation,
)
from cdpipe.evaluation.scores import Results, evaluate_pair, evaluate_parts
from cdpipe.evaluation.tables import tabulate
from cdpipe.geo.grid import Window
from cdpipe.report.facts import PairPage
from cdpipe.report.pages import plan_pages
from cdpipe.report.pictures import PictureJob
from cdpipe.runs.products import Product, ensure_intact, is_intact, is_written, remove_product
from cdpipe.workspace.files import json_bytes
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here
from cdpipe.workspace.records import hash_stored

SHAPE = (120, 140)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(here(tmp_path))


def make_spec(workspace: Workspace) -> PairEvaluation:
    """A pair with two models, an ensemble and a submission; the models' names are in no order."""
    dates, label = bright_squares(SHAPE, 0)
    item = store_pair(workspace, "p", dates, label)
    probability = np.random.default_rng(0).random(SHAPE, np.float32)
    for name in ("zeta", "alpha"):
        store_probability(workspace, item.pair, name, probability)
    store_change(workspace, item.pair, "change", probability, (probability > 0.5).astype(np.uint8))
    members = (("zeta", "zeta", 0.4), ("alpha", "alpha", 0.6))
    results = Results(item.pair, item.label_key, members, "change", (("theirs", np.array([[5, 40]], np.int64)),))
    path = workspace.run("run") / "report" / "pictures" / "p.png"
    picture = PictureJob(workspace, path, item.pair, item.label_key, "change", ("2019", "2020"), 0.5, None)
    return PairEvaluation(workspace, "run", results, picture)


def test_what_is_read_back_is_what_was_counted(workspace: Workspace) -> None:
    spec = make_spec(workspace)
    ensure_intact(evaluation_product(spec))
    found, agreement = read_evaluation(spec)
    scores = found["p"]
    expected = evaluate_pair(workspace, spec.results)
    assert scores == expected
    assert list(scores.counts) == list(expected.counts) == ["zeta", "alpha", "ensemble", "theirs"]
    assert agreement == compare_masks(workspace, spec.results)
    first, second = (json_bytes(tabulate({"p": each}, {"p": "test"})) for each in (scores, expected))
    assert first == second


def test_what_is_not_known_is_not_known_after_reading(workspace: Workspace) -> None:
    """Areas without a georeference, and scores of pairs without label."""
    spec = make_spec(workspace)
    bare = dataclasses.replace(spec.results.pair, grid=dataclasses.replace(spec.results.pair.grid, crs=None))
    spec = dataclasses.replace(spec, results=dataclasses.replace(spec.results, pair=bare), picture=None)
    ensure_intact(evaluation_product(spec))
    assert np.isnan(read_evaluation(spec)[0]["p"].area_km2)
    spec = dataclasses.replace(spec, results=dataclasses.replace(spec.results, label_key=None))
    ensure_intact(evaluation_product(spec))
    assert read_evaluation(spec)[0] == {}


def test_strips_of_a_pair_are_read_back_each_by_itself(workspace: Workspace) -> None:
    strips = {"train": Window(0, 0, SHAPE[0], 60), "test": Window(0, 80, SHAPE[0], 60)}
    spec = changed(make_spec(workspace), strips=strips)
    ensure_intact(evaluation_product(spec))
    assert read_evaluation(spec)[0] == evaluate_parts(workspace, spec.results)
    assert list(read_evaluation(spec)[0]) == ["p/train", "p/test"]


def changed(spec: PairEvaluation, **results: Any) -> PairEvaluation:
    return dataclasses.replace(spec, results=dataclasses.replace(spec.results, **results))


def test_every_ingredient_of_an_evaluation_makes_another(workspace: Workspace) -> None:
    spec = make_spec(workspace)
    assert spec.picture is not None
    specs = [
        spec,
        dataclasses.replace(spec, run="another"),
        dataclasses.replace(spec, picture=None),
        dataclasses.replace(spec, picture=dataclasses.replace(spec.picture, threshold=0.6)),
        dataclasses.replace(spec, picture=dataclasses.replace(spec.picture, dates=None)),
        changed(spec, pair=dataclasses.replace(spec.results.pair, key="other")),
        changed(spec, label_key="other"),
        changed(spec, change_key="other"),
        changed(spec, members=(("zeta", "zeta", 0.4), ("alpha", "alpha", 0.7))),
        changed(spec, members=spec.results.members[::-1]),  # the order of a table's rows
        changed(spec, tolerance=3),
        changed(spec, strips={"test": Window(0, 0, 9, 9)}),
        changed(spec, submissions=()),
        changed(spec, submissions=(("theirs", np.array([[5, 41]], np.int64)),)),
    ]
    assert len({each.key for each in specs}) == len(specs)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "other, as long": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ["scores/p.json", "pictures/p.png"])
def test_damage_is_noticed_and_made_good(workspace: Workspace, name: str, damage: Callable[[Path], Any]) -> None:
    product = evaluation_product(make_spec(workspace))
    path = (workspace.run("run") / "report" / name).local()
    ensure_intact(product)
    before = path.read_bytes()
    damage(path)
    assert not is_intact(product)
    ensure_intact(product)
    assert path.read_bytes() == before
    assert is_intact(product)


def test_what_is_whole_is_left_alone(workspace: Workspace) -> None:
    product = evaluation_product(make_spec(workspace))
    ensure_intact(product)

    def times() -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted(workspace.root.local().rglob("*")) if path.is_file()]

    before = times()
    ensure_intact(product)
    assert times() == before


def test_an_audit_reads_back_as_it_was_found(workspace: Workspace) -> None:
    spec = make_spec(workspace)
    results = spec.results
    job = AuditJob(workspace, results.pair, "change", results.members, ((64, 48),))
    audit = PairAudit("run", job)
    ensure_intact(audit_product(audit))
    found = read_audit(audit)
    assert json_bytes(found) == json_bytes(describe_stored(audit_stored(job)))
    shown = table_rows({"p": found}, pool_audits({"p": found}))
    fresh = describe_stored(audit_stored(job))
    assert shown == table_rows({"p": fresh}, pool_audits({"p": fresh}))
    others = [
        dataclasses.replace(audit, run="another"),
        *(
            dataclasses.replace(audit, job=dataclasses.replace(job, **values))
            for values in (
                {"pair": dataclasses.replace(job.pair, key="other")},
                {"change_key": "other"},
                {"members": job.members[:1]},
                {"patches": ((64, 32),)},
            )
        ),
    ]
    assert len({audit.key, *(other.key for other in others)}) == 6


def test_an_audit_of_no_change_at_all_is_shown(workspace: Workspace) -> None:
    """Its score is not a number, which a file says as null."""
    item = store_pair(workspace, "p", *bright_squares(SHAPE, 0))
    nothing = np.zeros(SHAPE, np.uint8)
    store_change(workspace, item.pair, "change", nothing.astype(np.float32), nothing)
    audit = PairAudit("run", AuditJob(workspace, item.pair, "change", (), ((64, 48),)))
    ensure_intact(audit_product(audit))
    found = read_audit(audit)
    assert found["seam"]["score"] is None
    assert [row[1] for row in table_rows({"p": found}, pool_audits({"p": found}))] == ["-", "-"]


@pytest.fixture(scope="module")
def pair_pages(tmp_path_factory: pytest.TempPathFactory) -> list[PairPage]:
    workspace = Workspace(here(tmp_path_factory.mktemp("pages")))
    return [make_page(make_job(workspace, name, seed), name) for seed, name in enumerate("pqr")]


def keys(tmp_path: Path, pages: list[PairPage], **others: Any) -> list[str]:
    return [page.key for page in plan_pages(here(tmp_path), make_report(pages, **others))]


def test_only_the_page_of_the_changed_pair_changes(tmp_path: Path, pair_pages: list[PairPage]) -> None:
    before = keys(tmp_path, pair_pages)
    facts = pair_pages[1].facts
    figures = {**facts["figures"], "changed_px": 1.0}
    other = dataclasses.replace(pair_pages[1], facts={**facts, "key": "new", "figures": figures})
    after = keys(tmp_path, [pair_pages[0], other, pair_pages[2]], run={**make_report([]).run, "id": "new"})
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, False, True]


def test_pages_follow_what_they_show(tmp_path: Path, pair_pages: list[PairPage]) -> None:
    before = keys(tmp_path, pair_pages)
    assert before == keys(tmp_path, pair_pages)
    renamed = [pair_pages[0], dataclasses.replace(pair_pages[1], name="new"), pair_pages[2]]
    run = make_report([]).run
    for others in (
        keys(tmp_path, renamed),  # its neighbours link to it
        keys(tmp_path, pair_pages, run={**run, "version": "99"}),
        keys(tmp_path, pair_pages, run={**run, "name": "another"}),
        keys(tmp_path, pair_pages, audits=None),
    ):
        assert not set(before) & set(others)


def test_only_what_shows_something_else_is_written(workspace: Workspace, pair_pages: list[PairPage]) -> None:
    root = workspace.root.local()

    def written() -> dict[str, int]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}

    index = write_pages(workspace, "run", make_report(pair_pages))
    first = written()
    assert {Path(name).name for name in first if "report/" in name} == {
        *("index.html", "index.json", "report.css", "report.js"),
        *(page.page for page in pair_pages),
    }
    write_pages(workspace, "run", make_report(pair_pages))
    assert written() == first
    page = index.parent / "pairs" / "q.html"
    page.local().write_text("edited")
    write_pages(workspace, "run", make_report(pair_pages))
    assert {name for name, time in written().items() if first[name] != time} == {
        *(f"runs/run/report/pairs/{page.name}",),
        *(name for name in first if name.startswith("records/pages/q/")),
    }
    write_pages(workspace, "run", make_report(pair_pages[:1]))
    assert {name.split("/")[2] for name in written() if name.startswith("records/")} == {"p"}
    assert [path.name for path in (index.parent / "pairs").iterdir()] == ["p.html"]


def test_what_is_removed_has_no_record(workspace: Workspace) -> None:
    path = workspace.run("run") / "report" / "pairs" / "p.html"

    def write(text: str) -> Any:
        path.write(text.encode())
        return hash_stored([path])

    product = Product(workspace, "pages", "p", "k", (path,), "text", write)
    ensure_intact(product)
    remove_product(workspace, "pages", "p", [path])
    assert not path.exists()
    assert not product.record.exists()
    assert not is_written(product)
    remove_product(workspace, "pages", "p", [path])
