"""``cdpipe sample``: points of a run, drawn at random from its strata, for somebody to label."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cdpipe.cluster.tasks import map_pairs
from cdpipe.errors import ConfigError, InputError
from cdpipe.evaluation.area import allocate, points_needed
from cdpipe.evaluation.area_sample import (
    STRATA,
    Population,
    draw_pixels,
    measure_strata,
    place_points,
    share_out,
    write_sample,
)
from cdpipe.runs.pairs import finished_run, run_pairs
from cdpipe.verbs.console import progress
from cdpipe.verbs.session import Session
from cdpipe.workspace.bucket import ObjectPath

# User's accuracies to be expected, by which a sample's size is planned (Olofsson et al. 2014, section 5.1.1): change
# is mapped worse than what has not changed, and worst beside it.
EXPECTED = (0.95, 0.7, 0.7)


def run(session: Session) -> None:
    """Draw a sample and write it.

    Raises:
        ConfigError: If the sample would lie in object storage.
        InputError: If there is no finished run, nothing of it was observed, or the sample exists already.
    """
    request = session.request
    populations = find_populations(session, request.buffer)
    path = request.out or session.run_folder / "area" / "sample.gpkg"
    if isinstance(path, ObjectPath):
        raise ConfigError(f"sample: the run lies in object storage, {path}; give --out FILE.gpkg on this machine")
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
