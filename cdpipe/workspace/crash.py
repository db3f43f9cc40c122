"""Named points at which tests kill a process, to prove that nothing is lost there."""

import contextlib
import os
import signal
from pathlib import Path

ARMED = "CDPIPE_CRASH"  # environment variable with a folder; a file of a point's name in it kills one process there

ALWAYS = "always"
POINTS = (
    "group-unnamed",
    "block-unnamed",
    "block-unrecorded",
    "file-unnamed",
    "file-named",
    "pair-unfinished",
    "probability-unrecorded",
    "raster-unchecked",
    "raster-unnamed",
    "rasters-unrecorded",
    "vector-unchecked",
    "vector-unnamed",
    "vectors-unrecorded",
    "mosaic-unrecorded",
    "ensemble-unrecorded",
    "stac-unrecorded",
    "manifest-unwritten",
    "evaluation-unrecorded",
    "tables-unrecorded",
    "audit-unrecorded",
    "pictures-unrecorded",
    "page-unrecorded",
    "checkpoint-unreported",
    "weights-without-card",
    "model-with-checkpoints",
)


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if a test has armed the point.

    Whoever comes first takes the charge; a file that says ``always`` is never used up.
    """
    folder = os.environ.get(ARMED)
    if folder:
        with contextlib.suppress(FileNotFoundError):
            charge = Path(folder) / name
            if charge.read_text() != ALWAYS:
                charge.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
