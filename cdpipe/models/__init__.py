"""The networks, by name, and the published weights they can start from."""

from typing import TYPE_CHECKING, Any

from cdpipe.models.names import input_kind, model_names, required_bands

if TYPE_CHECKING:
    from cdpipe.models.networks import build_model
    from cdpipe.models.published import load_published

__all__ = [
    "build_model",
    "input_kind",
    "load_published",
    "model_names",
    "required_bands",
]


def __getattr__(name: str) -> Any:
    """Import torch, which takes seconds, only for those who build networks."""
    if name == "build_model":
        from cdpipe.models.networks import build_model

        return build_model
    if name == "load_published":
        from cdpipe.models.published import load_published

        return load_published
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
