"""Networks in the format of ncnn: a list of layers as text, and their weights as bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nasmw.devices.tracing import (
    Graph,
    Node,
    UnsupportedOperatorError,
    Value,
    fold_batch_norms,
    limits,
    scale_and_shift,
    trace,
)
from nasmw.errors import DeviceError

__all__ = ["export_ncnn"]

MAGIC = "7767517"
Parameters: TypeAlias = "dict[int, int | float | list[int] | list[float]]"
Emit: TypeAlias = "Callable[[_Writer, Node], None]"
ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM, POWER, SUBTRACT_FROM, DIVIDE_INTO = range(9)
MEAN = 3
OPERATORS: dict[str, Emit] = {}


def export_ncnn(model: nn.Module, example: Tensor) -> tuple[bytes, bytes]:
    """Return a network as the contents of ncnn's two files, ``.param`` and ``.bin``.

    Batch norms right after a convolution are merged into its weights, and an activation after that becomes part of the
    convolution. Inputs are named ``"input"``, outputs ``"output"``, with a number where there are several.

    Args:
        model: The network; it is left in the mode that it was in.
        example: Its input, of batch size 1.

    Raises:
        DeviceError: If the batch size is not 1, or an operator cannot be written; names it.
    """
    if example.ndim < 2 or example.shape[0] != 1:
        raise DeviceError(f"ncnn has no batches: it takes an example of batch size 1, got shape {tuple(example.shape)}")
    try:
        graph = fold_batch_norms(trace(model, example, OPERATORS))
        return _Writer(graph).write()
    except UnsupportedOperatorError as error:
        raise DeviceError(
            f"{type(model).__name__} cannot be written for ncnn: nasmw does not write its operator {error}; measure it "
            "on another device, or replace the operator"
        ) from None


class _Writer:
    """Collects layers; values lose their first axis, the batch of 1.

    A layer names what it takes and gives. ncnn wants a layer of its own where a result is taken several times; those
    are put in at the end.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[tuple[str, list[str], list[str], Parameters]] = []
        self.weights: list[bytes] = []
        self.names: dict[Value, str] = {}
        self.flat: set[str] = set()
        self.taken_in: set[Node] = set()
        self.readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for value in node.inputs():
                self.readers.setdefault(value, []).append(node)

    def write(self) -> tuple[bytes, bytes]:
        graph = self.graph
        for number, value in enumerate(graph.inputs):
            self.names[value] = "input" if len(graph.inputs) == 1 else f"input{number}"
            self.layers.append(("Input", [], [self.names[value]], {}))
        for node in graph.nodes:
            if node not in self.taken_in:
                OPERATORS[node.operator](self, node)
        for number, output in enumerate(graph.outputs):
            if not isinstance(output, Value):
                raise UnsupportedOperatorError("constant", "an output that does not depend on the input")
            name = "output" if len(graph.outputs) == 1 else f"output{number}"
            self.layers.append(("Noop", [self.solid(output)], [name], {}))
        layers = _split(self.layers)
        blobs = sum(len(gives) for _, _, gives, _ in layers)
        lines = [MAGIC, f"{len(layers)} {blobs}"]
        for number, (kind, takes, gives, parameters) in enumerate(layers):
            written = [_written(key, value) for key, value in parameters.items()]
            lines.append(" ".join([kind, f"layer{number}", str(len(takes)), str(len(gives)), *takes, *gives, *written]))
        return ("\n".join(lines) + "\n").encode(), b"".join(self.weights)

    def add(self, kind: str, takes: Sequence[str], output: Value | str, parameters: Parameters | None = None) -> str:
        """Add a layer with one result, and return the name of that."""
        name = output if isinstance(output, str) else f"value{output.number}"
        if isinstance(output, Value):
            self.names[output] = name
        self.layers.append((kind, list(takes), [name], parameters or {}))
        return name

    def name(self, item: Any, node: Node | None = None) -> str:
        """Return the name of a value, or of a constant, which becomes a layer."""
        if isinstance(item, Value):
            return self.names[item]
        if not isinstance(item, Tensor):
            raise UnsupportedOperatorError(node.operator if node else "constant", f"an argument {item!r}")
        if not 2 <= item.ndim <= 5 or item.shape[0] != 1 or item.dtype != torch.float32:
            raise UnsupportedOperatorError(
                node.operator if node else "constant", f"a constant of shape {tuple(item.shape)}"
            )
        return self.memory(item[0])

    def memory(self, tensor: Tensor) -> str:
        """Add a layer that gives a constant, without a batch."""
        name = self.add("MemoryData", [], f"constant{len(self.layers)}", _sizes(tensor.shape))
        self.weight(tensor)
        return name

    def solid(self, value: Any, node: Node | None = None) -> str:
        """Return the name of a value with all of its axes, also where ncnn's pooling has left them out."""
        name = self.name(value, node)
        if name in self.flat and len(value.shape) > 2:
            name = self.add("Reshape", [name], f"{name}_solid", _sizes(value.shape[1:]))
            self.names[value] = name
        return name

    def weight(self, tensor: Tensor, tagged: bool = False) -> None:
        """Add weights; the large ones of a layer are tagged as plain floats."""
        if tagged:
            self.weights.append(struct.pack("<i", 0))
        self.weights.append(tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())

    def activation(self, node: Node) -> tuple[Parameters, Value]:
        """Take in the activation that alone reads a node's output; return its parameters and the output."""
        readers = self.readers.get(node.output, [])
        if len(readers) != 1 or node.output in self.graph.outputs:
            return {}, node.output
        (reader,) = readers
        made = _activation(reader)
        if made is None:
            return {}, node.output
        self.taken_in.add(reader)
        kind, numbers = made
        return {9: kind, **({10: numbers} if numbers else {})}, reader.output


