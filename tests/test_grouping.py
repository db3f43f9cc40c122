"""Equal findings about many pairs are one line with a count, on whatever way they reach the user."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import Call, call, succeed
from rasters import make_config, utm_grid, write_raster

from cdpipe.cli.screen import FAILURES_SHOWN, Screen
from cdpipe.errors import EXIT_DONE, EXIT_INPUT
from cdpipe.pairs.grouping import CATALOG, group_findings
from cdpipe.runs.run import Failure, Remark, Run, Step

GRID = utm_grid(40, 48)
CONFIG = """\
name: t
catalog: pairs.csv
workspace: work
sensors: {s: {bands: {red: 1, green: 2, blue: 3}}}
align: {coregister: "off"}
splits: {allow_leak: true}
train: {models: {unet: {encoder: resnet18}}, patch: 64}
"""


def lines(findings: Sequence[tuple[str, str]]) -> list[str]:
    return [str(group) for group in group_findings(findings)]


def test_one_finding_keeps_its_file() -> None:
    assert lines([("p", "/a/b.tif: too small")]) == ["pair p: /a/b.tif: too small"]


def test_equal_findings_of_many_pairs_are_one_line() -> None:
    found = lines([(f"p{n}", f"/a/{n}/odd name.tif: too small") for n in range(400)])
    assert found == ["400 pairs (p0, p1, p2, ...): too small; the first is /a/0/odd name.tif"]


def test_findings_of_few_pairs_stay_lines_of_their_own() -> None:
    found = lines([("p", "/a/b.tif: too small"), ("p", "/a/c.tif: too small"), ("q", "/a/d.tif: too small")])
    assert found == [f"pair {pair}: /a/{name}.tif: too small" for pair, name in ("pb", "pc", "qd")]


def test_both_dates_of_many_pairs_count_as_files() -> None:
    found = lines([(f"p{n}", f"/a/{n}/{date}.tif: too small") for n in range(9) for date in ("before", "after")])
    assert found == ["9 pairs (p0, p1, p2, ...): too small; 18 files, the first is /a/0/before.tif"]


def test_one_file_of_several_pairs_is_named_once() -> None:
    assert lines([("p", "/a/b.tif: odd"), ("q", "/a/b.tif: odd")]) == ["pairs p, q: /a/b.tif: odd"]


def test_files_within_a_text_do_not_tell_findings_apart() -> None:
    findings = [(name, f"covers none of /a/{name}.tif") for name in "pqrs"]
    [group] = group_findings(findings, {name: [f"/a/{name}.tif"] for name in "pqrs"})
    assert str(group) == "4 pairs (p, q, r, ...): covers none of /a/p.tif"


def test_figures_tell_a_few_findings_apart_but_not_many() -> None:
    findings = [(f"p{n}", f"/a/{n}.tif: covers {n}% of {n}.5, band B0{n}") for n in range(1, 8)]
    assert len(lines(findings)) == 7, "names of bands are no figures"
    same_band = [(pair, text.split(", band")[0]) for pair, text in findings]
    assert len(lines(same_band[:3])) == 3
    [line] = lines(same_band)
    assert line.startswith("7 pairs (p1, p2, p3, ...): covers 1% of 1.5 (figures of the first); the first is /a/1.tif")


def test_what_is_about_the_catalog_names_no_pair() -> None:
    assert lines([(CATALOG, "no label has change")]) == ["no label has change"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["/x/1.tif: odd", "/x/2.tif: odd", "even", "8 bad"])))
)
def test_every_pair_and_text_is_in_some_line(findings: list[tuple[str, str]]) -> None:
    groups = group_findings(findings)
    assert len({str(group) for group in groups}) == len(groups)
    for pair_id, text in findings:
        assert any(pair_id in group.pairs and text.endswith(group.rest) for group in groups)


def make_many(folder: Path, count: int = 40) -> Path:
    """A configuration of many pairs; what is missing of them is left to the test."""
    for name in ("before", "after"):
        write_raster(folder / f"{name}.tif", np.ones((3, *GRID.shape), np.uint16), GRID)
    rows = [f"p{n:02d},before.tif,after.tif" for n in range(count)]
    (folder / "pairs.csv").write_text("\n".join(["pair_id,before,after", *rows]) + "\n")
    (folder / "c.yaml").write_text(CONFIG)
    return folder / "c.yaml"


def lacking(folder: Path, count: int = 40) -> Path:
    """The same with second dates that are not there, each a file of its own."""
    config = make_many(folder, count)
    rows = [f"p{n:02d},before.tif,lost{n}.tif" for n in range(count)]
    (folder / "pairs.csv").write_text("\n".join(["pair_id,before,after", *rows]) + "\n")
    return config


@pytest.mark.parametrize("verb", [["check"], ["ingest"], ["ingest", "--dry-run"], ["pipeline"]])
def test_many_pairs_with_the_same_problem_are_one_line(tmp_path: Path, verb: list[str]) -> None:
    result = call([*verb, str(lacking(tmp_path))])
    assert result.code == EXIT_INPUT
    told = [line for line in (result.out + result.err).splitlines() if "there is no such file" in line]
    assert len(told) == 1, result
    assert "40 pairs (p00, p01, p02, ...)" in told[0]
    assert "lost0.tif" in told[0]
    assert "40 problem(s)" in result.out + result.err


def doubtful(folder: Path) -> Path:
    """Pairs whose dates are swapped, which is a warning of each."""
    config = make_many(folder)
    rows = [f"p{n:02d},before.tif,after.tif,2020-01-01,2019-01-01" for n in range(40)]
    (folder / "pairs.csv").write_text("\n".join(["pair_id,before,after,before_date,after_date", *rows]) + "\n")
    return config


def warned(result: Call) -> list[str]:
    return [line for line in result.out.splitlines() if line.startswith("warning: ") and "swapped" in line]


@pytest.mark.parametrize("verb", ["ingest", "pipeline"])
def test_dry_runs_show_the_warnings_of_the_check(tmp_path: Path, verb: str) -> None:
    [line] = warned(succeed([verb, "--dry-run", str(doubtful(tmp_path))]))
    assert "40 pairs (p00, p01, p02, ...)" in line
    assert "before_date 2020-01-01 is later than after_date 2019-01-01; are the dates swapped?" in line


def test_warnings_are_shown_even_where_problems_stop_the_verb(tmp_path: Path) -> None:
    config = doubtful(tmp_path)
    with (tmp_path / "pairs.csv").open("a") as file:
        file.write("lost,before.tif,lost.tif,,\n")
    result = call(["ingest", str(config)])
    assert result.code == EXIT_INPUT
    assert len(warned(result)) == 1


def test_a_verb_that_does_not_check_tells_what_ingest_was_warned_of_and_each_once(tmp_path: Path) -> None:
    told: list[Step | Remark | Failure] = []
    run = Run(make_config(tmp_path), told.append)
    entries = [
        {"stage": "ingest", "warnings": ["old"]},
        {"stage": "ingest", "warnings": ["a", "b"]},
        {"stage": "train"},
    ]
    run.folder.local().mkdir(parents=True)
    (run.folder / "log.json").write(json.dumps(entries).encode())
    run.warn(["b"])
    run.recall_warnings()
    run.recall_warnings()
    assert told == [Remark("warning: b"), Remark("warning: a")]


@pytest.mark.parametrize("verb", [["train"], ["train", "--dry-run"], ["predict"], ["predict", "--dry-run"]])
def test_what_is_not_ingested_yet_is_told_in_one_line(tmp_path: Path, verb: list[str]) -> None:
    result = call([*verb, str(make_many(tmp_path))])
    assert result.code == EXIT_INPUT
    expected = f"cdpipe: {tmp_path / 'pairs.csv'}: no pair is in the store: not ingested yet; run cdpipe ingest"
    assert (result.out, result.err.splitlines()) == ("", [expected])


def test_the_screen_counts_failures_for_the_same_reason(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for number in range(50):
        screen.show(Failure(f"p{number}", f"/data/{number}.tif: damaged at {number}"))
    screen.show(Failure("q", "/data/q.tif: missing"))
    screen.say("done")
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["failed: pair p0: /data/0.tif: damaged at 0", "failed: pair p1: /data/1.tif: damaged at 1"]
    assert shown[FAILURES_SHOWN:] == [
        "failed: pair q: /data/q.tif: missing",
        f"failed: {50 - FAILURES_SHOWN} more pair(s), for reasons like those above",
        "done",
    ]


def test_an_unreadable_first_date_hides_no_other_mistake(tmp_path: Path) -> None:
    """Of the second date, the label and both valid rasters, rasters and vector labels alike."""
    config = make_many(tmp_path)
    write_raster(tmp_path / "label.tif", np.full(GRID.shape, 7, np.uint8), GRID)
    rows = ["p,gone.tif,after.tif,label.tif,no1.tif,no2.tif", "q,gone.tif,lost.tif,outlines.gpkg,,"]
    head = "pair_id,before,after,label,before_valid,after_valid"
    (tmp_path / "pairs.csv").write_text("\n".join([head, *rows]) + "\n")
    result = call(["ingest", str(config)])
    assert result.code == EXIT_INPUT
    for expected in (
        "gone.tif",
        "no1.tif",
        "no2.tif",
        "value(s) 7 (1,920 px) are in none of label",
        "lost.tif",
        "outlines.gpkg",
    ):
        assert expected in result.err, result.err


def test_a_mistaken_row_hides_no_file_of_another_row(tmp_path: Path) -> None:
    config = make_many(tmp_path)
    rows = ["p,before.tif,after.tif,nowhere", "q,before.tif,lost.tif,train", "r,before.tif,after.tif,train"]
    (tmp_path / "pairs.csv").write_text("\n".join(["pair_id,before,after,split", *rows]) + "\n")
    result = call(["check", str(config)])
    assert result.code == EXIT_INPUT
    head, *lines = result.err.splitlines()
    assert head.endswith("pairs.csv: 1 mistake(s)")
    assert lines == [
        "  line 2, pair p, split: expected train, val, test or nothing, got 'nowhere'",
        f"  pair q: {tmp_path / 'lost.tif'}: expected a raster file; there is no such file",
    ]


def test_check_ends_well_with_warnings(tmp_path: Path) -> None:
    result = call(["check", str(doubtful(tmp_path))])
    assert result.code == EXIT_DONE
    assert "40 pair(s), 40 good" in result.out
    assert "40 warning(s)" in result.out
    assert sum("are the dates swapped?" in line for line in result.out.splitlines()) == 1
