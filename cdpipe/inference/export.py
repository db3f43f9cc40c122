"""Networks as files of other runtimes, each compared with torch before it gets its name; the contract lies inside.

Formats: ONNX (https://onnx.ai), what ``torch.export.save`` writes (https://docs.pytorch.org/docs/stable/export.html),
and OpenVINO's intermediate representation.
"""

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cdpipe.errors import CdpipeError, ConfigError
from cdpipe.models.contract import INPUT, OUTPUT, describe_contract, name_channels
from cdpipe.models.exported import KEY, PT2_CONTRACT
from cdpipe.models.folder import ModelCard, check_trained, load_network
from cdpipe.store.normalisation import Recipe
from cdpipe.workspace.location import Location

OPSET = 18
CLOSE = 1e-4  # of a probability; what differs more is another network

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Format:
    """A format to export to.

    Attributes:
        suffix: What its files end in.
        packages: What it needs to be installed.
        extra: The extra of cdpipe that brings these.
        write: Writes the file that it is told, of a network, an example of its input and the contract, and gives a
            function that runs what is in the file.
        runtime: What runs it to compare.
    """

    suffix: str
    packages: tuple[str, ...]
    extra: str
    write: Callable[[nn.Module, Tensor, Mapping[str, Any], Path], Run]
    runtime: str


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        files: The files, the one that is opened first.
        contract: See :func:`cdpipe.models.contract.describe_contract`, with what the file itself is.
        difference: The largest difference of a probability from torch's, on random input.
    """

    files: tuple[Location, ...]
    contract: dict[str, Any]
    difference: float


def export_network(folder: Location, card: ModelCard, kind: str, out: Location, batch: int = 1) -> Exported:
    """Write a model's network, with the sigmoid, as a file of another runtime.

    Args:
        folder: The model's folder.
        card: Its card.
        kind: One of ``FORMATS``.
        out: The file; OpenVINO's weights lie beside it, in a file that ends in ``.bin``.
        batch: Patches that it takes at once.

    Raises:
        ConfigError: If the model is a detector, a package is missing, the name's ending is of another format, or the
            runtime lacks an operation of the network.
        InputError: If the model never learned anything, or its weights are not finite.
        IntegrityError: If they are not the ones that the card names.
        CdpipeError: If the exported network gives other probabilities than torch.
    """
    form = FORMATS[kind]
    check_exportable(folder, card, kind, out)
    check_trained(folder, card)
    network = nn.Sequential(load_network(folder, card), nn.Sigmoid()).requires_grad_(False).eval()
    own = {"format": kind, "torch": torch.__version__, **({"opset": OPSET} if kind == "onnx" else {})}
    contract = {**describe_contract(card, batch), "file": own}
    scene = torch.from_numpy(random_scene(card.recipe, (batch, card.recipe.channels, card.patch, card.patch)))
    with tempfile.TemporaryDirectory() as made:
        file = Path(made) / f"{out.stem}{form.suffix}"
        with _quiet():
            try:
                run = form.write(network, torch.zeros_like(scene), contract, file)
            except Exception as error:
                cause: BaseException = error
                while cause.__cause__ is not None:  # what exporters say of it is long, and coloured
                    cause = cause.__cause__
                raise ConfigError(
                    f"model {folder}: {card.architecture} cannot be exported to {kind}: "
                    f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
                ) from error
            with torch.inference_mode():
                expected = network(scene).numpy()
            difference = float(np.abs(run(scene.numpy()) - expected).max())
        if not difference <= CLOSE:
            raise CdpipeError(
                f"model {folder}: as {kind} its probabilities differ from torch's by up to {difference:.2g}, expected "
                f"at most {CLOSE:g}; nothing was written"
            )
        parts = sorted(Path(made).iterdir(), key=lambda path: path.suffix == form.suffix)  # what is opened comes last
        for part in parts:
            out.with_name(part.name).write(part.read_bytes())
    return Exported(tuple(out.with_name(part.name) for part in reversed(parts)), contract, difference)


def check_exportable(folder: Location, card: ModelCard, kind: str, out: Location) -> None:
    """Refuse what cannot be exported before any work.

    Raises:
        ConfigError: See :func:`export_network`.
    """
    form = FORMATS[kind]
    if card.is_detector:
        raise ConfigError(f"model {folder}: {card.architecture} is a detector and has no network to export")
    if out.suffix.lower() != form.suffix:
        raise ConfigError(f"{out}: expected a name that ends in {form.suffix} for {kind}")
    missing = [name for name in form.packages if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export to {kind} needs the package(s) {', '.join(missing)}, not installed here; install cdpipe with its "
            f"extra [{form.extra}], or export to pt2, which needs torch alone"
        )


def random_scene(recipe: Recipe, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Input as a model's own normalisation gives it: normal deviates, clipped as it clips; always the same."""
    dates = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    if recipe.clip is not None:
        dates = dates.clip(-recipe.clip, recipe.clip)
    differs = np.array(["minus" in name for name in name_channels(recipe)])[:, None, None]
    return np.asarray(np.where(differs, dates[0] - dates[1], dates[0]), np.float32)


def _write_onnx(network: nn.Module, example: Tensor, contract: Mapping[str, Any], file: Path) -> Run:
    onnx, runtime = import_module("onnx"), import_module("onnxruntime")
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        opset_version=OPSET,
        verbose=False,
    )
    model = program.model_proto  # type: ignore[union-attr]  # of the exporter that is asked for
    onnx.helper.set_model_props(model, {KEY: json.dumps(contract)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, file)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda scene: np.asarray(session.run([OUTPUT], {INPUT: scene})[0])


def _write_pt2(network: nn.Module, example: Tensor, contract: Mapping[str, Any], file: Path) -> Run:
    torch.export.save(torch.export.export(network, (example,)), file, extra_files={PT2_CONTRACT: json.dumps(contract)})
    loaded = torch.export.load(file).module()
    return lambda scene: np.asarray(loaded(torch.from_numpy(scene)).detach().numpy())


def _write_openvino(network: nn.Module, example: Tensor, contract: Mapping[str, Any], file: Path) -> Run:
    openvino = import_module("openvino")
    model = openvino.convert_model(torch.export.export(network, (example,)))
    model.reshape(list(example.shape))
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    model.set_friendly_name(contract["model"]["name"])
    for number, node in enumerate(model.get_ordered_ops()):  # whose own names have numbers of this process
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    model.set_rt_info(json.dumps(contract), [KEY])
    openvino.save_model(model, file, compress_to_fp16=False)
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda scene: np.asarray(compiled(scene)[OUTPUT])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell how far they are, warn of what they do themselves, and log where they fail."""
    logged = logging.root.manager.disable
    logging.disable()
    try:
        said = io.StringIO()
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        logging.disable(logged)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), "onnx", _write_onnx, "onnxruntime"),
        "pt2": Format(".pt2", (), "", _write_pt2, "torch"),
        "openvino": Format(".xml", ("openvino",), "openvino", _write_openvino, "openvino"),
    }
)
