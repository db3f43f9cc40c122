"""``cdpipe view``: tiles are what rasterio reads, nobody else is answered, and mistakes are told in a line."""

import http.client
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from project import call
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from reports import CHANGE, make_job

from cdpipe.api.serving import Server
from cdpipe.api.view import View, answer, open_view
from cdpipe.errors import EXIT_CONFIG, EXIT_INPUT
from cdpipe.formats import palette
from cdpipe.geo.grid import Grid, Window
from cdpipe.report.drawing import stretch_between
from cdpipe.report.live import MAP_HALF, LivePair, draw_map_tile, draw_tile, list_live_levels
from cdpipe.report.pair import PairJob
from cdpipe.runs.manifest import Manifest, ManifestPair, write_manifest
from cdpipe.runs.rasters import PairRasters, write_rasters
from cdpipe.store.pair import read_dates
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import Location, here
from cdpipe.workspace.records import GROUP_RECORD, write_record
from cdpipe.workspace.remembered import forget_everything

SHAPE = (541, 707)  # neither side a multiple of a cell
TABLE = np.frombuffer(palette.MAGMA_FROM_BRIGHT, np.uint8).reshape(256, 3)
HERE = "127.0.0.1:1"


def publish(workspace: Workspace, job: PairJob) -> None:
    """The pair's rasters and a manifest that lists them, as a run leaves them."""
    rasters = PairRasters(workspace, "run", job.pair, CHANGE, (), {})
    (workspace.run("run") / "rasters").local().mkdir(parents=True, exist_ok=True)
    files = {path.relative_to(workspace.root): sha for path, sha in write_rasters(rasters).items()}
    assert job.objects
    vectors = {job.objects[0].relative_to(workspace.root): job.objects[1]}
    pair = ManifestPair(job.pair.pair_id, "test", job.pair.key, job.label_key, {"net": "0"}, CHANGE, files, vectors)
    lost = {"lost": "no pixel is observed at both dates"}
    write_manifest(workspace.run("run"), Manifest("run", [], "mean", 0.5, "x", [pair], lost))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(here(tmp_path_factory.mktemp("view") / "work"))
    publish(made, make_job(made, "p", 0, SHAPE))
    return made


@pytest.fixture(scope="module")
def view(workspace: Workspace) -> View:
    return open_view(workspace.run("run"))


@pytest.fixture(scope="module")
def live(view: View) -> LivePair:
    return view.listing().pairs["p"][1]


