"""The graph of a ``.pt2`` file, run operator by operator.

``torch.export.load`` unpickles objects, evaluates expressions and compiles guards that a file may hold, so that a file
could run any code. Here tensors are made of raw bytes, and of a graph only named operators are run that compute a
tensor of tensors; whatever else there is refuses the file.
Format: schema version 8 of https://github.com/pytorch/pytorch/blob/main/torch/_export/serde/schema.py.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdpipe.errors import InputError

SCHEMA = 8
DTYPES = {1: torch.uint8, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32, 8: torch.float64,
          12: torch.bool, 13: torch.bfloat16}  # fmt: skip
# Operators of networks on tensors, without those that know files, other devices, or objects.
# fmt: off
OPERATORS = frozenset({
    "_assert_tensor_metadata", "_to_copy", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "abs",
    "adaptive_avg_pool2d", "add", "add_", "alias", "amax", "amin", "arange", "avg_pool2d", "batch_norm", "bmm", "cat",
    "chunk", "clamp", "clone", "constant_pad_nd", "contiguous", "conv2d", "conv_transpose2d", "cos", "detach",
    "detach_", "div", "div_", "dropout", "dropout_", "einsum", "elu", "eq", "exp", "expand", "expand_as",
    "feature_dropout", "feature_dropout_", "fill", "flatten", "floor_divide", "full", "full_like", "ge", "gelu",
    "group_norm", "gt", "hardsigmoid", "hardswish", "hardswish_", "hardtanh", "hardtanh_", "index", "instance_norm",
    "layer_norm", "le", "leaky_relu", "leaky_relu_", "linear", "log", "lt", "matmul", "max_pool2d", "mean", "movedim",
    "mul", "mul_", "narrow", "ne", "neg", "ones", "ones_like", "outer", "pad", "permute", "pixel_shuffle", "pow",
    "relu", "relu6", "relu6_", "relu_", "repeat", "reshape", "roll", "rsqrt", "rsub", "scaled_dot_product_attention",
    "select", "sigmoid", "sigmoid_", "silu", "silu_", "sin", "slice", "softmax", "softplus", "split",
    "split_with_sizes", "sqrt", "squeeze", "stack", "sub", "sub_", "sum", "tanh", "to", "transpose", "type_as",
    "unbind", "unflatten", "unfold", "unsqueeze", "upsample_bicubic2d", "upsample_bilinear2d", "upsample_nearest2d",
    "view", "view_as", "where", "zeros", "zeros_like",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Graph:
    """A network.

    Attributes:
        tensors: Its weights, by their names in the graph.
        input: The name of what goes in.
        shape: Of that.
        output: The name of what comes out.
        nodes: Operators in order, each with the nodes' own arguments and what its results are called.
    """

    tensors: Mapping[str, Tensor]
    input: str
    shape: tuple[int, ...]
    output: str
    nodes: tuple[tuple[Callable[..., Any], Mapping[str, Any]], ...]

    def __call__(self, scene: Tensor) -> Tensor:
        """What comes out for a scene.

        Raises:
            InputError: If that is of another shape, or an operator is given what it does not understand.
        """
        if tuple(scene.shape) != self.shape:
            raise InputError(f"takes a scene of {self.shape}, got {tuple(scene.shape)}")
        values: dict[str, Any] = {**self.tensors, self.input: scene}
        for operator, node in self.nodes:
            positional = [_argument(each["arg"], values) for each in node["inputs"] if each["kind"] == 1]
            named = {each["name"]: _argument(each["arg"], values) for each in node["inputs"] if each["kind"] == 2}
            _name(node["outputs"], operator(*positional, **named), values)
        result: Tensor = values[self.output]
        return result


def load_graph(path: Path) -> Graph:
    """Read a file's graph and its weights.

    Raises:
        InputError: If it holds anything that is not run here.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except InputError as error:
        raise InputError(f"model {path}: {error}") from None
    except (
        zipfile.BadZipFile,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        RuntimeError,
        OSError,
    ) as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"model {path}: is not what this version's cdpipe export writes ({told})") from None


