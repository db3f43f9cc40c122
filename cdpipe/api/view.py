"""A finished run to look at while a server runs: which pairs it has, and the answer to every address it knows."""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import cv2

from cdpipe.api.opening import open_run
from cdpipe.errors import CdpipeError, ConfigError, InputError
from cdpipe.formats.vectors import SUFFIXES
from cdpipe.geo.crs import on_earth
from cdpipe.pairs.catalog import read_catalog
from cdpipe.pairs.grouping import group_findings
from cdpipe.processors import usable_cpus
from cdpipe.report import drawing
from cdpipe.report.changes import Ranked, outline_changes, rank_changes
from cdpipe.report.facts import PairPage
from cdpipe.report.live import LivePair, Overlay, describe_live_view, draw_map_tile, draw_tile
from cdpipe.report.locator import draw_locator
from cdpipe.report.pages import make_script, make_style, templates
from cdpipe.report.pair_page import describe_viewer
from cdpipe.report.place import describe_ground, describe_place
from cdpipe.runs.manifest import ManifestPair, read_manifest
from cdpipe.store.pair import load_pair
from cdpipe.version import __version__
from cdpipe.workspace.files import read_json
from cdpipe.workspace.layout import Workspace
from cdpipe.workspace.location import AT_ONCE, Location
from cdpipe.workspace.remembered import Remembered

CONFIGURATIONS = (".yaml", ".yml")
OUTLINED = 5000  # changes of a pair, the best ones
LIVE_PHOTO = 78  # quality of tiles of pictures, which are see-through where there is no data
KEPT_TILES = 2000  # that were drawn, of 100 KB at most
FRESH = 10.0  # seconds that what a run has is taken for what it had
Parts = Mapping[str, str]  # of an address
HTML, CSS, JAVASCRIPT = (f"text/{kind}; charset=utf-8" for kind in ("html", "css", "javascript"))
TEXT, WEBP, PNG = "text/plain; charset=utf-8", "image/webp", "image/png"
TITLES = {
    "before": "Before",
    "after": "After",
    "change": "Detected change",
    "probability": "Probability of change",
    "label": "Labelled change",
    "outcomes": "Hits and misses",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says.

    Attributes:
        status: By HTTP.
        kind: MIME type.
        body: What it is.
        lasting: Whether it is the same as long as its address is.
    """

    status: HTTPStatus
    kind: str
    body: bytes
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What a run has at a time.

    Attributes:
        pairs: What the manifest says of each pair that can be shown, and the pair, by its id.
        lost: Why others cannot be shown, by their ids.
    """

    pairs: Mapping[str, tuple[ManifestPair, LivePair]]
    lost: Mapping[str, str]


@dataclass(slots=True)
class View:
    """A run that is looked at. Threads share it.

    Attributes:
        workspace: Where it lies.
        name: The run's name.
        names: What its owner calls a pair, by its id, as far as that is known.
        say: Told what could not be drawn, once each.
        told: What was told.
        tiles: Tiles that were drawn, by their address; those asked for last are at the end.
        changes: The best changes of a pair and how many there are, by the pair and the key of its change.
        listed: What the run had lately.
        lock: Held while tiles, or what was told, are changed.
        places: To draw in, as many as there are cores.
    """

    workspace: Workspace
    name: str
    names: Mapping[str, str]
    say: Callable[[str], None]
    told: set[str] = field(default_factory=set)
    tiles: "OrderedDict[tuple[str | int, ...], Answer]" = field(default_factory=OrderedDict)
    changes: dict[tuple[str, str], tuple[list[Ranked], int | None]] = field(default_factory=dict)
    listed: Remembered[str, Listing] = field(default_factory=lambda: Remembered(FRESH))
    lock: threading.Lock = field(default_factory=threading.Lock)
    places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(usable_cpus()))

    @property
    def folder(self) -> Location:
        """The run's folder."""
        return self.workspace.run(self.name)

    def listing(self) -> Listing:
        """What the run has.

        Raises:
            InputError: If it has nothing.
        """
        return self.listed.get(self.name, lambda: _list_pairs(self))


