"""The changed area of a run with its confidence interval, from points that somebody labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cdpipe.errors import ConfigError, InputError
from cdpipe.evaluation import area
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
from cdpipe.geo.crs import on_earth
from cdpipe.geo.ground import has_areas, pixel_metres
from cdpipe.runs.pairs import finished_run, result_pairs
from cdpipe.runs.run import Run
from cdpipe.workspace.files import write_json
from cdpipe.workspace.location import Location, here

# User's accuracies to be expected, by which a sample's size is planned (Olofsson et al. 2014, section 5.1.1): change
# is mapped worse than what has not changed, and worst beside it.
EXPECTED = (0.95, 0.7, 0.7)
DEGREE = 111_195  # metres, of latitude

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """What a sample would be drawn from.

    Attributes:
        pairs: How many pairs.
        path: The file that it would go to.
    """

    pairs: int
    path: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that was drawn.

    Attributes:
        path: The GeoPackage to label.
        points: How many points it has.
        strata: Of each stratum that there is of the run, its share of the area from 0 to 1, and its points.
    """

    path: Path
    points: int
    strata: Mapping[str, tuple[float, int]]


@dataclass(frozen=True, slots=True)
class AreaPlan:
    """What an area would be estimated from: labelled points, of so many pairs."""

    points: int
    pairs: int


@dataclass(frozen=True, slots=True)
class AreaEstimate:
    """The changed area of a run.

    Attributes:
        figures: See :func:`cdpipe.evaluation.area.estimate_area`.
        unit: Of areas: ``m2``, or ``pixels`` where pairs have no georeference.
        path: The file that has all of it.
    """

    figures: Mapping[str, Any]
    unit: str
    path: Location


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A labelled sample: how many points of how many pairs, and what follows from them."""

    points: int
    pairs: int
    figures: dict[str, Any]
    unit: str


def plan_sample(run: Run, *, buffer: float = 0.0, out: Path | None = None) -> SamplePlan:
    """What :func:`draw_sample` would draw from; nothing is written.

    Args:
        run: The run.
        buffer: How far the stratum around change reaches, in metres; 0 for none.
        out: GeoPackage to write; None for ``area/sample.gpkg`` in the run's folder.

    Raises:
        ConfigError: If the sample would lie in object storage.
        InputError: If there is no finished run.
    """
    return SamplePlan(len(_find_populations(run, buffer)), _sample_path(run, out))


def draw_sample(
    run: Run,
    *,
    points: int | None = None,
    standard_error: float = 0.01,
    buffer: float = 0.0,
    seed: int = 0,
    out: Path | None = None,
) -> Sample:
    """Draw points of a run at random from its strata and write them, for somebody to label.

    Args:
        run: The run.
        points: How many; None for as many as the standard error needs.
        standard_error: Wanted, of overall accuracy.
        buffer: How far a stratum of its own reaches around change, in metres (without a CRS in pixels); 0 for none.
        seed: Of the random draw.
        out: GeoPackage to write; None for ``area/sample.gpkg`` in the run's folder.

    Raises:
        ConfigError: If the sample would lie in object storage.
        InputError: If there is no finished run, nothing of it was observed, or the sample exists already.
    """
    with run.hold(keep_failures=True):
        populations = _find_populations(run, buffer)
        path = _sample_path(run, out)
        if path.exists():
            raise InputError(
                f"{path} exists, and may have labels in it; move it away or choose another name with --out"
            )
        from cdpipe.cluster.start import start_workers

        start_workers(run)
        sizes = list(_map(run, "sample: pairs measured", measure_strata, populations).values())
        areas, pixels = (np.array([getattr(size, name) for size in sizes]).sum(axis=0) for name in ("areas", "pixels"))
        if not pixels.any():
            raise InputError(f"run {run.config.name}: no pixel was observed at both dates; there is nothing to sample")
        weights = areas / areas.sum()
        wanted = points or area.points_needed(weights, np.array(EXPECTED), standard_error)
        numbers = area.allocate(weights, wanted)
        shares = [share_out(sizes, stratum, number, seed) for stratum, number in enumerate(numbers)]
        listed = _draw(run, populations, shares, seed)
        placed, crs = place_points(listed, {name: population.pair.grid for name, population in populations.items()})
        facts = {
            "run": run.config.name,
            "keys": {name: population.change_key for name, population in populations.items()},
            "seed": seed,
            "buffer": buffer,
            "areas": areas.tolist(),
            "unit": "m2" if all(has_areas(each.pair.grid) for each in populations.values()) else "pixels",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sample(path, placed, crs, facts)
        strata = {
            name: (float(weights[stratum]), sum(shares[stratum]))
            for stratum, name in enumerate(STRATA)
            if pixels[stratum]
        }
        return Sample(path, len(placed), strata)


def plan_area(run: Run, sample: Path) -> AreaPlan:
    """What :func:`estimate_area` would estimate from; the labels are read, nothing is written.

    Args:
        run: The run.
        sample: The labelled points.

    Raises:
        InputError: If the sample is of other results, or not all of it is labelled.
    """
    labelled = _read_labelled(run, sample)
    return AreaPlan(labelled.points, labelled.pairs)


def estimate_area(run: Run, sample: Path) -> AreaEstimate:
    """Estimate the changed area; the figures are also written to ``area.json``.

    Args:
        run: The run.
        sample: The points that :func:`draw_sample` wrote, each labelled.

    Raises:
        InputError: If the sample is of other results, or not all of it is labelled.
    """
    with run.hold(keep_failures=True):
        labelled = _read_labelled(run, sample)
        path = run.folder / "area" / "area.json"
        write_json(path, {**labelled.figures, "unit": labelled.unit, "sample": sample.name})
        return AreaEstimate(labelled.figures, labelled.unit, path)


def _find_populations(run: Run, buffer: float) -> dict[str, Population]:
    """The run's pairs in the order of their ids.

    Raises:
        InputError: If there is no finished run, or some pairs have a place on Earth and some have not.
    """
    if buffer < 0:
        raise InputError(f"--buffer: expected metres, 0 or more, got {buffer:g}")
    populations = {
        pair.pair.pair_id: Population(run.workspace, pair.stored, pair.finished.change, buffer)
        for pair in sorted(result_pairs(run, finished_run(run)), key=lambda pair: pair.pair.pair_id)
        if pair.finished
    }
    without = [name for name, population in populations.items() if not has_areas(population.pair.grid)]
    if not populations or 0 < len(without) < len(populations):
        raise InputError(
            f"run {run.config.name}: expected pairs that all have areas on the ground, or none of them, to add "
            f"them up; of {len(populations)} pair(s) these have no CRS that tells: {', '.join(without[:10]) or '-'}"
        )
    return populations


def _sample_path(run: Run, out: Path | None) -> Path:
    default = run.folder / "area" / "sample.gpkg"
    if out is None and default.far:
        raise ConfigError(f"sample: the run lies in object storage, {default}; give --out FILE.gpkg on this machine")
    return out or default.local()


def _map(run: Run, title: str, function: Callable[[Job], Result], jobs: Mapping[str, Job]) -> dict[str, Result]:
    """A function's results for every pair, in the order of the jobs; a failure of one is the end of all."""
    from cdpipe.cluster.tasks import map_pairs

    results: dict[str, Any] = {}
    with run.step(title, len(jobs)) as advance:
        for name, result, error in map_pairs(run, "sample", function, list(jobs.items())):
            if error is not None:
                raise InputError(f"pair {name}: cannot be sampled, so there can be no sample of the run: {error}")
            results[name] = result
            advance(1, "")
    return {name: results[name] for name in jobs}


