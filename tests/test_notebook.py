"""The notebook of the documentation runs from its first cell to its last, and shows what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stored import TINY_TRAIN

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"
# as the demo's own, but in seconds
QUICK = [
    "train.epochs=2",
    "train.samples_per_epoch=16",
    f"train.models={json.dumps(TINY_TRAIN['models'])}",
    "predict.tta=none",
    "predict.overlap=0",
]
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
    """The notebook's code, with quick parameters instead of its own."""
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", ())]
    assert "overrides = []" in "".join(parameters["source"])
    assert all(cell["outputs"] == [] for cell in code), "pictures would grow the repository with every change"
    return ["".join(cell["source"]).replace("overrides = []", f"overrides = {QUICK}") for cell in code]


@pytest.mark.timeout(600)
def test_the_notebook_runs(tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join([*cells(), SAVE]))
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOK.parents[1]), "MPLBACKEND": "agg"}
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
