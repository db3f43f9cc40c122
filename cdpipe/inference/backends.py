"""Whether a backend can run here, told before any work, and before anything heavy is imported."""

from importlib.util import find_spec

from cdpipe.config.schema import Predict
from cdpipe.errors import ConfigError


def check_backend(options: Predict, device: str) -> None:
    """Refuse to plan with a backend that cannot run; nothing is imported.

    Args:
        options: The configuration's ``predict``.
        device: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If a package is not installed, or there are GPUs, which would lie idle.
    """
    if options.backend == "torch":
        return
    check_installed(options.precision)
    if device == "cuda":
        raise ConfigError(
            "predict.backend: openvino runs on CPUs, and there are GPUs here, which torch uses; "
            "set predict.backend: torch, or resources.gpus: 0"
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