def _activation(node: Node) -> tuple[int, list[float]] | None:
    """Return how ncnn's layers with weights name an activation, or None where it is none of theirs."""
    if node.operator == "relu":
        return 1, []
    if node.operator == "leaky_relu":
        return 2, [float(node.arguments["negative_slope"])]
    if node.operator in ("relu6", "hardtanh", "clamp"):
        return 3, _limits(node)
    if node.operator == "sigmoid":
        return 4, []
    if node.operator == "hardswish":
        return 6, [1 / 6, 0.5]
    return None


def _split(layers: list[tuple[str, list[str], list[str], Parameters]]) -> list[Any]:
    """Return the layers with one that copies after each whose result is taken several times."""
    counts: dict[str, int] = {}
    for _, takes, _, _ in layers:
        for name in takes:
            counts[name] = counts.get(name, 0) + 1
    copies = {name: iter(range(count)) for name, count in counts.items() if count > 1}
    result: list[Any] = []
    for kind, takes, gives, parameters in layers:
        renamed = [f"{name}_{next(copies[name])}" if name in copies else name for name in takes]
        result.append((kind, renamed, gives, parameters))
        for name in gives:
            if name in copies:
                result.append(("Split", [name], [f"{name}_{number}" for number in range(counts[name])], {}))
    return result


def _written(key: int, value: float | Sequence[float]) -> str:
    """Return a parameter as text; the keys of lists are counted downwards from -23300."""
    if isinstance(value, list):
        return f"{-23300 - key}={len(value)}," + ",".join(_number(item) for item in value)
    assert isinstance(value, (int, float))
    return f"{key}={_number(value)}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:e}"


def _sizes(shape: Sequence[int]) -> Parameters:
    """Return the sizes of a tensor without a batch, as the layers Reshape and MemoryData take them."""
    keys = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}
    if len(shape) not in keys:
        raise UnsupportedOperatorError("reshape", f"to {len(shape)} axes beside the batch")
    return {key: int(size) for key, size in reversed(list(zip(keys[len(shape)], shape, strict=True)))}


def _writes(*names: str) -> Callable[[Emit], Emit]:
    def register(emit: Emit) -> Emit:
        OPERATORS.update(dict.fromkeys(names, emit))
        return emit

    return register


# -- layers with weights ------------------------------------------------------------------------------------------