def whole(live: LivePair, layer: str, cell: int = 1) -> NDArray[np.uint8]:
    """All tiles of a level side by side: (rows, cols, 4)."""
    side = 512 * cell
    lines = [
        [draw_tile(live, layer, cell, row, col) for col in range(-(-SHAPE[1] // side))]
        for row in range(-(-SHAPE[0] // side))
    ]
    return np.vstack([np.hstack([tile for tile in line if tile is not None]) for line in lines])


def raster(workspace: Workspace, name: str) -> NDArray[Any]:
    with rasterio.open(str(workspace.run("run") / "rasters" / f"p_{name}.tif")) as dataset:
        return np.asarray(dataset.read(1))


def test_tiles_are_the_published_rasters_pixel_by_pixel(workspace: Workspace, live: LivePair) -> None:
    change, drawn = raster(workspace, "change"), whole(live, "change")
    assert (change == 1).any()
    assert np.array_equal(drawn[..., 3], np.where(change == 1, 255, 0))
    assert (drawn[change == 1][:, :3] == palette.CHANGED).all()
    probability, drawn = raster(workspace, "probability"), whole(live, "probability")
    seen = ~np.isnan(probability)
    assert np.array_equal(drawn[..., 3], np.where(seen, 255, 0))
    assert np.array_equal(drawn[seen][:, :3], TABLE[np.rint(probability[seen] * 255).astype(int)])


def test_dates_are_those_of_the_store_and_see_through_where_they_have_no_data(live: LivePair) -> None:
    window = Window(0, 0, *SHAPE)
    for number, (date, pixels) in enumerate(
        zip(("before", "after"), read_dates(live.workspace, live.pair, window), strict=True)
    ):
        quantiles = live.pair.levels["per_date"][number]
        limits = tuple((levels[0], levels[-1]) for levels in quantiles)
        drawn = whole(live, date)
        seen = np.ones(SHAPE, bool)
        seen[: SHAPE[0] // 4] = date == "after"
        assert np.array_equal(drawn[..., 3], np.where(seen, 255, 0))
        assert np.array_equal(drawn[seen][:, :3], stretch_between(pixels, limits)[seen])


def test_coarser_tiles_are_means_of_what_was_observed(workspace: Workspace, live: LivePair) -> None:
    """As rasterio averages the raster without its nodata, cell by cell, at the edge of the cells that are whole."""
    assert list_live_levels(SHAPE) == [1, 2]
    drawn = whole(live, "probability", 2)
    assert drawn.shape[:2] == (271, 354)
    probability = raster(workspace, "probability")
    padded = np.pad(probability, ((0, 1), (0, 1)), constant_values=np.nan).reshape(271, 2, 354, 2)
    seen = ~np.isnan(padded)
    counts = seen.sum((1, 3))
    means = np.where(counts > 0, np.nansum(padded, (1, 3), dtype=np.float64) / np.maximum(counts, 1), 0)
    inside = np.pad(np.ones(SHAPE), ((0, 1), (0, 1))).reshape(271, 2, 354, 2).sum((1, 3))
    assert np.array_equal(drawn[..., 3], np.rint(255 * counts / inside))
    assert np.abs(drawn[counts > 0][:, :3].astype(int) - TABLE[np.rint(means[counts > 0] * 255).astype(int)]).max() <= 3
    change = np.pad(raster(workspace, "change") == 1, ((0, 1), (0, 1))).reshape(271, 2, 354, 2).sum((1, 3))
    drawn = whole(live, "change", 2)
    assert np.array_equal(drawn[..., 3] > 0, change > 0), "no pixel of change vanishes"


def test_tiles_of_the_webs_maps_are_what_gdal_warps(workspace: Workspace, live: LivePair) -> None:
    """Nearest pixels of the published raster in Web Mercator, but for those in the middle between two."""
    zoom, count = 13, 0
    lon, lat = 15.03, 36.12
    side = 2 * MAP_HALF / 2**zoom
    col = int((lon + 180) / 360 * 2**zoom)
    row = int((1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * 2**zoom)
    path = str(workspace.run("run") / "rasters" / "p_change.tif")
    for x, y in ((col, row), (col + 1, row), (col, row + 1)):
        left, top = x * side - MAP_HALF, MAP_HALF - y * side
        transform = from_bounds(left, top - side, left + side, top, 256, 256)
        with (
            rasterio.open(path) as dataset,
            WarpedVRT(
                dataset, crs="EPSG:3857", transform=transform, width=256, height=256, resampling=Resampling.nearest
            ) as vrt,
        ):
            warped = vrt.read(1)
        drawn = draw_map_tile(live, "change", zoom, x, y)
        assert drawn is not None
        assert ((drawn[..., 3] > 0) != (warped == 1)).mean() < 0.002
        count += int((warped == 1).sum())
    assert count > 200, "there was something to see"
    far = draw_map_tile(live, "before", zoom, 0, 0)
    assert far is not None
    assert not far.any()
    world = draw_map_tile(live, "probability", 5, col >> 8, row >> 8)
    assert world is not None
    assert 0 < (world[..., 3] > 0).sum() < 20
    assert draw_map_tile(live, "before", 3, 8, 0) is None


def test_pages_list_the_pairs_and_have_the_reports_map(view: View) -> None:
    index = answer(view, "/", HERE).body.decode()
    assert '<a href="pairs/p.html">p</a>' in index
    assert "no pixel is observed at both dates" in index
    assert "locator" in index
    page = answer(view, "/pairs/p.html", HERE).body.decode()
    assert f'src="../data/p/{CHANGE}/view.js"' in page
    assert f"http://{HERE}/maps/p/outcomes/{{z}}/{{x}}/{{y}}.png" in page
    script = answer(view, f"/data/p/{CHANGE}/view.js", HERE).body.decode()
    assert '"rings":[[' in script
    tile = answer(view, f"/data/p/{CHANGE}/tiles/change/1/0-1.webp", HERE)
    image = cv2.imdecode(np.frombuffer(tile.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    live = view.listing().pairs["p"][1]
    drawn = draw_tile(live, "change", 1, 0, 1)
    assert drawn is not None
    assert np.array_equal(image[..., 3], drawn[..., 3])


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/pairs/other.html", 404),
        ("/../../../etc/passwd", 404),
        ("/data/..%2f..%2f/0/view.js", 404),
        ("/pairs/..%2f..%2fmanifest.html", 404),
        ("/data/p/000000000000/view.js", 410),
        ("/data/p/000000000000/tiles/change/1/0-0.webp", 410),
        (f"/data/p/{CHANGE}/tiles/model/1/0-0.webp", 404),
        (f"/data/p/{CHANGE}/tiles/change/3/0-0.webp", 404),
        (f"/data/p/{CHANGE}/tiles/change/1/9-0.webp", 404),
        (f"/data/p/{CHANGE}/tiles/change/1/٣-0.webp", 404),
        ("/maps/p/change/30/0/0.png", 404),
        ("/maps/q/change/3/0/0.png", 404),
        ("/report.css?x=1", 200),
    ],
)
def test_what_is_not_there_is_said_to_be_so(view: View, address: str, status: int) -> None:
    assert answer(view, address, HERE).status == status


@pytest.fixture(scope="module")
def server(view: View) -> Iterator[Server]:
    with Server(view, 0) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: Server, method: str, address: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)  # type: ignore[arg-type]
    connection.request(method, address, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    found = response.status, dict(response.headers), response.read()
    connection.close()
    return found


def test_it_listens_on_loopback_and_answers_nobody_who_came_by_another_name(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, headers, body = ask(server, "GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert b"pairs/p.html" in body
    assert ask(server, "HEAD", "/")[::2] == (200, b"")
    assert ask(server, "GET", "/report.js", "localhost:9000")[0] == 200
    page = ask(server, "GET", "/pairs/p.html", "localhost:9000")[2]  # as through a tunnel
    assert b"http://localhost:9000/maps/p/change/" in page
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost:9000@evil.example", "", "0.0.0.0"):  # noqa: S104 (a name that is refused)
        assert ask(server, "GET", "/", host)[0] == 403, host
    assert ask(server, "POST", "/")[0] == 501
    assert b"passwd" in ask(server, "GET", "/../../etc/passwd")[2]


def test_what_is_damaged_is_told_once(tmp_path: Path) -> None:
    workspace, said = Workspace(here(tmp_path)), list[str]()
    publish(workspace, make_job(workspace, "p", 0))
    view = open_view(here(tmp_path), say=said.append)
    stored = workspace.group("changes", "p", CHANGE).local() / "change" / "c" / "0" / "0"
    stored.write_bytes(stored.read_bytes()[:-20])
    for _ in range(2):
        found = answer(view, f"/data/p/{CHANGE}/tiles/change/1/0-0.webp", HERE)
        assert found.status == 500
        assert b"run cdpipe verify" in found.body
    assert len(said) == 1
    assert said[0].startswith("view: ")


def test_pairs_without_georeference_are_shown_by_columns_and_rows(tmp_path: Path) -> None:
    workspace = Workspace(here(tmp_path))
    job = make_job(workspace, "p", 0)
    pair = replace(job.pair, grid=Grid(*job.pair.grid.shape))
    write_record(workspace.records("pairs", "p", pair.key) / GROUP_RECORD, workspace.root, {}, pair.to_json())
    publish(workspace, job)
    view = open_view(here(tmp_path))
    assert "no georeference" in answer(view, "/", HERE).body.decode()
    page = answer(view, "/pairs/p.html", HERE).body.decode()
    assert "No georeference: columns and rows." in page
    assert "/maps/" not in page
    assert answer(view, "/maps/p/change/3/0/0.png", HERE).status == 404
    assert answer(view, f"/data/p/{CHANGE}/view.js", HERE).status == 200
    assert answer(view, f"/data/p/{CHANGE}/tiles/after/1/0-0.webp", HERE).status == 200


def test_a_run_in_a_bucket_is_shown_by_its_address(workspace: Workspace, bucket: Location) -> None:
    for path, _ in workspace.root.walk():
        (bucket / "work" / path.relative_to(workspace.root)).write(path.read_bytes())
    forget_everything()
    view = open_view(bucket / "work" / "runs" / "run")
    tile = f"/data/p/{CHANGE}/tiles/before/2/0-0.webp"
    assert answer(view, tile, HERE).body == answer(open_view(workspace.run("run")), tile, HERE).body
    assert '"rings":[[' in answer(view, f"/data/p/{CHANGE}/view.js", HERE).body.decode()


def test_mistakes_are_a_line_and_an_exit_code(workspace: Workspace, tmp_path: Path, server: Server) -> None:
    folder, taken = str(workspace.root), str(server.server_address[1])
    for arguments, code, text in (
        ([str(tmp_path / "none")], EXIT_INPUT, "got no folder"),
        ([str(tmp_path)], EXIT_INPUT, "expected a configuration, or a run's folder"),
        ([str(tmp_path / "none.yaml")], EXIT_CONFIG, "none.yaml"),
        ([folder, "--port", taken], EXIT_CONFIG, f"--port {taken}: expected a port that is free"),
        ([folder, "--set", "name=x"], EXIT_CONFIG, "--set is for a configuration"),
    ):
        found = call(["view", *arguments])
        assert (found.code, found.err.count("\n")) == (code, 1), found
        assert text in found.err
    other = Workspace(here(tmp_path))
    write_manifest(other.run("empty"), Manifest("empty", [], "mean", 0.5, "x", [], {"p": "has no overlap"}))
    found = call(["view", str(tmp_path)])
    assert (found.code, found.err.count("\n")) == (EXIT_INPUT, 1)
    assert "p: has no overlap" in found.err
    write_manifest(other.run("more"), Manifest("more", [], "mean", 0.5, "x", []))
    assert "has 2 runs; name one of" in call(["view", str(tmp_path)]).err


def test_the_map_works_in_a_browser_and_asks_for_nothing_beyond_the_server(server: Server) -> None:
    """Dates, change and stripes where the first date has no data; places under the mouse; no other address."""
    browsers = pytest.importorskip("browser", reason="playwright is not installed")
    with browsers.open_browser() as browser:
        page, asked, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda response: wrong.append(response.url) if response.status >= 400 else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"http://{server.host}/pairs/p.html")
        page.locator(".busy").wait_for(state="hidden")
        before = pixels(page)
        height, width = before.shape[:2]
        stripes = before[height // 12 : height // 6, width // 8 : width // 4]
        colors = {tuple(map(int, color)) for color in stripes.reshape(-1, 3)}
        assert {palette.NO_DATA, palette.NO_DATA_STRIPE} <= colors
        page.locator("input[name=layer][value=change]").check()
        page.locator("#outlines").uncheck()
        page.wait_for_function("!document.querySelector('.busy').checkVisibility()")
        red = (np.abs(pixels(page).astype(int) - palette.CHANGED).max(axis=2) < 40).mean()
        assert red > 0.001
        page.mouse.move(400, 400)
        assert re.search(r"° N, .*° E.*column \d+, row \d+", page.locator("#where").inner_text())
        assert browsers.audit(page) == []
    assert wrong == []
    assert all(url.startswith((f"http://{server.host}/", "data:")) for url in asked)
    assert any("/tiles/change/" in url for url in asked)


def pixels(page: Any) -> NDArray[np.uint8]:
    """What the stage shows: (height, width, 3) red, green, blue."""
    image = cv2.imdecode(np.frombuffer(page.locator(".stage").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1])


HEARD = """
import signal, sys
from cdpipe.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # which what shells start in the background ignores
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_is_how_it_ends(workspace: Workspace, how: signal.Signals) -> None:
    command = [sys.executable, "-c", HEARD, "view", str(workspace.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stderr
            line = process.stdout.readline()
            assert re.fullmatch(r"view: http://127\.0\.0\.1:\d+/ shows .+; Ctrl-C ends it\n", line)
            process.send_signal(how)
            assert (process.wait(60), process.stderr.read()) == (0, "")
        finally:
            process.kill()
