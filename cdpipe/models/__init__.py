"""The networks, by name, and the published weights they can start from."""

from cdpipe.models.build import InputKind, build_model, input_kind, model_names, required_bands, size_divisor
from cdpipe.models.published import load_published

__all__ = [
    "InputKind",
    "build_model",
    "input_kind",
    "load_published",
    "model_names",
    "required_bands",
    "size_divisor",
]
