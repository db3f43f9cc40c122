"""The networks, by name, and the published weights they can start from."""

from cdpipe.models.build import build_model, input_kind, model_names, required_bands
from cdpipe.models.published import load_published

__all__ = [
    "build_model",
    "input_kind",
    "load_published",
    "model_names",
    "required_bands",
]
