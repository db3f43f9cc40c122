"""How long commands take that have nothing to do: `cdpipe --help`, and each stage of a run that is finished.

Every command is a process of its own, so what is timed is what a user waits for; beside it the bare interpreter, and
one that imports torch and Ray, which no command that has nothing to do needs. The run is one small pair and a network
with random weights, ingested and predicted here before the clock starts.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from made_project import SMALL, make_project, run
from timing import Row, interleave, median_wall, show

TARGETS = {"cdpipe --help": 0.5, "cdpipe predict, finished": 3.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = make_project(Path(folder), 300, {"unetplusplus": SMALL}, 256, tta="none")
        for verb in ("ingest", "predict"):
            run("-m", "cdpipe.cli.main", verb, str(config))
        cases: dict[str, Callable[[], None]] = {
            "python": partial(run, "-c", "pass"),
            "python, importing torch and ray": partial(run, "-c", "import torch, ray"),
            "cdpipe --help": partial(run, "-m", "cdpipe.cli.main", "--help"),
            **{
                f"cdpipe {verb}, finished": partial(run, "-m", "cdpipe.cli.main", verb, str(config))
                for verb in ("ingest", "predict")
            },
        }
        timings = interleave(cases, options.rounds)
    bare = median_wall(timings["python"])
    show(
        "Commands that have nothing to do, median seconds",
        [
            Row(
                name,
                f"{median_wall(each):.2f} s",
                f"{bare:.2f} s",
                None,
                f"<= {TARGETS[name]} s" if name in TARGETS else "",
            )
            for name, each in timings.items()
        ],
    )


if __name__ == "__main__":
    main()
