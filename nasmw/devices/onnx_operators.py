"""How each operator of a traced network is written in ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from nasmw.devices.tracing import Node, UnsupportedOperatorError, Value, limits

if TYPE_CHECKING:
    from nasmw.devices.onnx_export import Writer

__all__ = ["OPERATORS"]

Emit: TypeAlias = "Callable[[Writer, Node], None]"

OPERATORS: dict[str, Emit] = {}
"""By the name of an operator, what writes it."""


def _writes(*names: str) -> Callable[[Emit], Emit]:
    def register(emit: Emit) -> Emit:
        OPERATORS.update(dict.fromkeys(names, emit))
        return emit

    return register


# -- layers -------------------------------------------------------------------------------------------------------


@_writes("conv1d", "conv2d", "conv3d")
def _convolution(writer: Writer, node: Node) -> None:
    given = node.arguments
    axes = given["weight"].ndim - 2
    if isinstance(given["padding"], str):
        raise UnsupportedOperatorError(node.operator, f"padding={given['padding']!r}")
    writer.add(
        "Conv",
        [given["input"], given["weight"], given["bias"]],
        node.output,
        kernel_shape=list(given["weight"].shape[2:]),
        strides=_each(given["stride"], axes),
        pads=_each(given["padding"], axes) * 2,
        dilations=_each(given["dilation"], axes),
        group=given["groups"],
    )


@_writes("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(writer: Writer, node: Node) -> None:
    given = node.arguments
    axes = given["weight"].ndim - 2
    writer.add(
        "ConvTranspose",
        [given["input"], given["weight"], given["bias"]],
        node.output,
        kernel_shape=list(given["weight"].shape[2:]),
        strides=_each(given["stride"], axes),
        pads=_each(given["padding"], axes) * 2,
        output_padding=_each(given["output_padding"], axes),
        dilations=_each(given["dilation"], axes),
        group=given["groups"],
    )


@_writes("linear")
def _linear(writer: Writer, node: Node) -> None:
    given = node.arguments
    weight, bias = given["weight"], given["bias"]
    if not isinstance(weight, Tensor):
        raise UnsupportedOperatorError("linear", "its weight depends on the input")
    if len(given["input"].shape) == 2:
        writer.add("Gemm", [given["input"], weight, bias], node.output, transB=1)
        return
    transposed = writer.constant(weight.mT, like=weight)
    if bias is None:
        writer.add("MatMul", [given["input"], transposed], node.output)
    else:
        writer.add("Add", [writer.new("MatMul", [given["input"], transposed]), bias], node.output)


@_writes("batch_norm")
def _batch_norm(writer: Writer, node: Node) -> None:
    given = node.arguments
    mean, variance = given["running_mean"], given["running_var"]
    if given["training"] or mean is None:
        raise UnsupportedOperatorError("batch_norm", "it takes the statistics of its input")
    weight = torch.ones_like(mean) if given["weight"] is None else given["weight"]
    bias = torch.zeros_like(mean) if given["bias"] is None else given["bias"]
    writer.add("BatchNormalization", [given["input"], weight, bias, mean, variance], node.output, epsilon=given["eps"])


@_writes("layer_norm")
def _layer_norm(writer: Writer, node: Node) -> None:
    given = node.arguments
    shape = given["normalized_shape"]
    weight = given["weight"]
    if weight is None:
        weight = torch.ones(list(shape), dtype=given["input"].dtype)
    writer.add(
        "LayerNormalization",
        [given["input"], weight, given["bias"]],
        node.output,
        axis=-len(shape),
        epsilon=given["eps"],
    )


# -- activations --------------------------------------------------------------------------------------------------


def _plain(kind: str, **attributes: Any) -> Emit:
    def emit(writer: Writer, node: Node) -> None:
        writer.add(kind, [_first(node)], node.output, **attributes)

    return emit


OPERATORS.update(
    {
        "relu": _plain("Relu"),
        "hardswish": _plain("HardSwish"),
        "hardsigmoid": _plain("HardSigmoid", alpha=1 / 6),
        "sigmoid": _plain("Sigmoid"),
        "tanh": _plain("Tanh"),
        "erf": _plain("Erf"),
        "exp": _plain("Exp"),
        "log": _plain("Log"),
        "sqrt": _plain("Sqrt"),
        "abs": _plain("Abs"),
        "neg": _plain("Neg"),
        "reciprocal": _plain("Reciprocal"),
    }
)


@_writes("hardtanh", "clamp", "relu6")
def _clip(writer: Writer, node: Node) -> None:
    ends = [None if end is None else writer.number(end, node.output.dtype) for end in limits(node)]
    writer.add("Clip", [_first(node), *ends], node.output)


@_writes("silu")
def _silu(writer: Writer, node: Node) -> None:
    x = _first(node)
    writer.add("Mul", [x, writer.new("Sigmoid", [x])], node.output)


@_writes("leaky_relu")
def _leaky_relu(writer: Writer, node: Node) -> None:
    writer.add("LeakyRelu", [_first(node)], node.output, alpha=node.arguments["negative_slope"])


@_writes("elu")
def _elu(writer: Writer, node: Node) -> None:
    if (node.arguments["scale"], node.arguments["input_scale"]) != (1, 1):
        raise UnsupportedOperatorError("elu", "a scale")
    writer.add("Elu", [_first(node)], node.output, alpha=node.arguments["alpha"])


@_writes("gelu")
def _gelu(writer: Writer, node: Node) -> None:
    x = _first(node)

    def number(value: float) -> str:
        return writer.number(value, node.output.dtype)

    if node.arguments["approximate"] == "none":
        inner = writer.new("Erf", [writer.new("Div", [x, number(math.sqrt(2))])])
        writer.add("Mul", [writer.new("Mul", [x, writer.new("Add", [inner, number(1.0)])]), number(0.5)], node.output)
        return
    cube = writer.new("Mul", [writer.new("Mul", [x, x]), x])
    sum_ = writer.new("Add", [x, writer.new("Mul", [cube, number(0.044715)])])
    inner = writer.new("Tanh", [writer.new("Mul", [sum_, number(math.sqrt(2 / math.pi))])])
    half = writer.new("Mul", [x, number(0.5)])
    writer.add("Mul", [half, writer.new("Add", [inner, number(1.0)])], node.output)


@_writes("softmax", "log_softmax", "_softmax", "_log_softmax")
def _softmax(writer: Writer, node: Node) -> None:
    kind = "LogSoftmax" if "log" in node.operator else "Softmax"
    writer.add(kind, [_first(node)], node.output, axis=_axis(node.arguments["dim"], node.output))


# -- pooling ------------------------------------------------------------------------------------------------------


@_writes("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d")
def _pool(writer: Writer, node: Node) -> None:
    given = node.arguments
    axes = int(node.operator[-2])
    x = given["self"]
    if len(x.shape) != axes + 2:
        raise UnsupportedOperatorError(node.operator, "an input without a batch")
    kernel = _each(given["kernel_size"], axes)
    strides = _each(given["stride"] or kernel, axes)
    padding = _each(given["padding"], axes)
    dilation = _each(given.get("dilation", 1), axes)
    # Rounding up matters only where the last window would be cut off.
    ceil = False
    if given["ceil_mode"]:
        windows = zip(x.shape[2:], padding, dilation, kernel, strict=True)
        reach = [size + 2 * pad - spread * (k - 1) - 1 for size, pad, spread, k in windows]
        ceil = any(length % stride for length, stride in zip(reach, strides, strict=True))
        if ceil and any(padding):
            raise UnsupportedOperatorError(node.operator, "ceil_mode with padding")
    window = {"kernel_shape": kernel, "strides": strides, "pads": padding * 2, "ceil_mode": int(ceil)}
    if node.operator.startswith("max"):
        writer.add("MaxPool", [x], node.output, dilations=dilation, **window)
        return
    if given.get("divisor_override") is not None:
        raise UnsupportedOperatorError(node.operator, "divisor_override")
    writer.add("AveragePool", [x], node.output, count_include_pad=int(given["count_include_pad"]), **window)


@_writes("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive_pool(writer: Writer, node: Node) -> None:
    x = node.arguments["self"]
    output = node.outputs[0]
    axes = int(node.operator[-2])
    if len(x.shape) != axes + 2:
        raise UnsupportedOperatorError(node.operator, "an input without a batch")
    kind = "MaxPool" if "max" in node.operator else "AveragePool"
    sizes, wanted = x.shape[2:], output.shape[2:]
    if all(size == 1 for size in wanted):
        writer.add(f"Global{kind}", [x], output)
        return
    if any(size % want for size, want in zip(sizes, wanted, strict=True)):
        raise UnsupportedOperatorError(node.operator, f"windows of unequal sizes, {sizes} to {wanted}")
    kernel = [size // want for size, want in zip(sizes, wanted, strict=True)]
    writer.add(kind, [x], output, kernel_shape=kernel, strides=kernel)


@_writes("mean", "sum", "amax", "amin")
def _reduce(writer: Writer, node: Node) -> None:
    given = node.arguments
    kind = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin"}[node.operator]
    x = given["self"]
    if given.get("dtype") is not None or not x.dtype.is_floating_point:
        raise UnsupportedOperatorError(node.operator, "another dtype")
    axes = given.get("dim")
    axes = list(range(len(x.shape))) if axes is None or axes == [] else [_axis(axis, x) for axis in _list(axes)]
    keep = bool(given.get("keepdim", False))
    if node.operator == "mean" and keep and len(x.shape) == 4 and sorted(axes) == [2, 3]:
        writer.add("GlobalAveragePool", [x], node.output)
    elif kind == "ReduceSum":
        writer.add(kind, [x, writer.numbers(axes)], node.output, keepdims=int(keep))
    else:
        writer.add(kind, [x], node.output, axes=axes, keepdims=int(keep))


# -- arithmetic ---------------------------------------------------------------------------------------------------


def _binary(kind: str, left: str = "self", right: str = "other") -> Emit:
    def emit(writer: Writer, node: Node) -> None:
        given = node.arguments
        terms = [given[left], given[right]]
        if node.operator == "rsub":
            terms.reverse()
        if given.get("alpha", 1) != 1 or given.get("rounding_mode") is not None:
            raise UnsupportedOperatorError(node.operator, "a factor, or rounding")
        writer.add(kind, [_operand(writer, term, node) for term in terms], node.output)

    return emit


def _operand(writer: Writer, term: Any, node: Node) -> Any:
    """Return an operand in the result's kind of numbers."""
    if isinstance(term, (int, float)):
        return writer.number(term, node.output.dtype)
    if isinstance(term, (Value, Tensor)) and term.dtype != node.output.dtype:
        raise UnsupportedOperatorError(node.operator, f"{term.dtype} with {node.output.dtype}")
    return term


