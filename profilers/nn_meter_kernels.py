"""The kernels of a network, as nn-Meter counts them: operators that a runtime fuses into one.

A network is traced, written down in nn-Meter's own form of a graph, and split by nn-Meter's rules. Its converters from
PyTorch and ONNX are not used: a hard-swish is one node here, which they take apart into several that no rule fuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn

from nasmw.devices.tracing import Graph, Node, UnsupportedOperatorError, Value, trace
from nasmw.errors import DeviceError, ProfilerError
from nasmw.profilers.nn_meter_package import detector, package

__all__ = ["FOLDED", "Kernel", "kernels_of", "to_ir"]

FOLDED: Mapping[str, bool] = {"BF_conv_bn": True, "BF_conv_relu": True, "BF_dwconv_bn": True, "BF_dwconv_relu": True}
"""Rules of runtimes that merge batch norm and ReLU into the convolution before them, and nothing else."""
IR = dict[str, dict[str, Any]]


@attrs.frozen
class Kernel:
    """A kernel, as far as nn-Meter tells kernels apart.

    Attributes:
        op: The operators that were fused, as in ``"conv-bn-relu"``.
        predictor: The name of the predictor that it is for; several kinds of kernels share one.
        features: What that predictor is asked about.
        size: Height and width of its input; 1 where it has none.
    """

    op: str = attrs.field(eq=False)
    predictor: str
    features: tuple[float, ...]
    size: int = attrs.field(eq=False)

    def __str__(self) -> str:
        shown = ", ".join(f"{value:g}" for value in self.features)
        return f"{self.op}({shown})"


def kernels_of(model: nn.Module, example: torch.Tensor, rules: Mapping[str, bool] = FOLDED) -> list[Kernel]:
    """Return the kernels of a network.

    Args:
        model: The network.
        example: What it is run on: one image, ``(1, channels, size, size)``, or one row.
        rules: The rules of fusion, by nn-Meter's names: ``"BF_conv_relu"`` says that a ReLU is merged into the
            convolution before it.

    Raises:
        ProfilerError: If the network has an operator that nn-Meter has no kernel for, or tells not apart from a
            cheaper or dearer one; names it.
        MissingExtraError: If nn-Meter is not installed.
    """
    return split(to_ir(model, example), rules)


def split(ir: IR, rules: Mapping[str, bool]) -> list[Kernel]:
    """Return the kernels of a graph in nn-Meter's form; see `kernels_of`."""
    nn_meter = package()
    splitter = detector(rules)
    splitter.load_graph(ir)
    found: list[Kernel] = []
    unknown: list[str] = []
    for kernel in splitter.get_kernels():
        features = nn_meter.features([kernel])
        if not features:
            unknown.append(kernel["op"])
            continue
        ((op, numbers),) = features[0].items()
        name = nn_meter.kernel_name(op)
        found.append(Kernel(op, name, tuple(map(float, numbers)), int(kernel.get("inputh", 1))))
    if unknown:
        raise ProfilerError(
            f"nn-Meter has no kernels for {_counted(unknown)}; their latency would count as 0. Write activations as "
            "modules (nn.Hardswish, squeeze-and-excite with nn.Hardsigmoid), or measure such networks on a device"
        )
    return found


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{name!r} ({names.count(name)} times)" for name in dict.fromkeys(names))


def to_ir(model: nn.Module, example: torch.Tensor) -> IR:
    """Return a network as a graph in nn-Meter's form: for each node type, attributes, shapes and neighbours.

    Shapes are those of images with the channels last. A multiplication, or an addition, by constants is a batch norm.

    Raises:
        ProfilerError: As `kernels_of` does.
    """
    if not isinstance(example, torch.Tensor) or example.shape[0] != 1:
        raise ProfilerError(
            "nn-Meter knows networks with one input and a batch of 1, got an example "
            + (f"of shape {tuple(example.shape)}" if isinstance(example, torch.Tensor) else f"that is {example!r}")
        )
    try:
        return _ir(trace(model, example, NODES))
    except UnsupportedOperatorError as error:
        raise ProfilerError(
            f"nn-Meter has no kernel for {error} in a {type(model).__name__}; its latency would count as 0"
        ) from None
    except DeviceError as error:
        raise ProfilerError(f"nn-Meter cannot take a network apart: {error}") from error


def _ir(graph: Graph) -> IR:
    ir: IR = {}
    names: dict[Value, str] = {}
    for value in graph.inputs:
        names[value] = f"input{value.number}"
        ir[names[value]] = _node("Placeholder", {}, [], [], [])
    for node in graph.nodes:
        kind, attributes = NODES[node.operator](node)
        values = list(node.inputs())
        if kind is None:
            names.update(dict.fromkeys(node.outputs, names[values[0]]))
            continue
        name = f"{kind}{node.outputs[0].number}"
        names.update(dict.fromkeys(node.outputs, name))
        sources = list(dict.fromkeys(names[value] for value in values))
        ir[name] = _node(kind, attributes, values, node.outputs, sources)
        for source in sources:
            ir[source]["outbounds"].append(name)
    return ir


def _node(
    kind: str, attributes: dict[str, Any], inputs: Sequence[Value], outputs: Sequence[Value], sources: list[str]
) -> dict[str, Any]:
    attr = {
        "type": kind,
        "attr": attributes,
        "input_shape": [_channels_last(value.shape) for value in inputs],
        "output_shape": [_channels_last(value.shape) for value in outputs],
    }
    return {"attr": attr, "inbounds": sources, "outbounds": []}


