"""The report as HTML: an index and a page for each pair, as files."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cdpipe.formats import palette
from cdpipe.keys import content_key
from cdpipe.report.facts import Report
from cdpipe.report.index_page import describe_index
from cdpipe.report.pair_page import describe_pair
from cdpipe.workspace.files import read_sealed, write_if_other, write_sealed
from cdpipe.workspace.location import Location
from cdpipe.workspace.records import hash_stored

TEMPLATES = Path(__file__).resolve().parent / "templates"
INDEX = "index.json"  # what index.html was made of
STYLES = ("base.css", "pictures.css")
SCRIPTS = ("table.js", "places.js", "tiles.js", "viewer.js")  # of every page; a report's have review.js, too
COLORS = {
    "changed": palette.CHANGED,
    "labelled": palette.LABELLED,
    "hit": palette.HIT,
    "miss": palette.MISS,
    "false-alarm": palette.FALSE_ALARM,
    "unlabelled": palette.UNLABELLED,
    "no-data": palette.NO_DATA_STRIPE,
}


@functools.cache
def templates() -> Environment:
    """Names of pairs are other people's text, so everything is escaped; a variable that is missing is a mistake."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True, slots=True)
class Page:
    """A page, before it is written. What it shows follows from its template and these values alone.

    Attributes:
        path: Its file.
        template: Name of its template.
        context: Everything that the template names, as JSON values.
    """

    path: Location
    template: str
    context: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Content key of the page."""
        return content_key(
            "page",
            {
                "file": self.path.name,
                "template": self.template,
                "templates": _templates_digest(),
                "context": dict(self.context),
            },
        )


def plan_pages(folder: Location, report: Report) -> list[Page]:
    """A page for each pair, in their order.

    Args:
        folder: The report's, in which pictures of pairs lie already.
        report: What to show.
    """
    neighbours = zip([None, *report.pairs], report.pairs, [*report.pairs[1:], None], strict=False)
    return [
        Page(
            folder / "pairs" / pair.page,
            "pair.html.j2",
            {"root": "../", **describe_pair(report, pair, (before, after))},
        )
        for before, pair, after in neighbours
    ]


def write_page(page: Page) -> dict[Location, str]:
    """Write a page, and beside it a project for QGIS where there is one; the same values give the same bytes.

    Returns:
        Every file with its SHA-256.
    """
    page.path.write(templates().get_template(page.template).render(page.context).encode())
    project, path = page.context.get("project"), project_path(page.path)
    if project is None:
        path.unlink(missing_ok=True)
        return hash_stored([page.path])
    path.write(templates().get_template("project.qgs.j2").render(project).encode())
    return hash_stored([page.path, path])


def project_path(page: Location) -> Location:
    """The project for QGIS beside a pair's page."""
    return page.with_suffix(".qgs")


def write_index(folder: Location, report: Report) -> Location:
    """Write the first page, and the style and the script of all.

    Args:
        folder: The report's.
        report: What to show.

    Returns:
        The page.
    """
    # here and not in the pages of pairs, each of which would be another with every pair that changes
    script = [f"const REPORT = {json.dumps(report.run['id'])};", make_script(), _read("review.js")]
    write_if_other(folder / "report.css", make_style().encode())
    write_if_other(folder / "report.js", "\n".join(script).encode())
    page = Page(folder / "index.html", "index.html.j2", {"root": "", **describe_index(report)})
    # no record of the workspace: it tells how long things took, which the same results need not have in common
    known, made = read_sealed(folder / INDEX), page.path.sha256() if page.path.is_file() else None
    if known != {"key": page.key, "sha256": made}:
        write_sealed(folder / INDEX, {"key": page.key, "sha256": write_page(page)[page.path]})
    return page.path


def make_style() -> str:
    """The style of all pages."""
    colors = "".join(f"--{name}: rgb({red} {green} {blue}); " for name, (red, green, blue) in COLORS.items())
    return "".join([f":root {{ {colors}}}\n", *map(_read, STYLES)])


def make_script() -> str:
    """The script of all pages, but for what is for a report alone."""
    return "\n".join(map(_read, SCRIPTS))


def _read(template: str) -> str:
    return (TEMPLATES / template).read_text(encoding="utf-8")


@functools.cache
def _templates_digest() -> str:
    """SHA-256 of all templates: a page is made of its own and of those that this one takes parts from."""
    sums = hashlib.sha256()
    for path in sorted(TEMPLATES.glob("*.j2")):
        sums.update(path.read_bytes())
    return sums.hexdigest()