OPERATORS.update(
    {
        "add": _binary("Add"),
        "sub": _binary("Sub"),
        "rsub": _binary("Sub"),
        "mul": _binary("Mul"),
        "div": _binary("Div"),
        "maximum": _binary("Max"),
        "minimum": _binary("Min"),
        "pow": _binary("Pow", right="exponent"),
        "matmul": _binary("MatMul"),
        "mm": _binary("MatMul", right="mat2"),
        "bmm": _binary("MatMul", right="mat2"),
    }
)


@_writes("rsqrt")
def _rsqrt(writer: Writer, node: Node) -> None:
    writer.add("Reciprocal", [writer.new("Sqrt", [_first(node)])], node.output)


@_writes("addmm")
def _addmm(writer: Writer, node: Node) -> None:
    given = node.arguments
    writer.add(
        "Gemm",
        [given["mat1"], given["mat2"], given["self"]],
        node.output,
        alpha=float(given["alpha"]),
        beta=float(given["beta"]),
    )


@_writes("scaled_dot_product_attention")
def _attention(writer: Writer, node: Node) -> None:
    given = node.arguments
    query, key, value, mask = (given[name] for name in ("query", "key", "value", "attn_mask"))
    if given["dropout_p"] or given["is_causal"] or given["enable_gqa"] or not isinstance(key, Value):
        raise UnsupportedOperatorError(node.operator, "dropout, causal, grouped or constant")
    scale = given["scale"] if given["scale"] is not None else query.shape[-1] ** -0.5
    axes = list(range(len(key.shape)))
    transposed = writer.new("Transpose", [key], perm=[*axes[:-2], axes[-1], axes[-2]])
    scores = writer.new("MatMul", [query, transposed])
    scores = writer.new("Mul", [scores, writer.number(scale, node.output.dtype)])
    if mask is not None:
        if not mask.dtype.is_floating_point:
            raise UnsupportedOperatorError(node.operator, "a mask that is no float")
        scores = writer.new("Add", [scores, mask])
    writer.add("MatMul", [writer.new("Softmax", [scores], axis=-1), value], node.output)


