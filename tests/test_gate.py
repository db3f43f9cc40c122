"""The gate, fed anything: every file is stored as rasterio reads it, or refused in one line, with nothing written."""

from pathlib import Path

import pytest
from trials import ACCEPTED, Trial, run_trials


def odd_files(shared: Path) -> list[Path]:
    files = sorted((shared / "data" / "oddtiffs").glob("*.tif*"))
    assert len(files) > 100
    return files


def test_odd_files_are_stored_right_or_refused(shared: Path, tmp_path: Path) -> None:
    outcomes = run_trials((Trial(path, label=True) for path in odd_files(shared)), tmp_path)
    assert outcomes.count(ACCEPTED) > 40
    assert len(set(outcomes)) > 10


@pytest.mark.heavy
@pytest.mark.parametrize("pixel_coordinates", [False, True])
@pytest.mark.parametrize("place", ["before", "after", "dates", "label"])
def test_odd_files_in_every_place(shared: Path, tmp_path: Path, place: str, pixel_coordinates: bool) -> None:
    where = {name: place in (name, "dates") for name in ("before", "after")} | {"label": place == "label"}
    trials = (Trial(path, **where, pixel_coordinates=pixel_coordinates) for path in odd_files(shared))
    outcomes = run_trials(trials, tmp_path)
    assert outcomes.count(ACCEPTED) > (40 if place == "label" else 50)
    assert len(set(outcomes)) > 10
