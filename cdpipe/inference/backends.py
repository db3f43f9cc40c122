"""Which backend runs a network, and whether it can: told before any work, and before anything heavy is imported."""

import platform
from importlib.util import find_spec

from cdpipe.config.schema import Predict
from cdpipe.errors import ConfigError
from cdpipe.processors import is_faster_in_bfloat16, processor_flags
from cdpipe.workspace.location import Location

X86 = ("x86_64", "amd64")  # where OpenVINO is faster, on what was measured, and comes with cdpipe
BY_TORCH = ("dpt",)  # networks that OpenVINO lacks an operation for


def choose_backend(backend: str, precision: str, device: str, architecture: str) -> str:
    """The backend of a network: where that is left open, OpenVINO on the CPUs that it is made for, else torch.

    It is part of keys, and so is decided once, by the machine where a run was started.

    Args:
        backend: The configuration's ``predict.backend``.
        precision: Its ``predict.precision``.
        device: ``cpu`` or ``cuda``.
        architecture: The network's name.

    Returns:
        ``torch`` or ``openvino``.
    """
    if backend != "auto":
        return backend
    if precision == "int8":
        return "openvino"
    suits = device == "cpu" and platform.machine().lower() in X86 and architecture not in BY_TORCH
    if precision == "bfloat16":  # which OpenVINO refuses where torch makes do
        suits = suits and is_faster_in_bfloat16(processor_flags())
    return "openvino" if suits and find_spec("openvino") is not None else "torch"


def is_for_cpus(options: Predict) -> bool:
    """Whether what is asked for runs on CPUs alone."""
    return options.backend == "openvino" or options.precision == "int8"


def check_backend(options: Predict, device: str) -> None:
    """Refuse to plan with a backend that cannot run; nothing is imported.

    Args:
        options: The configuration's ``predict``.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If a package is not installed, or there are GPUs, which would lie idle.
    """
    if not is_for_cpus(options):
        return
    check_installed(options.precision)
    if device == "cuda":
        asked = "predict.backend: openvino" if options.backend == "openvino" else "predict.precision: int8"
        raise ConfigError(
            f"{asked} runs on CPUs, and there are GPUs here, which torch uses; set predict.backend: auto and another "
            "precision than int8, or resources.gpus: 0"
        )


def check_installed(precision: str) -> None:
    """Refuse OpenVINO where it, or what int8 needs, is not installed.

    Raises:
        ConfigError: Naming what is missing.
    """
    needed = ["openvino", "nncf"] if precision == "int8" else ["openvino"]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"predict.backend: openvino with precision {precision} needs the package(s) {', '.join(missing)}, not "
            "installed here; install cdpipe with its extra [openvino] on every node, or set predict.backend: torch"
        )


def check_runtime(model: Location, runtime: str) -> None:
    """Refuse an exported network whose runtime is not installed.

    Args:
        model: The file, or the folder that has it.
        runtime: ``onnx`` or ``pt2``.

    Raises:
        ConfigError: Naming what is missing.
    """
    if runtime == "onnx" and find_spec("onnxruntime") is None:
        raise ConfigError(
            f"model {model}: an ONNX file needs the package onnxruntime, not installed here; install cdpipe with its "
            "extra [onnx] on every node, or export the model to pt2"
        )