# -- shapes -------------------------------------------------------------------------------------------------------


@_writes("flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "unflatten")
def _reshape(writer: Writer, node: Node) -> None:
    given = next(node.inputs())
    if node.operator == "view" and "dtype" in node.arguments:
        raise UnsupportedOperatorError("view", "another dtype")
    if node.operator == "flatten" and node.arguments["start_dim"] == 1 and len(node.output.shape) == 2:
        writer.add("Flatten", [given], node.output)
        return
    writer.add("Reshape", [given, writer.numbers(node.output.shape)], node.output)


@_writes("transpose", "t", "permute")
def _transpose(writer: Writer, node: Node) -> None:
    x = _first(node)
    axes = list(range(len(x.shape)))
    if node.operator == "permute":
        axes = [_axis(axis, x) for axis in node.arguments["dims"]]
    elif node.operator == "t":
        axes.reverse()
    else:
        first, second = (_axis(node.arguments[name], x) for name in ("dim0", "dim1"))
        axes[first], axes[second] = axes[second], axes[first]
    writer.add("Transpose", [x], node.output, perm=axes)


@_writes("expand")
def _expand(writer: Writer, node: Node) -> None:
    writer.add("Expand", [_first(node), writer.numbers(node.output.shape)], node.output)


@_writes("cat", "stack")
def _cat(writer: Writer, node: Node) -> None:
    tensors = node.arguments["tensors"]
    axis = _axis(node.arguments["dim"], node.output)
    if node.operator == "stack":
        shape = list(node.output.shape)
        shape[axis] = 1
        tensors = [writer.new("Reshape", [tensor, writer.numbers(shape)]) for tensor in tensors]
    else:
        # PyTorch passes over empty tensors of any shape.
        tensors = [tensor for tensor in tensors if tuple(tensor.shape) != (0,)]
        tensors = [_operand(writer, tensor, node) for tensor in tensors]
    writer.add("Concat", tensors, node.output, axis=axis)


@_writes("split", "split_with_sizes", "chunk", "unbind")
def _split(writer: Writer, node: Node) -> None:
    x = _first(node)
    axis = _axis(node.arguments["dim"], x)
    if node.operator == "unbind":
        for position, output in enumerate(node.outputs):
            writer.add("Gather", [x, writer.number(position, torch.int64)], output, axis=axis)
        return
    lengths = [output.shape[axis] for output in node.outputs]
    writer.add("Split", [x, writer.numbers(lengths)], *node.outputs, axis=axis)


@_writes("slice")
def _slice(writer: Writer, node: Node) -> None:
    given = node.arguments
    x = given["self"]
    axis = _axis(given["dim"], x)
    start, end, _ = slice(given["start"], given["end"], given["step"]).indices(x.shape[axis])
    parts = [writer.numbers([number]) for number in (start, end, axis, given["step"])]
    writer.add("Slice", [x, *parts], node.output)


@_writes("select")
def _select(writer: Writer, node: Node) -> None:
    x = node.arguments["self"]
    axis = _axis(node.arguments["dim"], x)
    place = node.arguments["index"] % x.shape[axis]
    writer.add("Gather", [x, writer.number(place, torch.int64)], node.output, axis=axis)


@_writes("index")
def _index(writer: Writer, node: Node) -> None:
    x, indices = node.arguments["self"], node.arguments["indices"]
    axis = len(indices) - 1
    if any(index is not None for index in indices[:-1]) or indices[-1].dtype is not torch.int64:
        raise UnsupportedOperatorError("index", "several indices, or one that is no int64")
    writer.add("Gather", [x, indices[-1]], node.output, axis=axis)


@_writes("index_select")
def _index_select(writer: Writer, node: Node) -> None:
    x = node.arguments["self"]
    writer.add("Gather", [x, node.arguments["index"]], node.output, axis=_axis(node.arguments["dim"], x))


@_writes("embedding")
def _embedding(writer: Writer, node: Node) -> None:
    writer.add("Gather", [node.arguments["weight"], node.arguments["indices"]], node.output, axis=0)


@_writes("channel_shuffle")
def _channel_shuffle(writer: Writer, node: Node) -> None:
    x, groups = node.arguments["self"], node.arguments["groups"]
    batch, channels, *rest = x.shape
    apart = writer.new("Reshape", [x, writer.numbers([batch, groups, channels // groups, *rest])])
    turned = writer.new("Transpose", [apart], perm=[0, 2, 1, *range(3, len(rest) + 3)])
    writer.add("Reshape", [turned, writer.numbers(x.shape)], node.output)


@_writes("pixel_shuffle")
def _pixel_shuffle(writer: Writer, node: Node) -> None:
    writer.add("DepthToSpace", [_first(node)], node.output, blocksize=node.arguments["upscale_factor"], mode="CRD")


@_writes("pad", "constant_pad_nd")
def _pad(writer: Writer, node: Node) -> None:
    given = node.arguments
    mode = given.get("mode", "constant")
    if mode not in ("constant", "reflect"):
        raise UnsupportedOperatorError("pad", f"mode={mode!r}")
    x = given["self"]
    begins, ends = [0] * len(x.shape), [0] * len(x.shape)
    pairs: Sequence[int] = given["pad"]
    for position in range(len(pairs) // 2):
        begins[-1 - position], ends[-1 - position] = pairs[2 * position : 2 * position + 2]
    value = writer.number(given["value"] or 0, node.output.dtype)
    writer.add("Pad", [x, writer.numbers(begins + ends), value], node.output, mode=mode)


@_writes("to", "_to_copy")
def _cast(writer: Writer, node: Node) -> None:
    writer.add("Cast", [_first(node)], node.output, to=writer.kind(node.output.dtype))


# -- small things -------------------------------------------------------------------------------------------------


def _first(node: Node) -> Value:
    value = node.arguments.get("self", node.arguments.get("input"))
    if not isinstance(value, Value):
        raise UnsupportedOperatorError(node.operator, "a first argument that does not depend on the input")
    return value


def _axis(axis: int, value: Value | Tensor) -> int:
    """Return the number of an axis, counted from the front."""
    return axis % max(len(value.shape), 1)


def _list(numbers: int | Sequence[int]) -> list[int]:
    return [numbers] if isinstance(numbers, int) else list(numbers)


def _each(numbers: int | Sequence[int], axes: int) -> list[int]:
    """Return one number for each axis."""
    given = _list(numbers)
    return given * axes if len(given) == 1 else given
