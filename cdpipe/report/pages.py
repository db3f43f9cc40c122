"""The report as HTML: an index and a page a pair, made of templates, beside one style and one script."""

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cdpipe.formats import palette
from cdpipe.report.content import Report, describe_index, describe_pair
from cdpipe.workspace.local import write_atomically

TEMPLATES = Path(__file__).resolve().parent / "templates"
STYLES, SCRIPTS = ("base.css", "pictures.css"), ("table.js", "viewer.js", "review.js")
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
def _templates() -> Environment:
    """Names of pairs are other people's text, so everything is escaped; a variable that is missing is a mistake."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_report(folder: Path, report: Report) -> Path:
    """Write all pages, the style and the script; pages of pairs that are no longer there go.

    Args:
        folder: The report's, in which pictures of pairs lie already.
        report: What to show; the same gives the same bytes.

    Returns:
        The index.
    """
    palette = "".join(f"--{name}: rgb({red} {green} {blue}); " for name, (red, green, blue) in COLORS.items())
    style = [f":root {{ {palette}}}\n", *((TEMPLATES / name).read_text(encoding="utf-8") for name in STYLES)]
    write_atomically(folder / "report.css", "".join(style).encode())
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    write_atomically(folder / "report.js", script.encode())
    kept = set()
    for before, pair, after in zip([None, *report.pairs], report.pairs, [*report.pairs[1:], None], strict=False):
        _write(folder / "pairs" / pair.page, "pair.html.j2", root="../", **describe_pair(report, pair, (before, after)))
        kept.add(pair.page)
    for path in (folder / "pairs").glob("*.html"):
        if path.name not in kept:
            path.unlink()
    _write(folder / "index.html", "index.html.j2", root="", **describe_index(report))
    return folder / "index.html"


def _write(path: Path, template: str, **context: Any) -> None:
    write_atomically(path, _templates().get_template(template).render(context).encode())