def open_view(place: Location, overrides: Sequence[str] = (), say: Callable[[str], None] = print) -> View:
    """Find a run to look at.

    Args:
        place: A configuration, or the run's folder; or a workspace, or what ``predict --out`` wrote, with one run.
        overrides: Of the configuration's keys.
        say: Told later on what cannot be drawn.

    Raises:
        ConfigError: If the configuration has mistakes, or there is none to override keys of.
        InputError: If there is no run, or nothing in it.
    """
    if place.suffix.lower() in CONFIGURATIONS:
        run = open_run(place.local(), overrides=overrides)
        view = View(run.workspace, run.config.name, {}, say)
        try:
            view.names = {pair.pair_id: pair.name for pair in read_catalog(run.config)}
        except CdpipeError as error:
            say(f"view: pairs go by their ids: {error}")
    else:
        if overrides:
            raise ConfigError(f"--set is for a configuration; got the folder {place}")
        folder = _find_run(place)
        view = View(Workspace(folder.parent.parent), folder.name, {}, say)
    found = view.listing()
    if not found.pairs:
        reasons = "; ".join(map(str, group_findings(found.lost.items())))
        raise InputError(f"run {view.name} has no pair to show in {view.folder}{': ' if reasons else ''}{reasons}")
    return view


def _find_run(place: Location) -> Location:
    folder = place.resolve()
    if (folder / "manifest.json").is_file():
        return folder
    found = sorted(
        {each.parent for base in (folder, folder / "work") for each in (base / "runs").glob("*/manifest.json")}
    )
    if not found:
        raise InputError(
            f"{place}: expected a configuration, or a run's folder with its manifest.json, as work/runs/NAME; "
            f"got {'a folder without one' if folder.is_dir() else 'no folder'}; cdpipe predict makes runs"
        )
    if len(found) > 1:
        raise InputError(f"{place}: has {len(found)} runs; name one of {', '.join(map(str, found))}")
    return found[0]


def _list_pairs(view: View) -> Listing:
    manifest = read_manifest(view.folder)
    if manifest is None:
        raise InputError(f"run {view.name} has no manifest in {view.folder}; run cdpipe predict first")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda listed: _load(view, listed), manifest.pairs))
    pairs, lost = {}, dict(manifest.failed)
    for listed, each in zip(manifest.pairs, found, strict=True):
        if isinstance(each, LivePair):
            pairs[listed.pair_id] = listed, each
        else:
            lost[listed.pair_id] = each
    return Listing(pairs, lost)


def _load(view: View, listed: ManifestPair) -> LivePair | str:
    """A pair, or why it cannot be shown."""
    try:
        stored = load_pair(view.workspace, listed.pair_id, listed.pair)
    except CdpipeError as error:
        return str(error).removeprefix(f"pair {listed.pair_id}: ")
    if stored is None:
        return "is not in the store any more; run cdpipe ingest"
    return LivePair(view.workspace, stored, listed.change, listed.label)


# Addresses


def answer(view: View, address: str, host: str) -> Answer:
    """What there is at an address; every name in it is looked up, so that none leads anywhere else.

    Args:
        view: The run.
        address: As it was asked for, from its first slash on.
        host: Where the server is, for addresses that others are given.
    """
    path = unquote(address.partition("?")[0])
    try:
        for pattern, make in ROUTES:
            match = pattern.fullmatch(path)
            if match:
                return make(view, host, match.groupdict())
    except CdpipeError as error:
        return _failed(view, str(error))
    return _missing(path)


def _failed(view: View, reason: str) -> Answer:
    with view.lock:
        new = reason not in view.told
        view.told.add(reason)
    if new:
        view.say(f"view: {reason}")
    return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, f"{reason}\n".encode())


def _missing(path: str) -> Answer:
    return Answer(HTTPStatus.NOT_FOUND, TEXT, f"there is no {path!a} here\n".encode())


def _renewed(pair: str) -> Answer:
    return Answer(HTTPStatus.GONE, TEXT, f"pair {pair} was predicted anew, or is gone: load the page again\n".encode())


