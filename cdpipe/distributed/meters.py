"""Ray metrics of a run, for whoever watches the cluster: Prometheus reads them from every node's agent."""

from collections.abc import Mapping
from functools import cache

from ray.util.metrics import Counter


@cache
def _counter(name: str, description: str) -> Counter:
    return Counter(name, description, tag_keys=("stage", "part"))


def meter(stage: str, outcome: str, figures: Mapping[str, float]) -> None:
    """Count a block.

    Args:
        stage: ``ingest`` or ``predict``.
        outcome: ``done`` or ``failed``.
        figures: What its worker spent and counted; see :mod:`cdpipe.timing`.
    """
    _counter("cdpipe_blocks", "blocks worked on").inc(1, {"stage": stage, "part": outcome})
    for name, number in figures.items():
        if number > 0:
            what, _, unit = name.rpartition("_")
            if unit == "seconds":
                _counter("cdpipe_seconds", "seconds that workers spent").inc(number, {"stage": stage, "part": what})
            else:
                _counter(f"cdpipe_{name}", f"{name.replace('_', ' ')}, in all").inc(
                    number, {"stage": stage, "part": ""}
                )
