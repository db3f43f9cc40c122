"""``cdpipe area``: the changed area of a run with its confidence interval, from labelled points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from cdpipe.cli.console import progress
from cdpipe.cli.session import Session
from cdpipe.cluster.tasks import map_pairs
from cdpipe.errors import ConfigError, InputError
from cdpipe.evaluation.area import allocate, estimate_area, points_needed
from cdpipe.evaluation.area_sample import (
    STRATA,
    Population,
    draw_pixels,
    facts_path,
    measure_strata,
    place_points,
    read_answers,
    read_facts,
    share_out,
    write_sample,
)
from cdpipe.geo.ground import DEGREE_METRES, pixel_metres
from cdpipe.runs.pairs import finished_run, run_pairs
from cdpipe.workspace.files import write_json
from cdpipe.workspace.location import here

# ``cdpipe sample``: points of a run, drawn at random from its strata, for somebody to label.

# User's accuracies to be expected, by which a sample's size is planned (Olofsson et al. 2014, section 5.1.1): change
# is mapped worse than what has not changed, and worst beside it.
EXPECTED = (0.95, 0.7, 0.7)


def run_sample(session: Session) -> None:
    """Draw a sample and write it.

    Raises:
        ConfigError: If the sample would lie in object storage.
        InputError: If there is no finished run, nothing of it was observed, or the sample exists already.
    """
    request = session.request
    populations = find_populations(session, request.buffer)
    default = session.run_folder / "area" / "sample.gpkg"
    if request.out is None and default.far:
        raise ConfigError(f"sample: the run lies in object storage, {default}; give --out FILE.gpkg on this machine")
    path: Path = request.out or default.local()
    if session.dry_run:
        session.say(f"sample: {len(populations)} pair(s), points to {path}")
        return
    if path.exists():
        raise InputError(f"{path} exists, and may have labels in it; move it away or choose another name with --out")
    session.start_ray()
    sizes = list(_map(session, "sample: pairs measured", measure_strata, populations).values())
    areas, pixels = (np.array([getattr(each, name) for each in sizes]).sum(axis=0) for name in ("areas", "pixels"))
    if not pixels.any():
        raise InputError(f"run {session.config.name}: no pixel was observed at both dates; there is nothing to sample")
    weights = areas / areas.sum()
    wanted = request.points or points_needed(weights, np.array(EXPECTED), request.standard_error)
    points = allocate(weights, wanted)
    shares = [share_out(sizes, stratum, number, request.seed) for stratum, number in enumerate(points)]
    jobs = {
        name: (population, tuple(share[place] for share in shares), (request.seed, place))
        for place, (name, population) in enumerate(populations.items())
        if any(share[place] for share in shares)
    }
    drawn = _map(session, "sample: pairs drawn from", lambda job: draw_pixels(*job), jobs)
    listed = [(pair_id, *pixel) for pair_id, found in sorted(drawn.items()) for pixel in found]
    order = np.random.default_rng([request.seed, len(STRATA)]).permutation(len(listed))
    grids = {name: population.pair.grid for name, population in populations.items()}
    placed, crs = place_points([listed[place] for place in order], grids)
    facts = {
        "run": session.config.name,
        "keys": {name: population.change_key for name, population in populations.items()},
        "seed": request.seed,
        "buffer": request.buffer,
        "areas": areas.tolist(),
        "unit": "m2" if crs else "pixels",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sample(path, placed, crs, facts)
    for stratum, name in enumerate(STRATA):
        if pixels[stratum]:
            session.say(f"  {name}: {weights[stratum]:.2%} of the area, {sum(shares[stratum])} points")
    session.say(f"sample: {len(placed)} points in {path}")
    session.say("  label each in a GIS, without looking at the result: column change = 0, 1 or unsure")
    session.say(f"  then run cdpipe area CONFIG {path}")


def find_populations(session: Session, buffer: float) -> dict[str, Population]:
    """The run's pairs in the order of their ids.

    Raises:
        InputError: If there is no finished run, or some pairs have a place on Earth and some have not.
    """
    if buffer < 0:
        raise InputError(f"--buffer: expected metres, 0 or more, got {buffer:g}")
    found = {
        each.pair.pair_id: Population(session.workspace, each.stored, each.finished.change, buffer)
        for each in sorted(run_pairs(session, finished_run(session)), key=lambda each: each.pair.pair_id)
        if each.finished
    }
    without = [name for name, population in found.items() if population.pair.grid.crs is None]
    if not found or 0 < len(without) < len(found):
        raise InputError(
            f"run {session.config.name}: expected pairs that all have a georeference, or none of them, to add up their "
            f"areas; of {len(found)} pair(s) these have none: {', '.join(without[:10]) or '-'}"
        )
    return found


def _map(session: Session, title: str, function: Callable[[Any], Any], jobs: dict[str, Any]) -> dict[str, Any]:
    """A function's results for every pair, in the order of the jobs; a failure of one is the end of all."""
    found = {}
    with progress(session.console, title, len(jobs)) as advance:
        for name, result, error in map_pairs(function, list(jobs.items())):
            if error is not None:
                raise InputError(f"pair {name}: cannot be sampled, so there can be no sample of the run: {error}")
            found[name] = result
            advance(1, "")
    return {name: found[name] for name in jobs}


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
    beside, own = here(facts_path(path)), session.run_folder / "area" / facts_path(path).name
    facts, points = read_facts(own if own.is_file() and not beside.is_file() else beside)
    populations = find_populations(session, facts["buffer"])
    _refuse_stale(session, path, facts["keys"], {name: each.change_key for name, each in populations.items()})
    degrees = len({each.pair.grid.crs for each in populations.values()}) > 1
    tolerances = {}
    for name, population in populations.items():
        metres = pixel_metres(population.pair.grid)
        tolerances[name] = max(metres) / DEGREE_METRES if degrees and metres else max(population.pair.grid.pixel_size)
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