def _read(archive: zipfile.ZipFile) -> Graph:
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise InputError("has entries of one name")
    [model] = [name for name in names if name.endswith("/models/model.json")]
    root = model.removesuffix("models/model.json")
    program = json.loads(archive.read(model))
    if program["schema_version"]["major"] != SCHEMA:
        raise InputError(
            f"was written by torch {program.get('torch_version')}, in a format of its own; export it again with the "
            "torch that cdpipe has here, or to ONNX"
        )
    module = program["graph_module"]
    tensors, inputs = {}, []
    stored = {
        name: each
        for kind in ("weights/model_weights", "constants/model_constants")
        for name, each in _read_tensors(archive, f"{root}data/{kind}_config.json").items()
    }
    for spec in module["signature"]["input_specs"]:
        ((kind, content),) = spec.items()
        if kind == "user_input":
            inputs.append(content["arg"]["as_tensor"]["name"])
        else:
            tensors[content["arg"]["name"]] = stored[content[_NAMED[kind]]]
    [result] = module["signature"]["output_specs"]
    [source] = inputs
    nodes = tuple((_operator(node["target"]), node) for node in module["graph"]["nodes"])
    shape = tuple(side["as_int"] for side in module["graph"]["tensor_values"][source]["sizes"])
    return Graph(tensors, source, shape, result["user_output"]["arg"]["as_tensor"]["name"], nodes)


_NAMED = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}


def _read_tensors(archive: zipfile.ZipFile, name: str) -> dict[str, Tensor]:
    folder, found = name.rpartition("/")[0], {}
    for own, told in json.loads(archive.read(name))["config"].items():
        if told["use_pickle"]:
            raise InputError(f"has {own} as a Python object, which cdpipe never loads, since it may run any code")
        meta = told["tensor_meta"]
        sizes, strides = ([side["as_int"] for side in meta[each]] for each in ("sizes", "strides"))
        flat = torch.frombuffer(bytearray(archive.read(f"{folder}/{told['path_name']}")), dtype=DTYPES[meta["dtype"]])
        found[own] = torch.as_strided(flat, sizes, strides, meta["storage_offset"]["as_int"]).contiguous()
        if found[own].is_floating_point() and not torch.isfinite(found[own]).all():
            raise InputError(f"has NaN or infinity in {own}; train and export it again")
    return found


def _operator(target: str) -> Callable[..., Any]:
    head, _, rest = target.partition("torch.ops.aten.")
    name, _, overload = rest.partition(".")
    if head or name not in OPERATORS or not overload.isidentifier():
        raise InputError(
            f"has the operation {target}, which is not among those that cdpipe runs of a file; export the model to "
            "ONNX, or hand on its folder"
        )
    found: Callable[..., Any] = getattr(getattr(torch.ops.aten, name), overload)
    return found


_AS_IT_IS = ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools")
_DENSE = ("as_none", "as_layout", "as_memory_format")  # of dense tensors there is one


def _argument(argument: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    ((kind, content),) = argument.items()
    found: Any = None
    if kind == "as_tensor":
        found = values[content["name"]]
    elif kind == "as_tensors":
        found = [values[each["name"]] for each in content]
    elif kind == "as_optional_tensors":
        found = [None if "as_none" in each else values[each["as_tensor"]["name"]] for each in content]
    elif kind in _AS_IT_IS:
        found = content
    elif kind in ("as_sym_int", "as_sym_ints"):
        found = content["as_int"] if kind == "as_sym_int" else [each["as_int"] for each in content]
    elif kind == "as_scalar_type":
        found = DTYPES[content]
    elif kind == "as_device":
        found = torch.device("cpu")
    elif kind not in _DENSE:
        raise InputError(f"has an argument {kind}, which is not among those that cdpipe understands; export it to ONNX")
    return found


def _name(outputs: list[Mapping[str, Any]], result: Any, values: dict[str, Any]) -> None:
    if len(outputs) == 1 and "as_tensor" in outputs[0]:
        values[outputs[0]["as_tensor"]["name"]] = result
    elif len(outputs) == 1 and "as_tensors" in outputs[0]:
        values |= {own["name"]: each for own, each in zip(outputs[0]["as_tensors"], result, strict=True)}
    elif outputs:  # those that assert have none
        values |= {own["as_tensor"]["name"]: each for own, each in zip(outputs, result, strict=True)}