@_writes("conv2d")
def _convolution(writer: _Writer, node: Node) -> None:
    given = node.arguments
    weight, bias = given["weight"], given["bias"]
    if not isinstance(weight, Tensor) or isinstance(given["padding"], str):
        raise UnsupportedOperatorError("conv2d", "weights that depend on the input, or padding by name")
    (top, left), (down, right) = _pair(given["padding"]), _pair(given["stride"])
    spread = _pair(given["dilation"])
    parameters: Parameters = {
        0: weight.shape[0],
        1: weight.shape[3],
        11: weight.shape[2],
        2: spread[1],
        12: spread[0],
        3: right,
        13: down,
        4: left,
        14: top,
        5: int(bias is not None),
        6: weight.numel(),
    }
    kind = "Convolution"
    if given["groups"] > 1:
        kind = "ConvolutionDepthWise"
        parameters[7] = given["groups"]
    x = given["input"]
    pointwise = tuple(weight.shape[2:]) == (1, 1) and given["groups"] == 1 and (top, left) == (0, 0)
    flat = writer.name(x) in writer.flat and pointwise
    source = writer.name(x) if flat else writer.solid(x)
    activation, output = writer.activation(node)
    name = writer.add(kind, [source], output, parameters | activation)
    if flat:
        writer.flat.add(name)
    writer.weight(weight, tagged=True)
    if bias is not None:
        writer.weight(bias)


@_writes("linear")
def _linear(writer: _Writer, node: Node) -> None:
    weight, bias = node.arguments["weight"], node.arguments["bias"]
    x = node.arguments["input"]
    if not isinstance(weight, Tensor) or len(x.shape) not in (2, 3):
        raise UnsupportedOperatorError("linear", f"on an input of shape {tuple(x.shape)}")
    activation, output = writer.activation(node)
    parameters: Parameters = {0: weight.shape[0], 1: int(bias is not None), 2: weight.numel()}
    writer.add("InnerProduct", [writer.solid(x)], output, parameters | activation)
    writer.weight(weight, tagged=True)
    if bias is not None:
        writer.weight(bias)


@_writes("batch_norm")
def _batch_norm(writer: _Writer, node: Node) -> None:
    if node.arguments["training"] or node.arguments["running_mean"] is None:
        raise UnsupportedOperatorError("batch_norm", "it takes the statistics of its input")
    scale, shift = scale_and_shift(node)
    zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
    writer.add("BatchNorm", [writer.solid(node.arguments["input"])], node.output, {0: len(scale), 1: 0.0})
    for tensor in (scale, zeros, ones, shift):
        writer.weight(tensor)


@_writes("layer_norm")
def _layer_norm(writer: _Writer, node: Node) -> None:
    given = node.arguments
    if len(given["normalized_shape"]) != 1:
        raise UnsupportedOperatorError("layer_norm", "over several axes")
    (size,) = given["normalized_shape"]
    weight = torch.ones(size) if given["weight"] is None else given["weight"]
    bias = torch.zeros(size) if given["bias"] is None else given["bias"]
    writer.add("LayerNorm", [writer.solid(given["input"])], node.output, {0: size, 1: float(given["eps"]), 2: 1})
    writer.weight(weight)
    writer.weight(bias)


# -- activations --------------------------------------------------------------------------------------------------


def _plain(kind: str, parameters: Parameters | None = None) -> Emit:
    def emit(writer: _Writer, node: Node) -> None:
        _elementwise(writer, node, kind, parameters or {})

    return emit


def _elementwise(writer: _Writer, node: Node, kind: str, parameters: Parameters) -> None:
    """Add a layer that leaves the shape as it is."""
    source = writer.name(next(node.inputs()))
    name = writer.add(kind, [source], node.output, parameters)
    if source in writer.flat:
        writer.flat.add(name)


OPERATORS.update(
    {
        "relu": _plain("ReLU"),
        "hardswish": _plain("HardSwish", {0: 1 / 6, 1: 0.5}),
        "hardsigmoid": _plain("HardSigmoid", {0: 1 / 6, 1: 0.5}),
        "sigmoid": _plain("Sigmoid"),
        "silu": _plain("Swish"),
        "tanh": _plain("TanH"),
    }
)


def _limits(node: Node) -> list[float]:
    low, high = limits(node)
    largest = float(torch.finfo(torch.float32).max)
    return [-largest if low is None else float(low), largest if high is None else float(high)]


@_writes("relu6", "hardtanh", "clamp")
def _clip(writer: _Writer, node: Node) -> None:
    low, high = _limits(node)
    _elementwise(writer, node, "Clip", {0: low, 1: high})


@_writes("leaky_relu")
def _leaky_relu(writer: _Writer, node: Node) -> None:
    _elementwise(writer, node, "ReLU", {0: float(node.arguments["negative_slope"])})


