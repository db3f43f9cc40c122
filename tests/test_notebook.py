"""The notebook of the documentation runs from its first cell to its last, and shows what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml
from stored import TINY_TRAIN

from cdpipe.api.pipeline import DEMO

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"
# Scenes of which all are there, but small.
SMALL = """
from functools import partial
from cdpipe.api import pipeline
pipeline.make_sample_scenes = partial(pipeline.make_sample_scenes, size=160)
"""
SAVE = """
plt.savefig("figure.png")
import json as _json
Path("shown.json").write_text(_json.dumps({
    "shapes": [image.get_array().shape for axis in figure.axes for image in axis.images],
    "titles": [axis.get_title() for axis in figure.axes],
    "pairs": len(manifest.pairs),
    "rows": len(evaluated.evaluation.rows),
}))
"""


def cells() -> list[str]:
    """The notebook's code."""
    code = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in code), "pictures would grow the repository with every change"
    return ["".join(cell["source"]) for cell in code]


def quick_demo(folder: Path) -> None:
    """A configuration of the demo that takes seconds: one tiny network, hardly trained."""
    values = yaml.safe_load(DEMO)
    values["train"] |= {"models": TINY_TRAIN["models"], "epochs": 1, "samples_per_epoch": 8}
    values["predict"] |= {"tta": "none", "overlap": 0}
    values["resources"] = {"workers": 1, "gpus": 0}
    folder.mkdir()
    (folder / "cdpipe.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.heavy
@pytest.mark.usefixtures("local_ray")
@pytest.mark.timeout(600)
def test_the_notebook_runs(tmp_path: Path) -> None:
    quick_demo(tmp_path / "demo")
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join([SMALL, *cells(), SAVE]))
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOK.parents[1]), "MPLBACKEND": "agg"}
    # else every stage would start a Ray and end it, which tests of commands do
    environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    ran = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert shown["titles"] == ["before", "after", "probability", "change"]
    assert len(shown["shapes"]) == 4
    assert len({tuple(shape[:2]) for shape in shown["shapes"]}) == 1
    assert shown["pairs"] == 8
    assert shown["rows"] > 0
    assert "01-plain" in ran.stdout
    assert "IoU" in ran.stdout