def _index(view: View, _host: str, _parts: Parts) -> Answer:
    found = view.listing()
    pages = [_page(view, *each) for each in found.pairs.values()]
    context = {
        "map": draw_locator(pages),
        "pairs": [_row(page) for page in pages],
        "dated": any(any(page.dates) for page in pages),
        "split": any(page.split for page in pages),
        "lost": [{"pair_id": pair_id, "reason": reason} for pair_id, reason in found.lost.items()],
    }
    return _render(view, "live_index.html.j2", {"root": "", **context})


def _page(view: View, listed: ManifestPair, live: LivePair) -> PairPage:
    told = read_json(view.workspace.group("pairs", listed.pair_id, listed.pair) / "zarr.json") or {}
    before, after = told.get("attributes", {}).get("dates") or (None, None)
    grid = live.pair.grid
    facts = {
        "size": list(grid.shape),
        "cell": 1,
        "cells": list(grid.shape),
        **describe_ground(grid),
        "place": describe_place(grid),
        "labelled": live.label_key is not None,
        "figures": {},
        "tiles": (1, 0),
    }
    return PairPage(
        pair_id=listed.pair_id,
        name=view.names.get(listed.pair_id, listed.pair_id),
        split=listed.split or "",
        dates=(before or "", after or ""),
        sensors=("", ""),
        facts=facts,
        files=(),
        models=len(listed.probabilities),
    )


def _row(page: PairPage) -> dict[str, Any]:
    (height, width), pixel_m = page.facts["size"], page.facts["pixel_m"]
    return {
        "page": page.page,
        "name": page.name,
        "dates": page.dates,
        "split": page.split,
        "pixels": height * width,
        "size": f"{width:,} × {height:,}",
        "pixel_m": pixel_m,
        "pixel": "" if pixel_m is None else f"{pixel_m:.3g} m",
        "crs": page.facts["place"].get("crs", "no georeference"),
    }


def _render(view: View, template: str, context: Mapping[str, Any]) -> Answer:
    run = {"name": view.name, "version": __version__, "folder": str(view.folder)}
    return Answer(HTTPStatus.OK, HTML, templates().get_template(template).render({"run": run, **context}).encode())


def _pair(view: View, host: str, parts: Parts) -> Answer:
    pairs, pair = view.listing().pairs, parts["pair"]
    if pair not in pairs:
        return _missing(f"/pairs/{pair}.html")
    (listed, live), order = pairs[pair], list(pairs)
    page = _page(view, listed, live)
    changes, total = _changes(view, listed, live)
    at = order.index(pair)
    before, after = order[at - 1] if at else None, order[at + 1] if at + 1 < len(order) else None
    facts = {**page.facts, "object_count": total, "outlined": len(changes)}
    shown = describe_viewer(pair, facts, page.dates, page.models)
    earth = on_earth(live.pair.grid.crs)
    maps = [
        {"name": TITLES[layer], "address": f"http://{host}/maps/{pair}/{layer}/{{z}}/{{x}}/{{y}}.png"}
        for layer in (live.layers if earth else ())
    ]
    context = {
        "previous": before and {"page": f"{before}.html", "name": view.names.get(before, before)},
        "next": after and {"page": f"{after}.html", "name": view.names.get(after, after)},
        "pair": {**shown, "name": page.name, "live": True, "verdicts": False},
        "images": f"../data/{pair}/{live.change_key}/",
        "maps": maps,
    }
    return _render(view, "live_pair.html.j2", {"root": "../", **context})


def _changes(view: View, listed: ManifestPair, live: LivePair) -> tuple[list[Ranked], int | None]:
    """The best changes of a pair, and how many there are; None where it has no layer of them."""
    key = listed.pair_id, listed.change
    if key not in view.changes:
        files = [view.workspace.root / name for name in listed.vectors]
        layers = [file for file in files if file.suffix in SUFFIXES.values() and file.is_file()]
        view.changes[key] = rank_changes(layers[0], live.pair.grid, OUTLINED) if layers else ([], None)
    return view.changes[key]


