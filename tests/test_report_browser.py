"""The report in a real browser, opened from disk: it works, keeps to itself, and everybody can use it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Watched, audit, open_browser
from playwright.sync_api import Browser, expect
from reports import EVIL, make_job, make_report_files

from cdpipe.report.review import read_review
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import here

SORTED = ("Pair", "Dates", "Split", "Observed", "Changed", "Share", "IoU", "F1", *["audit"] * 3)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report_files(Workspace(here(tmp_path_factory.mktemp("browser"))))


@pytest.mark.parametrize(
    ("name", "scheme", "size"),
    [
        ("index.html", "light", WIDE),
        ("index.html", "dark", PHONE),
        ("pairs/p.html", "dark", WIDE),
        ("pairs/p.html", "light", PHONE),
    ],
)
def test_everybody_can_use_it(browser: Browser, folder: Path, name: str, scheme: str, size: dict[str, int]) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
    watched = Watched(context, folder / name)
    assert audit(watched.page) == []
    assert watched.foreign() == []
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= size["width"], "no sideways scrolling"
    context.close()


def test_it_asks_for_nothing_but_its_files_and_makes_no_mistake(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    for path in (folder / "index.html", folder / "pairs" / "p.html"):
        watched = Watched(context, path)
        watched.page.mouse.wheel(0, 20_000)
        watched.page.wait_for_timeout(200)
        assert (watched.foreign(), watched.errors) == ([], [])
        assert len(watched.requests) > 5
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth && i.loading !== 'lazy').length"
        assert watched.page.evaluate(broken) == 0
    context.close()


def test_the_slider_and_the_layers_work_from_the_keyboard(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    page = Watched(context, folder / "pairs" / "p.html").page
    second = page.locator(".stage .second")
    assert "50%" in str(second.evaluate("e => e.style.clipPath"))
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")
    assert "51%" in str(second.evaluate("e => e.style.clipPath"))
    page.keyboard.press("Home")
    assert second.evaluate("e => e.style.clipPath") in ("inset(0px 0px 0px 0%)", "inset(0px)")
    page.locator("input[name=layer]").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("img.over:visible").get_attribute("data-layer") == "change"
    page.locator("#opacity").focus()
    page.keyboard.press("Home")
    assert page.locator("img.over:visible").evaluate("e => e.style.opacity") == "0.1"
    width = page.locator(".stage").evaluate("e => e.clientWidth")
    page.locator(".stage").click(position={"x": width * 0.8, "y": 50})
    assert abs(int(page.locator("#slider").input_value()) - 80) <= 1
    context.close()


def test_without_scripts_everything_is_still_there(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE, java_script_enabled=False)  # type: ignore[arg-type]
    page = Watched(context, folder / "pairs" / "p.html").page
    assert page.locator(".plate:visible").count() == 6
    assert not page.locator(".viewer").is_visible()
    page.goto((folder / "index.html").as_uri())
    assert page.locator("#pair-table tbody tr:visible").count() == 2
    assert not page.locator("#pair-tools").is_visible()
    context.close()


def test_it_prints_the_plates_and_no_controls(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    page = Watched(context, folder / "pairs" / "p.html").page
    page.emulate_media(media="print")
    assert page.locator(".plate:visible").count() == 6
    controls = page.locator(".viewer, .verdict, #review, nav, button, input").filter(visible=True)
    assert controls.count() == 0
    page.goto((folder / "index.html").as_uri())
    assert controls.count() == len(SORTED), "headings of columns stay"
    context.close()


def test_pairs_are_sorted_and_searched(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    page = Watched(context, folder / "index.html").page
    names = page.locator("#pair-table tbody th")
    assert names.all_inner_texts() == [EVIL, "q"]
    shares = "[...document.querySelectorAll('#pair-table tbody tr')].map(r => +r.cells[6].dataset.value)"
    header = page.locator("#pair-table thead th", has_text="Share")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    falling = page.evaluate(shares)
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.evaluate(shares) == falling[::-1] == sorted(falling)
    page.locator("#pair-search").fill("ПРАГА")
    assert names.filter(visible=True).all_inner_texts() == [EVIL]
    assert page.locator("#pair-count").inner_text() == "1 of 2 pairs"
    page.locator("#pair-search").fill("")
    page.locator("#pair-split").select_option("val")
    assert names.filter(visible=True).all_inner_texts() == ["q"]
    context.close()


def test_verdicts_are_kept_saved_and_read(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """Click and key, reload, the other page, the file, and what ``cdpipe review`` makes of it."""
    context = browser.new_context(viewport=WIDE, accept_downloads=True)  # type: ignore[arg-type]
    page = Watched(context, folder / "index.html").page
    assert page.locator("#review-save").is_disabled()
    cards = page.locator(".change")
    ids = [str(cards.nth(at).get_attribute("data-change")) for at in range(3)]
    cards.nth(0).get_by_text("Accept").click()
    cards.nth(0).locator("input").first.focus()
    page.keyboard.press("j")
    page.keyboard.press("r")
    cards.nth(2).locator("input").last.focus()
    page.keyboard.press("u")
    page.reload()
    assert page.locator("#review-state").inner_text() == "3 reviewed: 1 accepted, 1 rejected, 1 unsure."
    assert cards.nth(1).locator("input:checked").get_attribute("value") == "rejected"

    pair_id = ids[0].partition("/")[0]
    page.goto((folder / "pairs" / f"{pair_id}.html").as_uri())
    assert page.locator(f"[data-change='{ids[0]}'] input:checked").get_attribute("value") == "accepted"
    with page.expect_download() as download:
        page.locator("#review-save").click()
    assert download.value.suggested_filename == "review.geojson"
    path = tmp_path / "review.geojson"
    download.value.save_as(path)
    found = {f"{each.pair_id}/{each.change}": each for each in read_review(here(path), "run")}
    assert {name: each.verdict for name, each in found.items()} == dict(
        zip(ids, ("accepted", "rejected", "unsure"), strict=True)
    )
    again = make_job(Workspace(here(tmp_path)), pair_id, 0 if pair_id == "p" else 1)
    bounds = found[ids[0]].outline(again.pair.grid).bounds
    sides = np.ptp([bounds[:2], bounds[2:]], axis=0)
    assert (sides >= 200).all(), "squares of 24 pixels of 10 m, or several of them"

    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#review-clear").click()
    assert page.locator("#review-state").inner_text().startswith("0 reviewed")
    page.locator("#review-load").set_input_files(path)
    expect(page.locator("#review-state")).to_contain_text("3 reviewed")
    path.write_text(json.dumps({"cdpipe": {"run": "other"}, "features": []}))
    page.locator("#review-load").set_input_files(path)
    expect(page.locator("#review-state")).to_contain_text("is no review of this report")
    context.close()
