"""``cdpipe area``: the changed area of a run with its confidence interval, from labelled points."""

from pathlib import Path
from typing import Any

from rich.table import Table

from cdpipe.errors import InputError
from cdpipe.evaluation.area import estimate_area
from cdpipe.evaluation.area_sample import facts_path, read_answers, read_facts
from cdpipe.geo.crs import pixel_metres
from cdpipe.verbs.sample import find_populations
from cdpipe.verbs.session import Session
from cdpipe.workspace.local import write_json

ACCURACIES = {
    "users": "user's accuracy of change: of what is mapped as changed, so much has",
    "producers": "producer's accuracy of change: of what has changed, so much is mapped",
    "overall": "overall accuracy",
}


def run(session: Session) -> None:
    """Estimate and print; the figures are also written to ``area.json``.

    Raises:
        InputError: If the sample is of other results, or not all of it is labelled.
    """
    path: Path = session.request.sample
    beside, own = facts_path(path), session.run_folder / "area" / facts_path(path).name
    facts, points = read_facts(own if own.is_file() and not beside.is_file() else beside)
    populations = find_populations(session, facts["buffer"])
    _refuse_stale(session, path, facts["keys"], {name: each.change_key for name, each in populations.items()})
    degrees = len({each.pair.grid.crs for each in populations.values()}) > 1
    tolerances = {}
    for name, population in populations.items():
        metres = pixel_metres(population.pair.grid)
        tolerances[name] = max(metres) / 111_195 if degrees and metres else max(population.pair.grid.pixel_size)
    found = estimate_area(facts["areas"], points, read_answers(path, points, tolerances))
    if session.dry_run:
        session.say(f"area: {len(points)} labelled points of {len(populations)} pair(s)")
        return
    write_json(session.run_folder / "area" / "area.json", {**found, "unit": facts["unit"], "sample": path.name})
    _show(session, found, facts["unit"])


def _refuse_stale(session: Session, path: Path, drawn: dict[str, str], now: dict[str, str]) -> None:
    other = sorted(name for name in drawn.keys() | now.keys() if drawn.get(name) != now.get(name))
    if other:
        raise InputError(
            f"{path}: was drawn from other results than run {session.config.name} has now; {len(other)} pair(s) "
            f"differ, such as {', '.join(other[:5])}. Its strata are not those of this map: draw another with cdpipe "
            "sample, or go back to the configuration that it was drawn with"
        )


def _show(session: Session, found: dict[str, Any], unit: str) -> None:
    def area(value: float) -> str:
        return f"{value / 1e6:,.4g} km²" if unit == "m2" else f"{value:,.0f} pixels"

    estimated = found["area"]
    table = Table("", "estimate", "95 % interval", title="Changed area")
    table.add_row("from the sample", area(estimated["value"]), f"{area(estimated['low'])} to {area(estimated['high'])}")
    table.add_row("counted on the map", area(found["mapped_area"]), "none: its errors are unknown")
    for name, text in ACCURACIES.items():
        each = found[name]
        table.add_row(text, f"{each['value']:.3f}", f"{each['low']:.3f} to {each['high']:.3f}")
    session.console.print(table)
    for warning in found["warnings"]:
        session.say(f"area: {warning}")
    session.say(f"area: figures in {session.run_folder / 'area' / 'area.json'}")
