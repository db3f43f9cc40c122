"""cdpipe finds what changed between two dates of satellite imagery, at any size, on Ray."""

from typing import Any

from cdpipe.version import __version__

__all__ = ["__version__", "predict_array"]


def __getattr__(name: str) -> Any:
    """Import torch only for those who predict: ``cdpipe --help`` must be quick."""
    if name == "predict_array":
        from cdpipe.prediction.in_memory import predict_array

        return predict_array
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
