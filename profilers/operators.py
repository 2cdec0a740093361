"""What each traced operator costs: handles over the values of a PyTorch trace, and which operators cost no MACs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["BLOCKS", "HANDLES", "KINDS", "NORMALIZATION", "POOLING", "einsum_macs", "is_free", "is_known"]

KINDS = ("conv", "linear", "matmul", "einsum", "attention", "recurrent")
"""The kinds of operators that MACs are split by."""
NORMALIZATION = "normalization"
POOLING = "pooling"

Shape = Sequence[int]
Values = Sequence[Any]
Handle = Callable[[Values, Values], "Counter[str]"]


def _shape(value: Any) -> list[int]:
    """Return the shape of a traced tensor."""
    sizes: list[int] = value.type().sizes()
    return sizes


def _is_tensor(value: Any) -> bool:
    return bool(value.isCompleteTensor())


def _size(value: Any) -> int:
    return math.prod(_shape(value))


def _counted(kind: str, formula: Callable[[Values, Values], int]) -> Handle:
    def handle(inputs: Values, outputs: Values) -> Counter[str]:
        return Counter({kind: formula(inputs, outputs)})

    return handle


def _conv(inputs: Values, outputs: Values) -> int:
    # Arguments: input, weight, bias, stride, padding, dilation, transposed. Weights are (out, in / groups, *kernel),
    # where transposed (in, out / groups, *kernel), and each element of the input meets it, not of the output.
    transposed = len(inputs) > 7 and inputs[6].toIValue()
    return _size(inputs[0] if transposed else outputs[0]) * (_size(inputs[1]) // _shape(inputs[1])[0])


def _inner(left: int) -> Callable[[Values, Values], int]:
    """Return the formula of a product whose left factor, the argument number `left`, is summed over its last axis."""
    return lambda inputs, outputs: _size(outputs[0]) * _shape(inputs[left])[-1]


def _addbmm(inputs: Values, outputs: Values) -> int:
    return _size(inputs[1]) * _shape(inputs[2])[-1]


def _tensordot(inputs: Values, outputs: Values) -> int:
    # The factors have m·k and k·n elements and the product m·n: the three sizes multiply to the square of m·n·k.
    return math.isqrt(_size(inputs[0]) * _size(inputs[1]) * _size(outputs[0]))


def _bilinear(inputs: Values, outputs: Values) -> int:
    return _size(outputs[0]) * math.prod(_shape(inputs[2])[1:])


def _attention(inputs: Values, outputs: Values) -> int:
    # query @ key, then weights @ value; a causal mask saves nothing here, as it saves nothing in a plain product.
    queries, channels = _shape(inputs[0])[-2:]
    keys, values = _shape(inputs[2])[-2:]
    return math.prod(_shape(outputs[0])[:-2]) * queries * keys * (channels + values)


def _recurrent(inputs: Values, outputs: Values) -> int:
    # Each matrix of each layer and direction meets every time step of every sequence once.
    lists = [list(value.node().inputs()) for value in inputs if value.node().kind() == "prim::ListConstruct"]
    matrices = [value for values in lists for value in values if _is_tensor(value) and len(_shape(value)) == 2]
    steps = math.prod(_shape(inputs[0])[:-1])
    return steps * sum(_size(matrix) for matrix in matrices)


def _einsum(inputs: Values, outputs: Values) -> int:
    shapes = [_shape(value) for value in inputs[1].node().inputs()]
    pairs = inputs[2].node() if len(inputs) > 2 else None
    path = [value.toIValue() for value in pairs.inputs()] if pairs and pairs.kind() == "prim::ListConstruct" else None
    return einsum_macs(inputs[0].toIValue(), shapes, path)


def einsum_macs(equation: str, shapes: Sequence[Shape], path: Sequence[int] | None = None) -> int:
    """Return the multiply-adds of a contraction, its operands contracted two at a time.

    Args:
        equation: As `torch.einsum` takes it, such as ``"bhqd,bhkd->bhqk"``; ellipses and implicit outputs are known.
        shapes: The shape of each operand.
        path: The flattened order of the pairs to contract, as PyTorch hands it to its operator; None goes left to
            right.

    Returns:
        For each pair the product of the sizes of all its axes; 0 for a single operand, which is only summed.
    """
    left, _, right = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    operands: list[set[str]] = []
    hidden: set[str] = set()
    for labels, shape in zip(left.split(","), shapes, strict=True):
        before, dots, after = labels.partition("...")
        covered = len(shape) - len(before) - len(after)
        broadcast = [f"...{axis}" for axis in range(covered, 0, -1)] if dots else []
        hidden.update(broadcast)
        axes = [*before, *broadcast, *after]
        operands.append(set(axes))
        for axis, size in zip(axes, shape, strict=True):
            sizes[axis] = max(size, sizes.get(axis, 1))
    if "->" in equation:
        output = set(right.replace("...", "")) | (hidden if "..." in right else set())
    else:
        output = {axis for axis in sizes if left.count(axis) == 1} | hidden
    order = list(path) if path else [0, 1] + [0, len(operands)] * len(operands)
    macs = 0
    while len(operands) > 1:
        pair = sorted(order[:2]) if path else [0, 1]
        order = order[2:]
        second, first = operands.pop(pair[1]), operands.pop(pair[0])
        needed = output.union(*operands)
        # What only one of the two has, and nothing later needs, is summed before the product.
        first, second = first & (needed | second), second & (needed | first)
        macs += math.prod(sizes[axis] for axis in first | second)
        result = (first | second) & needed
        operands = [*operands, result] if path else [result, *operands]
    return macs


def _on_input(inputs: Values, outputs: Values) -> int:
    return _size(inputs[0])


HANDLES: dict[str, Handle] = {
    **{f"aten::{name}": _counted("conv", _conv) for name in ("_convolution", "_convolution_mode")},
    "aten::linear": _counted("linear", _inner(0)),
    "aten::addmm": _counted("linear", _inner(1)),
    "aten::bilinear": _counted("linear", _bilinear),
    **{
        f"aten::{name}": _counted("matmul", _inner(0)) for name in ("matmul", "mm", "bmm", "mv", "dot", "vdot", "inner")
    },
    **{f"aten::{name}": _counted("matmul", _inner(1)) for name in ("baddbmm", "baddbmm_", "addmm_", "addmv")},
    "aten::addbmm": _counted("matmul", _addbmm),
    "aten::tensordot": _counted("matmul", _tensordot),
    "aten::einsum": _counted("einsum", _einsum),
    "aten::scaled_dot_product_attention": _counted("attention", _attention),
    **{f"aten::{name}": _counted("recurrent", _recurrent) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **{
        f"aten::{name}": _counted(NORMALIZATION, _on_input)
        for name in ("batch_norm", "group_norm", "layer_norm", "instance_norm", "rms_norm")
    },
    **{
        f"aten::{kind}_pool{axes}d{suffix}": _counted(POOLING, _on_input)
        for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "fractional_max")
        for axes in (1, 2, 3)
        for suffix in ("", "_with_indices")
    },
}
"""What is counted, by the name of the traced operator."""

BLOCKS = ("prim::If", "prim::Loop", "prim::CallMethod", "prim::fork")
"""Scripted control flow: what it does stands in blocks that a walk over a trace does not enter."""

_FREE_NAMES = """
all alpha_dropout amax amin aminmax any arange argmax argmin argsort bernoulli bincount Bool bucketize cat
channel_shuffle col2im concat concatenate constant_pad_nd copy copy_ count_nonzero cross cummax cummin cumprod cumsum
cumsum_ diag diag_embed diff dropout dropout_ dstack einsum_path embedding embedding_bag empty empty_like eye
fake_quantize_per_channel_affine fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine
fake_quantize_per_tensor_affine_cachemask feature_alpha_dropout feature_dropout fill fill_ flip fliplr flipud Float
FloatImplicit floor_divide frobenius_norm full full_like gather glu grid_sampler hardswish hardswish_ hstack im2col
index index_add index_copy index_fill index_put index_put_ index_select Int IntImplicit isin item kthvalue len
linalg_vector_norm linspace log_sigmoid log_softmax logcumsumexp logsumexp masked_scatter masked_select max_unpool2d
mean median meshgrid mode multinomial nanmean nansum native_dropout new_empty new_full new_ones new_zeros nonzero norm
normal normal_ normalize one_hot ones ones_like outer pad pixel_shuffle pixel_unshuffle poisson prelu prod quantile
rand rand_like randint randn randn_like randperm reflection_pad1d reflection_pad2d reflection_pad3d relu6_ repeat
repeat_interleave replication_pad1d replication_pad2d replication_pad3d roll rot90 rrelu_ scalar_tensor ScalarImplicit
scatter scatter_ scatter_add scatter_add_ scatter_reduce searchsorted size slice softmax sort split stack std std_mean
sum take take_along_dim tensor tile topk tril tril_indices triu triu_indices type_as unique unique_consecutive
unsafe_chunk unsafe_split unsqueeze_ upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
upsample_nearest2d upsample_nearest3d upsample_nearest_exact2d upsample_trilinear3d var var_mean vstack warn zero_
zeros zeros_like __and__ __getitem__ __is__ __isnot__ __not__ __or__ _assert_async _cast_Float _cast_Half
_log_softmax _to_copy _pack_padded_sequence _pad_packed_sequence _prelu_kernel _safe_softmax _shape_as_tensor _softmax
_unique2 _unsafe_view _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm
"""
_FREE = frozenset(_FREE_NAMES.split())


@lru_cache(maxsize=4096)
def is_free(kind: str) -> bool:
    """Return whether an operator is known to cost no MACs: elementwise, a view, a reduction, moving or making data.

    Args:
        kind: The name in a trace, such as ``"aten::relu"``.
    """
    import torch

    namespace, _, name = kind.partition("::")
    if namespace != "aten":
        return False
    if name in _FREE:
        return True
    packet = getattr(torch.ops.aten, name, None)
    if packet is None:
        return False
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    if any({torch.Tag.pointwise, torch.Tag.inplace_view} & set(overload.tags) for overload in overloads):
        return True
    returned = [value.alias_info for overload in overloads for value in overload._schema.returns]
    return bool(returned) and all(alias is not None and not alias.is_write for alias in returned)


_NORMS_AND_POOLS = """
native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_no_update native_layer_norm
native_group_norm _fused_rms_norm _adaptive_avg_pool2d _adaptive_avg_pool3d
"""
_KNOWN = frozenset(_NORMS_AND_POOLS.split())


@lru_cache(maxsize=4096)
def is_known(kind: str) -> bool:
    """Return whether an operator, as it runs below the functions that a trace names, is known to cost no MACs."""
    return is_free(kind) or kind in HANDLES or kind.partition("::")[2] in _KNOWN
