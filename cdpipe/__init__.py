"""cdpipe finds what changed between two dates of satellite imagery, at any size, on Ray.

Everything starts with a run of a configuration, ``run = cdpipe.open_run("cdpipe.yaml")``, which all other functions
take: ``cdpipe.check(run)``, ``cdpipe.ingest(run)``, ``cdpipe.train(run)``, ``cdpipe.predict(run)``,
``cdpipe.evaluate(run)``, ... They return what they found and where it lies, and print nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cdpipe.version import __version__

if TYPE_CHECKING:
    from cdpipe.api.area import draw_sample, estimate_area
    from cdpipe.api.audit import audit
    from cdpipe.api.check import check
    from cdpipe.api.doctor import examine
    from cdpipe.api.evaluate import compare, evaluate
    from cdpipe.api.export import export_model
    from cdpipe.api.ingest import ingest, plan_ingest
    from cdpipe.api.opening import open_run
    from cdpipe.api.pipeline import open_demo, pipeline
    from cdpipe.api.predict import plan_prediction, predict, predict_pair
    from cdpipe.api.report import review, write_report
    from cdpipe.api.status import status, verify
    from cdpipe.api.submission import write_submission, write_submission_rasters
    from cdpipe.api.threshold import find_threshold
    from cdpipe.api.train import plan_training, train
    from cdpipe.prediction.in_memory import predict_array
    from cdpipe.runs.run import Failure, Remark, Run, Step

# where each lies: imported when it is first asked for, as torch and Ray take seconds
_MODULES = {
    "Failure": "runs.run",
    "Remark": "runs.run",
    "Run": "runs.run",
    "Step": "runs.run",
    "audit": "api.audit",
    "check": "api.check",
    "compare": "api.evaluate",
    "draw_sample": "api.area",
    "estimate_area": "api.area",
    "evaluate": "api.evaluate",
    "examine": "api.doctor",
    "export_model": "api.export",
    "find_threshold": "api.threshold",
    "ingest": "api.ingest",
    "open_demo": "api.pipeline",
    "open_run": "api.opening",
    "pipeline": "api.pipeline",
    "plan_ingest": "api.ingest",
    "plan_prediction": "api.predict",
    "plan_training": "api.train",
    "predict": "api.predict",
    "predict_array": "prediction.in_memory",
    "predict_pair": "api.predict",
    "review": "api.report",
    "status": "api.status",
    "train": "api.train",
    "verify": "api.status",
    "write_report": "api.report",
    "write_submission": "api.submission",
    "write_submission_rasters": "api.submission",
}
__all__ = [
    "Failure",
    "Remark",
    "Run",
    "Step",
    "__version__",
    "audit",
    "check",
    "compare",
    "draw_sample",
    "estimate_area",
    "evaluate",
    "examine",
    "export_model",
    "find_threshold",
    "ingest",
    "open_demo",
    "open_run",
    "pipeline",
    "plan_ingest",
    "plan_prediction",
    "plan_training",
    "predict",
    "predict_array",
    "predict_pair",
    "review",
    "status",
    "train",
    "verify",
    "write_report",
    "write_submission",
    "write_submission_rasters",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Everything that may be asked for."""
    return sorted(__all__)
