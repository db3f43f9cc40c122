"""OpenVINO, an inference runtime made for CPUs: builds an engine of a network once a machine, and runs it.

Torch, which takes seconds to import, is needed to build one, not to run it.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cdpipe.errors import ConfigError
from cdpipe.inference.backends import check_installed
from cdpipe.inference.patches import Execution, Forward
from cdpipe.inference.views import d4_mean, d4_views
from cdpipe.keys import content_key
from cdpipe.models.folder import ModelCard, check_weights, load_network
from cdpipe.store.normalisation import Recipe
from cdpipe.workspace.files import read_sealed, write_sealed
from cdpipe.workspace.location import Location, here

GRAPH, WEIGHTS, SEAL = "engine.xml", "engine.bin", "engine.json"

# row k: which of a kernel's three taps meet in tap k of the transposed one, along one axis
MEETING = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float64)
PLAIN = {"strides": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "dilations": [1, 1]}
DOUBLED = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


def fold_doubling(model: Any) -> int:
    """Fold doubling an image into the 3 x 3 convolution that follows, which then multiplies less than half as often.

    Args:
        model: An ``openvino.Model`` of static shapes, which is changed.

    Returns:
        How many convolutions were replaced.
    """
    folded = [node for node in model.get_ordered_ops() if _can_fold(node)]
    for node in folded:
        node.output(0).replace(_folded(node).output(0))
    model.validate_nodes_and_infer_types()
    return len(folded)


def transposed_kernel(kernel: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """The transposed convolution that equals doubling and then convolving.

    Args:
        kernel: (output, input, 3, 3), for stride 1 and a padding of one zero.

    Returns:
        (input, output, 4, 4), for stride 2 and a padding of 1; the sums are taken in float64.
    """
    taps = np.einsum("oiyx,ay,bx->ioab", kernel.astype(np.float64), MEETING, MEETING)
    return np.asarray(taps, np.float32)


def _can_fold(node: Any) -> bool:
    if node.get_type_name() != "Convolution":
        return False
    attributes, kernel = node.get_attributes(), node.input_value(1).get_node()
    return (
        kernel.get_type_name() == "Constant"
        and kernel.data.shape[2:] == (3, 3)
        and attributes["auto_pad"] == "explicit"
        and all(list(attributes[name]) == value for name, value in PLAIN.items())
        and any(map(_is_doubled, _parts(node.input_value(0))))
    )


def _parts(features: Any) -> list[Any]:
    """What is concatenated along the channels, or the features themselves."""
    node = features.get_node()
    if node.get_type_name() != "Concat" or node.get_attributes()["axis"] not in (1, -3):
        return [features]
    return [node.input_value(index) for index in range(node.get_input_size())]


def _is_doubled(features: Any) -> bool:
    node = features.get_node()
    if node.get_type_name() != "Interpolate":
        return False
    attributes = node.get_attributes()
    images, channels, height, width = node.input_value(0).get_shape()
    doubled = [images, channels, 2 * height, 2 * width]
    return list(features.get_shape()) == doubled and all(attributes[name] == DOUBLED[name] for name in DOUBLED)


def _folded(convolution: Any) -> Any:
    op = import_module("openvino.opset13")
    kernel = convolution.input_value(1).get_node().data
    results, others, other_kernels, first = [], [], [], 0
    for part in _parts(convolution.input_value(0)):
        channels = part.get_shape()[1]
        own, first = kernel[:, first : first + channels], first + channels
        if _is_doubled(part):
            small, taps = part.get_node().input_value(0), op.constant(transposed_kernel(own))
            results.append(op.convolution_backprop_data(small, taps, [2, 2], None, [1, 1], [1, 1], [1, 1]))
        else:
            others.append(part)
            other_kernels.append(own)
    if others:
        features = op.concat(others, 1) if len(others) > 1 else others[0]
        results.append(op.convolution(features, op.constant(np.concatenate(other_kernels, 1)), **PLAIN))
    return reduce(op.add, results)


def cache_folder() -> Path:
    """Where engines are kept by content, built once a machine, and deleted at will.

    ``CDPIPE_CACHE``, or else ``cdpipe`` in the user's cache folder; not in the workspace, which nodes may share.
    """
    own = os.environ.get("CDPIPE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "cdpipe"


def cached_engine(key: str, build: Callable[[], Mapping[str, bytes]]) -> dict[str, bytes]:
    """The files of an engine: as they were kept, or built now and kept.

    Of several processes that want the same at once, one builds and the others wait. What is damaged is built again;
    where nothing can be written, the engine is built and not kept.

    Args:
        key: Of everything that bears on the files.
        build: Makes their contents, by name.

    Returns:
        Their contents by name, just as they were built.
    """
    folder = cache_folder() / key
    files = _read(folder)
    if files is None:
        with _building(folder):
            files = _read(folder)  # another process may have built it while this one waited
            if files is None:
                files = dict(build())
                _keep(folder, files)
    return files


def _read(folder: Path) -> dict[str, bytes] | None:
    """What is kept, if it is whole: the bytes that are used are those that were hashed."""
    try:
        seal = read_sealed(here(folder / SEAL))
        if seal is None or seal["key"] != folder.name:
            return None
        files = {name: (folder / name).read_bytes() for name in seal["sha256"]}
    except OSError:
        return None
    return files if _hashes(files) == seal["sha256"] else None


def _keep(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        here(folder).sweep()  # of a builder that was killed
        for name, data in files.items():
            here(folder / name).write(data)
        write_sealed(here(folder / SEAL), {"key": folder.name, "sha256": _hashes(files)})
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[None]:
    """Hold an engine's lock, which the system lets go of when the process ends; where none can be had, do without."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stream = held.enter_context(folder.with_name(f"{folder.name}.lock").open("a"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Calibration(Protocol):
    """What an int8 network is calibrated on: the same windows wherever it is built."""

    @property
    def key(self) -> str:
        """Hash of everything that decides which pixels the windows hold."""

    def windows(self, recipe: Recipe, patch: int) -> Iterator[NDArray[np.float32]]:
        """Model inputs, each (1, channel, patch, patch)."""