@_writes("gelu")
def _gelu(writer: _Writer, node: Node) -> None:
    _elementwise(writer, node, "GELU", {0: int(node.arguments["approximate"] == "tanh")})


@_writes("softmax")
def _softmax(writer: _Writer, node: Node) -> None:
    axis = _inner_axis(node.arguments["dim"], node.output)
    writer.add("Softmax", [writer.solid(node.arguments["self"])], node.output, {0: axis, 1: 1})


# -- pooling ------------------------------------------------------------------------------------------------------


@_writes("max_pool2d", "avg_pool2d")
def _pool(writer: _Writer, node: Node) -> None:
    given = node.arguments
    kernel = _pair(given["kernel_size"])
    stride = _pair(given["stride"]) if given["stride"] else kernel
    padding = _pair(given["padding"])
    x = given["self"]
    if _pair(given.get("dilation", 1)) != (1, 1) or given.get("divisor_override") is not None or len(x.shape) != 4:
        raise UnsupportedOperatorError(node.operator, "dilation, a divisor of its own or no batch")
    reach = [size + 2 * pad - k for size, pad, k in zip(x.shape[2:], padding, kernel, strict=True)]
    if given["ceil_mode"] and any(length % step for length, step in zip(reach, stride, strict=True)):
        raise UnsupportedOperatorError(node.operator, "ceil_mode that adds a window")
    parameters: Parameters = {
        0: int(node.operator == "avg_pool2d"),
        1: kernel[1],
        11: kernel[0],
        2: stride[1],
        12: stride[0],
        3: padding[1],
        13: padding[0],
        14: padding[1],
        15: padding[0],
        5: 1,
        6: int(given.get("count_include_pad", False)),
    }
    writer.add("Pooling", [writer.solid(x)], node.output, parameters)


@_writes("adaptive_avg_pool2d")
def _adaptive_pool(writer: _Writer, node: Node) -> None:
    height, width = node.output.shape[-2:]
    if (height, width) == (1, 1):
        _global_pool(writer, node)
        return
    parameters: Parameters = {0: 1, 7: 1, 8: width, 18: height}
    writer.add("Pooling", [writer.solid(node.arguments["self"])], node.output, parameters)


def _global_pool(writer: _Writer, node: Node) -> None:
    """Add a mean over height and width; its result has the channels as its only axis."""
    name = writer.add("Pooling", [writer.solid(node.arguments["self"])], node.output, {0: 1, 4: 1})
    if len(node.output.shape) > 2:
        writer.flat.add(name)


@_writes("mean")
def _mean(writer: _Writer, node: Node) -> None:
    given = node.arguments
    x = given["self"]
    if given.get("dtype") is not None or not given.get("dim"):
        raise UnsupportedOperatorError("mean", "over all axes, or to another dtype")
    axes = sorted(_inner_axis(axis, x) for axis in given["dim"])
    if axes == [1, 2] and len(x.shape) == 4:
        _global_pool(writer, node)
        return
    parameters: Parameters = {0: MEAN, 1: 0, 3: axes, 4: int(given["keepdim"]), 5: 1}
    writer.add("Reduction", [writer.solid(x)], node.output, parameters)


# -- arithmetic ---------------------------------------------------------------------------------------------------


def _binary(kind: int, swapped: int | None = None) -> Emit:
    def emit(writer: _Writer, node: Node) -> None:
        left, right = node.arguments["self"], node.arguments["other"]
        if node.arguments.get("alpha", 1) != 1 or node.arguments.get("rounding_mode") is not None:
            raise UnsupportedOperatorError(node.operator, "a factor, or rounding")
        for other, code in ((right, kind), (left, swapped)):
            number = other.item() if isinstance(other, Tensor) and other.numel() == 1 else other
            if isinstance(number, (int, float)) and code is not None:
                _elementwise(writer, node, "BinaryOp", {0: code, 1: 1, 2: float(number)})
                return
        if all(isinstance(side, Value) and writer.name(side) in writer.flat for side in (left, right)):
            writer.flat.add(writer.add("BinaryOp", [writer.name(left), writer.name(right)], node.output, {0: kind}))
            return
        sides = [side if isinstance(side, Value) else _at_least(side, len(node.output.shape)) for side in (left, right)]
        if len({len(side.shape) for side in sides}) > 1:
            raise UnsupportedOperatorError(node.operator, f"on shapes {[tuple(side.shape) for side in sides]}")
        writer.add("BinaryOp", [writer.solid(side, node) for side in sides], node.output, {0: kind})

    return emit