def _script_of_pair(view: View, _host: str, parts: Parts) -> Answer:
    found = view.listing().pairs.get(parts["pair"])
    if found is None or found[0].change != parts["key"]:
        return _renewed(parts["pair"])
    changes, _ = _changes(view, *found)
    described = describe_live_view(found[1], outline_changes(changes, found[1].pair.grid))
    text = f"const VIEW = {json.dumps(described, separators=(',', ':'))};\n"
    return Answer(HTTPStatus.OK, JAVASCRIPT, text.encode())


def _tile(view: View, _host: str, parts: Parts) -> Answer:
    pair, layer = parts["pair"], parts["layer"]
    place = [int(parts[name]) for name in ("cell", "row", "col")]
    found = view.listing().pairs.get(pair)
    if found is None or found[0].change != parts["key"]:
        return _renewed(pair)

    def encode(image: Overlay) -> bytes:
        return drawing.encode_overlay(image, LIVE_PHOTO if layer in drawing.PHOTOS else drawing.LOSSLESS)

    return _drawn(view, (pair, parts["key"], layer, *place), WEBP, lambda: draw_tile(found[1], layer, *place), encode)


def _map_tile(view: View, _host: str, parts: Parts) -> Answer:
    pair, layer = parts["pair"], parts["layer"]
    place = [int(parts[name]) for name in ("zoom", "col", "row")]
    found = view.listing().pairs.get(pair)
    if found is None:
        return _missing(f"/maps/{pair}/")
    live = found[1]
    return _drawn(view, (pair, live.change_key, layer, *place), PNG, lambda: draw_map_tile(live, layer, *place), as_png)


def _drawn(
    view: View,
    name: tuple[str | int, ...],
    kind: str,
    draw: Callable[[], Overlay | None],
    encode: Callable[[Overlay], bytes],
) -> Answer:
    """A tile that was drawn lately, or a new one; what is not there is not kept."""
    key = kind, *name
    with view.lock:
        known = view.tiles.get(key)
        if known is not None:
            view.tiles.move_to_end(key)
            return known
    with view.places:
        image = draw()
    if image is None:
        return _missing("/".join(map(str, name)))
    made = Answer(HTTPStatus.OK, kind, encode(image), lasting=kind == WEBP)  # whose address has the key of its change
    with view.lock:
        view.tiles[key] = made
        while len(view.tiles) > KEPT_TILES:
            view.tiles.popitem(last=False)
    return made


def as_png(image: Overlay) -> bytes:
    """(height, width, 4) red, green, blue, opacity as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))
    if not done:
        raise ValueError(f"a picture could not be encoded: {image.shape} {image.dtype}")
    return data.tobytes()


def _style(_view: View, _host: str, _parts: Parts) -> Answer:
    return Answer(HTTPStatus.OK, CSS, make_style().encode())


def _script(_view: View, _host: str, _parts: Parts) -> Answer:
    return Answer(HTTPStatus.OK, JAVASCRIPT, make_script().encode())


# Pairs and keys are looked up in the manifest, layers in a list; numbers have nine digits at most.
_PAIR, _LAYER = r"(?P<pair>[\w.-]+)", r"(?P<layer>\w+)"
_PLACE = r"(?P<cell>\d{1,9})/(?P<row>\d{1,9})-(?P<col>\d{1,9})"
_MAP_PLACE = r"(?P<zoom>\d{1,2})/(?P<col>\d{1,9})/(?P<row>\d{1,9})"
ROUTES: Sequence[tuple[re.Pattern[str], Callable[[View, str, Parts], Answer]]] = [
    (re.compile(pattern, re.ASCII), make)
    for pattern, make in (
        (r"/", _index),
        (r"/report\.css", _style),
        (r"/report\.js", _script),
        (rf"/pairs/{_PAIR}\.html", _pair),
        (rf"/data/{_PAIR}/(?P<key>\w+)/view\.js", _script_of_pair),
        (rf"/data/{_PAIR}/(?P<key>\w+)/tiles/{_LAYER}/{_PLACE}\.webp", _tile),
        (rf"/maps/{_PAIR}/{_LAYER}/{_MAP_PLACE}\.png", _map_tile),
    )
]