def _draw(
    run: Run, populations: Mapping[str, Population], shares: list[list[int]], seed: int
) -> list[tuple[str, int, int, int]]:
    """Pair, stratum, row and column of every point, in a random order.

    Args:
        run: The run.
        populations: By pair.
        shares: Points of each stratum, in each pair.
        seed: Of the random draw.
    """
    jobs = {
        name: (population, tuple(share[place] for share in shares), (seed, place))
        for place, (name, population) in enumerate(populations.items())
        if any(share[place] for share in shares)
    }
    drawn = _map(run, "sample: pairs drawn from", lambda job: draw_pixels(*job), jobs)
    listed = [(pair_id, *pixel) for pair_id, pixels in sorted(drawn.items()) for pixel in pixels]
    order = np.random.default_rng([seed, len(STRATA)]).permutation(len(listed))
    return [listed[place] for place in order]


def _read_labelled(run: Run, path: Path) -> _Labelled:
    beside, own = here(facts_path(path)), run.folder / "area" / facts_path(path).name
    facts, points = read_facts(own if own.is_file() and not beside.is_file() else beside)
    populations = _find_populations(run, facts["buffer"])
    _refuse_stale(run, path, facts["keys"], {name: each.change_key for name, each in populations.items()})
    systems = {population.pair.grid.crs for population in populations.values()}
    degrees = len(systems) > 1 and all(map(on_earth, systems))
    tolerances = {}
    for name, population in populations.items():
        metres = pixel_metres(population.pair.grid)
        tolerances[name] = max(metres) / DEGREE if degrees and metres else max(population.pair.grid.pixel_size)
    figures = area.estimate_area(facts["areas"], points, read_answers(path, points, tolerances))
    return _Labelled(len(points), len(populations), figures, facts["unit"])


def _refuse_stale(run: Run, path: Path, drawn: Mapping[str, str], now: Mapping[str, str]) -> None:
    other = sorted(name for name in drawn.keys() | now.keys() if drawn.get(name) != now.get(name))
    if other:
        raise InputError(
            f"{path}: was drawn from other results than run {run.config.name} has now; {len(other)} pair(s) "
            f"differ, such as {', '.join(other[:5])}. Its strata are not those of this map: draw another with cdpipe "
            "sample, or go back to the configuration that it was drawn with"
        )