def _at_least(tensor: Any, axes: int) -> Any:
    """Return a constant with leading axes of 1 until it has as many as the result."""
    if isinstance(tensor, Tensor) and tensor.ndim < axes:
        return tensor.reshape([1] * (axes - tensor.ndim) + list(tensor.shape))
    return tensor


OPERATORS.update(
    {
        "add": _binary(ADD, ADD),
        "sub": _binary(SUBTRACT, SUBTRACT_FROM),
        "rsub": _binary(SUBTRACT_FROM, SUBTRACT),
        "reciprocal": _plain("BinaryOp", {0: DIVIDE_INTO, 1: 1, 2: 1.0}),
        "mul": _binary(MULTIPLY, MULTIPLY),
        "div": _binary(DIVIDE, DIVIDE_INTO),
        "maximum": _binary(MAXIMUM, MAXIMUM),
        "minimum": _binary(MINIMUM, MINIMUM),
    }
)


# -- shapes -------------------------------------------------------------------------------------------------------


@_writes("flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze")
def _reshape(writer: _Writer, node: Node) -> None:
    x = next(node.inputs())
    if node.output.shape[:1] != (1,) or x.shape[:1] != (1,) or len(node.output.shape) < 2:
        raise UnsupportedOperatorError(node.operator, f"that moves the batch, {x.shape} to {node.output.shape}")
    name = writer.name(x)
    if name in writer.flat and len(node.output.shape) == 2:
        writer.names[node.output] = name  # it has one axis already
        return
    if len(node.output.shape) == 2:
        writer.add("Flatten", [writer.solid(x)], node.output)
    else:
        writer.add("Reshape", [writer.solid(x)], node.output, _sizes(node.output.shape[1:]))


@_writes("cat")
def _cat(writer: _Writer, node: Node) -> None:
    axis = _inner_axis(node.arguments["dim"], node.output)
    tensors = [writer.solid(tensor, node) for tensor in node.arguments["tensors"]]
    writer.add("Concat", tensors, node.output, {0: axis})


@_writes("slice")
def _slice(writer: _Writer, node: Node) -> None:
    given = node.arguments
    x = given["self"]
    axis = given["dim"] % len(x.shape)
    start, end, step = slice(given["start"], given["end"], given["step"]).indices(x.shape[axis])
    if step != 1:
        raise UnsupportedOperatorError("slice", f"in steps of {step}")
    if (start, end) == (0, x.shape[axis]):
        writer.names[node.output] = writer.name(x)
        return
    parameters: Parameters = {9: [start], 10: [end], 11: [_inner_axis(axis, x)]}
    writer.add("Crop", [writer.solid(x)], node.output, parameters)


@_writes("pad", "constant_pad_nd")
def _pad(writer: _Writer, node: Node) -> None:
    given = node.arguments
    pairs = list(given["pad"])
    if given.get("mode", "constant") != "constant" or len(pairs) > 4 or len(given["self"].shape) < 4:
        raise UnsupportedOperatorError("pad", f"{given.get('mode', 'constant')}, {pairs}")
    left, right, top, bottom = pairs + [0] * (4 - len(pairs))
    parameters: Parameters = {0: top, 1: bottom, 2: left, 3: right, 4: 0, 5: float(given["value"] or 0)}
    writer.add("Padding", [writer.solid(given["self"])], node.output, parameters)


@_writes("channel_shuffle")
def _channel_shuffle(writer: _Writer, node: Node) -> None:
    x = writer.solid(node.arguments["self"])
    writer.add("ShuffleChannel", [x], node.output, {0: node.arguments["groups"]})


def _inner_axis(axis: int, value: Value) -> int:
    """Return the number of an axis when the batch is not counted."""
    inner = axis % len(value.shape) - 1
    if inner < 0:
        raise UnsupportedOperatorError("an operator along the batch")
    return inner


def _pair(numbers: int | Sequence[int]) -> tuple[int, int]:
    """Return one number for height and one for width."""
    given = [numbers] if isinstance(numbers, int) else list(numbers)
    return given[0], given[-1]