def make_openvino_forward(
    folder: Location, card: ModelCard, execution: Execution, calibration: Calibration | None
) -> Forward:
    """A model as a function from patches to probabilities, on one thread of the CPU for each that calls it.

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
    model, own, alone = core.read_model(files[GRAPH], files[WEIGHTS]), threading.local(), threading.Lock()
    augmented = execution.tta == "d4"

    def forward(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        # a request holds its answer until the next call: of one that threads share, each would take the others'
        if not hasattr(own, "request"):
            with alone:
                own.request = core.compile_model(model, "CPU", options).create_infer_request()
        views = d4_views(patches) if augmented else patches
        logits = np.empty((len(views), 1, *views.shape[-2:]), np.float32)
        # one by one: a view's activations fit the caches, and a batch of them is no faster
        for view, logit in zip(views, logits, strict=True):
            own.request.infer([np.ascontiguousarray(view)[None]], share_inputs=True)
            logit[:] = own.request.get_output_tensor(0).data[0]
        with np.errstate(over="ignore"):  # of exp: infinity there is a probability of 0
            probabilities = np.float32(1) / (np.float32(1) + np.exp(-logits))
        return (d4_mean(probabilities) if augmented else probabilities)[:, 0]

    return forward


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


def _build(folder: Location, card: ModelCard, calibration: Calibration | None) -> Mapping[str, bytes]:
    """The engine's files; its input is one view, (1, channel, patch, patch)."""
    import torch

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
    windows = list(calibration.windows(card.recipe, card.patch))
    return nncf.quantize(model, nncf.Dataset(windows), subset_size=len(windows))
