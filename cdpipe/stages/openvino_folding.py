"""Folds doubling an image into the convolution that follows, which then multiplies less than half as often.

Decoders double their features (nearest neighbour) and convolve them with 3 x 3 taps, so that a pixel meets several taps
of a kernel. These taps summed beforehand are a transposed convolution of stride 2 with 4 x 4 taps, four of which bear
on a pixel, where there were nine (compare Shi et al., arxiv.org/abs/1609.07009). Other features that are convolved
along with the doubled ones keep their taps, and the results are added. It is the same sum in another order.
"""

from functools import reduce
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

# row k: which of a kernel's three taps meet in tap k of the transposed one, along one axis
MEETING = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float64)
PLAIN = {"strides": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1], "dilations": [1, 1]}
DOUBLED = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


def fold_doubling(model: Any) -> int:
    """Replace every 3 x 3 convolution of doubled features; the model is changed.

    Args:
        model: An ``openvino.Model`` of static shapes.

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