def _channels_last(shape: Sequence[int]) -> list[int]:
    if len(shape) == 2:
        return list(shape)
    if len(shape) != 4:
        raise UnsupportedOperatorError(f"an operator on {len(shape)} axes", "nn-Meter knows images and rows only")
    if shape[2] != shape[3]:
        raise UnsupportedOperatorError(
            f"an operator on a map of {shape[2]}x{shape[3]}", "nn-Meter knows square maps only"
        )
    return [shape[0], shape[2], shape[3], shape[1]]


# -- what each operator is called --------------------------------------------------------------------------------

Emitted = tuple["str | None", dict[str, Any]]
"""The type of a node and its attributes; None as the type where the operator passes its input on."""


def _one(node: Node, what: str, numbers: Any) -> int:
    """Return the number that all axes have in common."""
    found = set(numbers) if isinstance(numbers, (list, tuple)) else {numbers}
    if len(found) != 1:
        raise UnsupportedOperatorError(node.operator, f"its {what} is {numbers}, nn-Meter knows equal ones only")
    return int(found.pop())


def _conv(node: Node) -> Emitted:
    given = node.arguments
    channels, outputs, groups = given["input"].shape[1], node.output.shape[1], given["groups"]
    if _one(node, "dilation", given["dilation"]) != 1:
        raise UnsupportedOperatorError("a dilated conv2d", "nn-Meter takes it for one that is not")
    if groups > 1 and not channels == outputs == groups:
        raise UnsupportedOperatorError(f"a conv2d of {groups} groups", "nn-Meter knows dense and depthwise ones")
    kernel = _one(node, "kernel", given["weight"].shape[2:])
    stride = _one(node, "stride", given["stride"])
    return "conv", {"ks": [kernel, kernel], "strides": [stride, stride], "group": groups}


def _pool(kind: str) -> Callable[[Node], Emitted]:
    def pool(node: Node) -> Emitted:
        kernel = _one(node, "kernel", node.arguments["kernel_size"])
        stride = _one(node, "stride", node.arguments["stride"] or [kernel])
        if _one(node, "dilation", node.arguments.get("dilation", 1)) != 1:
            raise UnsupportedOperatorError(node.operator, "it is dilated")
        return kind, {"ks": [kernel, kernel], "strides": [stride, stride]}

    return pool


def _adaptive_pool(node: Node) -> Emitted:
    if _one(node, "output size", node.arguments["output_size"]) != 1:
        raise UnsupportedOperatorError(node.operator, "nn-Meter knows global pooling only")
    return "gap", {}


def _mean(node: Node) -> Emitted:
    shape, axes = node.arguments["self"].shape, node.arguments["dim"] or []
    if len(shape) != 4 or {axis % 4 for axis in axes} != {2, 3}:
        raise UnsupportedOperatorError(
            "mean", f"over the axes {axes} of {len(shape)}; nn-Meter knows it over images only"
        )
    return "gap", {}


def _linear(node: Node) -> Emitted:
    if len(node.arguments["input"].shape) != 2:
        raise UnsupportedOperatorError("linear", "nn-Meter knows it on one row only")
    return "fc", {}


def _binary(kind: str) -> Callable[[Node], Emitted]:
    def binary(node: Node) -> Emitted:
        first, *second = node.inputs()
        constants = [value for value in node.arguments.values() if isinstance(value, torch.Tensor)]
        if kind == "add" and second and second[0].shape != first.shape:
            raise UnsupportedOperatorError("add", f"of shapes {first.shape} and {second[0].shape}")
        if any(constant.numel() > node.output.shape[1] for constant in constants):
            raise UnsupportedOperatorError(kind, "of a map and a constant map")
        return (kind if second else "bn"), {}

    return binary


def _clamp(node: Node) -> Emitted:
    least = node.arguments.get("min_val", node.arguments.get("min"))
    if least != 0:
        raise UnsupportedOperatorError(node.operator, f"from {least}; nn-Meter knows it from 0 only")
    return "relu", {}


def _concat(node: Node) -> Emitted:
    inputs = node.arguments["tensors"]
    if node.arguments["dim"] % 4 != 1 or len(node.output.shape) != 4 or len(inputs) > 4:
        raise UnsupportedOperatorError("cat", "nn-Meter knows it of up to four maps, along their channels")
    return "concat", {}


def _split(node: Node) -> Emitted:
    shapes = [output.shape for output in node.outputs]
    if node.arguments["dim"] % 4 != 1 or len(shapes) != 2 or len(shapes[0]) != 4 or shapes[0] != shapes[1]:
        raise UnsupportedOperatorError(node.operator, "nn-Meter knows it into two halves of the channels only")
    return "split", {"split_dim": 3}


def _reshape(node: Node) -> Emitted:
    """Pass a tensor on where its numbers stay where they are and only axes of one element come or go."""
    (given,) = node.inputs()
    before, after = ([size for size in value.shape if size > 1] for value in (given, node.output))
    if before != after and len(after) > 1:
        raise UnsupportedOperatorError(node.operator, f"from {given.shape} to {node.output.shape}")
    return None, {}


def _plain(kind: str) -> Callable[[Node], Emitted]:
    return lambda node: (kind, {})


NODES: dict[str, Callable[[Node], Emitted]] = {
    "conv2d": _conv,
    "batch_norm": _plain("bn"),
    "relu": _plain("relu"),
    "relu6": _plain("relu"),
    "hardtanh": _clamp,
    "clamp": _clamp,
    "hardswish": _plain("hswish"),
    "hardsigmoid": _plain("hardsigmoid"),
    "add": _binary("add"),
    "mul": _binary("mul"),
    "sub": _binary("sub"),
    "div": _binary("div"),
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    "avg_pool2d": _pool("avgpool"),
    "max_pool2d": _pool("maxpool"),
    "linear": _linear,
    "channel_shuffle": _plain("channelshuffle"),
    "cat": _concat,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _split,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze"), _reshape),
}
"""What each operator of PyTorch is in nn-Meter's graphs."""
