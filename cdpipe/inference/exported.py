"""Networks that came as one file: run by onnxruntime, or of a ``.pt2`` operator by operator, in float32 on the CPU."""

from collections.abc import Callable
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from cdpipe.errors import InputError
from cdpipe.inference.backends import check_runtime
from cdpipe.inference.graphs import load_graph
from cdpipe.inference.patches import Execution, Forward
from cdpipe.inference.torch import forward_of
from cdpipe.models.folder import ModelCard, check_weights, weights_file
from cdpipe.workspace.location import Location


def make_exported_forward(folder: Location, card: ModelCard, execution: Execution) -> Forward:
    """A network of a file as a function from patches to probabilities.

    Args:
        folder: The file, or a model's folder with it.
        card: Its card.
        execution: How it is run.

    Raises:
        ConfigError: If onnxruntime is not installed and needed.
        InputError: If the file holds what is not run, or takes or gives something else than its contract says.
        IntegrityError: If it is not the one that the card names.
    """
    check_weights(folder, card)
    file, at_once = weights_file(folder, card), int(card.arguments["batch"])
    run = (_open_onnx if card.arguments["runtime"] == "onnx" else _open_pt2)(file, card)
    _try(file, card, run)

    def probabilities(views: Tensor) -> Tensor:
        found = []
        for call in torch.split(views, at_once):
            beyond = call.new_zeros(at_once - len(call), *call.shape[1:])  # the file takes neither more nor fewer
            found.append(run(torch.cat([call, beyond]))[: len(call)])
        return torch.cat(found)

    return forward_of(probabilities, execution)


def _try(file: Location, card: ModelCard, run: Callable[[Tensor], Tensor]) -> None:
    """Run a network once on nothing: what it cannot do, it cannot do for any scene."""
    batch, side = int(card.arguments["batch"]), card.patch
    try:
        with torch.inference_mode():
            found = run(torch.zeros(batch, card.recipe.channels, side, side))
        shape, kind = tuple(found.shape), found.dtype
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"model {file}: cannot be run: {said}; export it again") from error
    if (shape, kind) != ((batch, 1, side, side), torch.float32):
        raise InputError(f"model {file}: gives {kind} of {shape}, which is not what its contract says; export it again")


def _open_onnx(file: Location, card: ModelCard) -> Callable[[Tensor], Tensor]:
    check_runtime(file, "onnx")
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source, result = card.arguments["names"]
    try:
        # of bytes, so that it finds no file of weights beside it that nobody hashed
        session = runtime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"model {file}: onnxruntime does not run it: {said}") from error
    return lambda views: torch.from_numpy(np.asarray(session.run([result], {source: views.numpy()})[0]))


def _open_pt2(file: Location, _card: ModelCard) -> Callable[[Tensor], Tensor]:
    with file.file_on_disk() as path:
        return load_graph(path)
