"""OpenVINO, an inference runtime made for CPUs: builds an engine of a network once a machine, and runs it."""

import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdpipe.errors import ConfigError
from cdpipe.formats.engine_cache import cached_engine
from cdpipe.keys import content_key
from cdpipe.models.folder import ModelCard, check_weights, load_network
from cdpipe.stages.backends import check_installed
from cdpipe.stages.calibration import Calibration, calibration_windows
from cdpipe.stages.inference import Execution, Forward
from cdpipe.stages.openvino_folding import fold_doubling
from cdpipe.stages.torch_backend import forward_of

GRAPH, WEIGHTS = "engine.xml", "engine.bin"


def make_openvino_forward(
    folder: Path, card: ModelCard, execution: Execution, calibration: Calibration | None
) -> Forward:
    """A model as a function from patches to probabilities, on one thread of the CPU.

    Args:
        folder: The model's folder.
        card: Its card.
        execution: How it is run.
        calibration: What an int8 network is calibrated on.

    Raises:
        ConfigError: If a package is missing, the CPU has no bfloat16 where that is wanted, or OpenVINO lacks an
            operation of the network.
        InputError: If the model's weights are not finite, or there is nothing to calibrate on.
        IntegrityError: If they are not the ones that the card names.
    """
    check_installed(execution.precision)
    check_weights(folder, card)
    core = import_openvino().Core()
    if execution.precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ConfigError("predict.precision: this machine's CPU has no bfloat16; choose float32")
    files = cached_engine(engine_key(card, calibration), lambda: _build(folder, card, calibration))
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if execution.precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # several actors would otherwise be pinned to the same core
    }
    request = core.compile_model(core.read_model(files[GRAPH], files[WEIGHTS]), "CPU", options).create_infer_request()

    def logits(views: Tensor) -> Tensor:
        # one by one: a view's activations fit the caches, and a batch of them is no faster
        found = torch.empty(len(views), 1, *views.shape[-2:])
        for index, view in enumerate(views):
            request.infer([view[None].numpy()], share_inputs=True)
            found[index] = torch.from_numpy(request.get_output_tensor(0).data[0])
        return found

    return forward_of(logits, execution)


def engine_key(card: ModelCard, calibration: Calibration | None) -> str:
    """Hash of everything that bears on an engine; float32 and bfloat16 share one."""
    packages = ("torch", "openvino") if calibration is None else ("torch", "openvino", "nncf")
    parts = {
        "model": card.key,
        "folded": True,
        "calibration": calibration.key if calibration else None,
        "versions": {name: metadata.version(name) for name in packages},
    }
    return content_key("engine", parts)


def import_openvino() -> Any:
    """OpenVINO, imported without its telemetry, which would tell a server what is converted."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


def _build(folder: Path, card: ModelCard, calibration: Calibration | None) -> Mapping[str, bytes]:
    """The engine's files; its input is one view, (1, channel, patch, patch)."""
    openvino = import_openvino()
    network = load_network(folder, card).requires_grad_(False)
    example = torch.zeros(1, card.recipe.channels, card.patch, card.patch)
    try:
        model = openvino.convert_model(torch.export.export(network, (example,)))
        model.reshape(list(example.shape))
    except Exception as error:
        raise ConfigError(
            f"predict.backend: openvino cannot run {card.architecture} (model {folder}); set predict.backend: torch"
        ) from error
    fold_doubling(model)
    if calibration is not None:
        model = _quantise(model, card, calibration)
    with tempfile.TemporaryDirectory() as made:
        openvino.save_model(model, Path(made) / GRAPH, compress_to_fp16=False)
        return {name: (Path(made) / name).read_bytes() for name in (GRAPH, WEIGHTS)}


def _quantise(model: Any, card: ModelCard, calibration: Calibration) -> Any:
    nncf = import_module("nncf")
    windows = list(calibration_windows(calibration, card.recipe, card.patch))
    return nncf.quantize(model, nncf.Dataset(windows), subset_size=len(windows))
