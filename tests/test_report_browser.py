"""The report in a real browser, opened from disk: it works, keeps to itself, and everybody can use it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely.geometry
from browser import Watched, audit, open_browser
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect
from pyproj import Transformer
from reports import EVIL, make_job, make_page, make_report, make_report_files, write_report

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


def pixels(page: Page, box: tuple[float, float, float, float] | None = None) -> NDArray[np.uint8]:
    """What the stage shows, (height, width, 3); of a part of it, given as left, top, right and bottom shares."""
    image = cv2.imdecode(np.frombuffer(page.locator(".stage").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    left, top, right, bottom = box or (0, 0, 1, 1)
    height, width = image.shape[:2]
    return np.asarray(image[int(top * height) : int(bottom * height), int(left * width) : int(right * width)])


def place(page: Page) -> tuple[float, float]:
    """Column and row under the mouse."""
    told = page.locator("#where").inner_text()
    found = re.search(r"column (\d+), row (\d+)", told)
    assert found, told
    return int(found[1]), int(found[2])


def test_the_map_is_moved_and_zoomed_by_mouse_and_keys(browser: Browser, folder: Path) -> None:
    """Where the mouse is stays where it is; columns and rows, and degrees, are those of the grid."""
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    page = Watched(context, folder / "pairs" / "p.html").page
    box = page.locator(".stage").bounding_box()
    assert box
    at = box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.6
    page.mouse.move(*at)
    col, row = place(page)
    assert abs(row - 0.6 * 140) <= 1
    lat, lon = map(float, re.findall(r"([\d.]+)° [NE]", page.locator("#where").inner_text()))
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True).transform(lon, lat)
    grid = make_job(Workspace(here(folder.parent / "again")), "p", 0).pair.grid
    assert grid.row_col(x, y) == pytest.approx((row, col), abs=1.5)
    page.mouse.wheel(0, -400)
    page.mouse.move(at[0] + 1, at[1])
    near = place(page)
    assert max(abs(near[0] - col), abs(near[1] - row)) <= 1, "what is under the mouse stays there"
    page.mouse.down()
    page.mouse.move(at[0] + 60, at[1] + 40, steps=3)
    page.mouse.up()
    moved = place(page)
    assert max(abs(moved[0] - near[0]), abs(moved[1] - near[1])) <= 1, "what was seized goes with the mouse"
    canvas = page.locator("canvas")
    canvas.focus()
    page.keyboard.press("0")
    assert place(page) == (90, 70), "the whole scene, its middle in the middle"
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    assert place(page)[0] > 90
    scrolled = page.evaluate("scrollY")
    page.keyboard.press("0")
    page.mouse.move(at[0], at[1] + 5)
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") > scrolled, "where all is seen the wheel goes on with the page"
    context.close()


def test_two_fingers_zoom_and_one_moves_the_map_once_it_is_zoomed(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)  # type: ignore[arg-type]
    page = Watched(context, folder / "pairs" / "p.html").page
    stage = page.locator(".stage")
    assert stage.evaluate("e => getComputedStyle(e).touchAction") == "pan-y", "a finger scrolls the page"
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        touches = [{"x": left, "y": top, "id": number} for number, (left, top) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", (x - 30, y), (x + 30, y))
    for spread in (40, 60, 90):
        touch("touchMove", (x - spread, y), (x + spread, y))
    touch("touchEnd")
    expect(stage).to_have_class(re.compile("moved"))
    assert stage.evaluate("e => getComputedStyle(e).touchAction") == "none", "now a finger moves the map"
    x -= 70  # beside the line between the dates
    touch("touchStart", (x, y))
    first = place(page)
    for far in (20, 40):
        touch("touchMove", (x + far, y))
    touch("touchEnd")
    assert abs(place(page)[0] - first[0]) <= 2, "what was touched goes with the finger"
    context.close()


def test_dates_are_divided_and_layers_lie_over_them(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    page = Watched(context, folder / "pairs" / "p.html").page
    page.locator("#outlines").uncheck()
    whole = pixels(page)
    page.locator("#slider").focus()
    page.keyboard.press("Home")
    after = pixels(page)
    page.locator("canvas").focus()
    page.keyboard.press("b")
    page.keyboard.press("b")
    assert page.locator("input[name=mode]:checked").get_attribute("value") == "after"
    expect(page.locator(".tag.left")).to_be_hidden()
    width = whole.shape[1]
    right = slice(width // 2 + 30, -60)
    assert np.abs(whole[:, right].astype(int) - after[:, right]).mean() < 1
    page.locator("input[name=mode][value=before]").check()
    expect(page.locator(".tag.right")).to_be_hidden()
    assert np.abs(pixels(page)[80:, right].astype(int) - after[80:, right]).mean() > 1, "the squares are of one date"
    page.locator("input[name=layer]").first.focus()
    page.keyboard.press("ArrowDown")
    red = (np.abs(pixels(page).astype(int) - (28, 25, 215)).max(axis=2) < 40).mean()
    assert red > 0.01, "detected change, in red"
    page.locator("#opacity").focus()
    page.keyboard.press("Home")
    assert (np.abs(pixels(page).astype(int) - (28, 25, 215)).max(axis=2) < 40).mean() < red / 10
    context.close()


def test_changes_are_outlined_at_the_start_and_tell_what_they_are(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    watched = Watched(context, folder / "pairs" / "q.html")
    page = watched.page
    outlined = pixels(page)
    page.locator("#outlines").uncheck()
    assert (outlined != pixels(page)).any(axis=2).mean() > 0.005
    page.locator("#outlines").check()
    total = len(page.locator(".gallery .change").all())
    assert page.locator("#pick-count").inner_text() == f"{total} changes"
    page.locator("#pick-next").click()
    assert page.locator("#pick-count").inner_text() == f"1 of {total}"
    first = page.locator(".gallery .change").first.get_attribute("data-change")
    assert f"q/{page.locator('.pick h2').inner_text().removeprefix('Change ')}" == first
    yellow = (np.abs(pixels(page).astype(int) - (0, 212, 255)).max(axis=2) < 60).mean()
    assert yellow > 0.001, "the chosen one, in yellow"
    page.keyboard.press("Escape")
    page.locator("canvas").focus()
    page.keyboard.press("Escape")
    assert not page.locator(".pick .change").is_visible()
    page.locator("#pick-next").click()
    box = page.locator(".stage").bounding_box()
    assert box
    page.locator("#pick-close").click()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 - 40)
    assert f"q/{page.locator('.pick h2').inner_text().removeprefix('Change ')}" == first, "it lay in the middle"
    facts = page.locator(".pick dl").inner_text()
    assert "ha" in facts
    assert "0.90 mean" in facts
    href = str(page.locator(".pick .osm").get_attribute("href"))
    assert re.fullmatch(r"https://www\.openstreetmap\.org/\?mlat=[\d.]+&mlon=[\d.]+#map=\d+/[\d.]+/[\d.]+", href)
    assert str(page.locator(".pick .geo").get_attribute("href")).startswith("geo:")
    assert audit(page) == []
    assert watched.foreign() == []
    context.close()


def test_a_change_of_the_gallery_is_shown_on_the_map(browser: Browser, folder: Path) -> None:
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    page = Watched(context, folder / "index.html").page
    card = page.locator(".change").first
    change = str(card.get_attribute("data-change"))
    card.locator("a.chip").click()
    page.wait_for_url("**/pairs/*.html#look-*")
    assert page.locator(".pick h2").inner_text() == f"Change {change.partition('/')[2]}"
    context.close()


def test_a_verdict_given_on_the_map_has_the_outline_of_the_change(browser: Browser, folder: Path) -> None:
    """As a card's has it, to a small part of a pixel of 10 m; and the card shows the verdict."""
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    page = Watched(context, folder / "pairs" / "p.html").page
    page.locator("#pick-next").click()
    change = str(page.locator(".pick .change").get_attribute("data-change"))
    drawn = shapely.geometry.shape(page.evaluate("id => outlineOf(id)", change))
    listed = json.loads(str(page.locator("#review-data").text_content()))
    card = shapely.geometry.shape(next(each["geometry"] for each in listed if each["id"] == change))
    assert drawn.symmetric_difference(card).area < 0.01 * card.area
    page.locator(".pick .verdict").get_by_text("Reject").click()
    assert page.locator(f".gallery [data-change='{change}'] input:checked").get_attribute("value") == "rejected"
    assert page.locator("#review-state").inner_text() == "1 reviewed: 0 accepted, 1 rejected, 0 unsure."
    context.close()


def test_single_pixels_are_loaded_where_somebody_looks(browser: Browser, tmp_path: Path) -> None:
    """Nothing of a pair before its page is open, no tile before it is looked at, and then those in view alone."""
    workspace = Workspace(here(tmp_path))
    page_of = make_page(make_job(workspace, "p", 0, (1290, 1600)), "p")
    report = workspace.run("run") / "report"
    write_report(report, make_report([page_of]))
    context = browser.new_context(viewport=WIDE)  # type: ignore[arg-type]
    watched = Watched(context, (report / "index.html").local())
    assert not [url for url in watched.requests if "/tiles/" in url or "view.js" in url]
    watched = Watched(context, (report / "pairs" / "p.html").local())
    watched.page.wait_for_timeout(200)
    assert not [url for url in watched.requests if "/tiles/" in url]
    watched.page.locator("canvas").focus()
    for _ in range(4):
        watched.page.keyboard.press("+")
    watched.page.wait_for_timeout(300)
    tiles = {url.partition("/tiles/")[2] for url in watched.requests if "/tiles/" in url}
    assert any(name.startswith("after/1/") for name in tiles)
    assert len([name for name in tiles if name.startswith("after/1/")]) < 12, "not all of them"
    assert watched.errors == []
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
