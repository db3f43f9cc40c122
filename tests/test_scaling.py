"""The page on scaling shows what its script computes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_shows_what_the_script_computes() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/scaling.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    text = (ROOT / "docs" / "scaling.md").read_text()
    shown = text.partition("<!-- output of benchmarks/scaling.py -->")[2].partition("<!-- end of output -->")[0]
    assert shown.strip() == done.stdout.decode().strip()
