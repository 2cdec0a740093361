"""How layers of a greatest size hold those of smaller sizes: which part of each tensor a smaller layer uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasmw.nn.switch import MixtureError

__all__ = ["RULES", "Rule", "rule_for"]

Arguments = dict[str, Any]
Index = slice | list[int]


class Rule:
    """What an elastic module needs to know of the class of its layer; a layer of one's own may have its own.

    A rule is handed to `nasmw.nn.elastic`. The defaults fit classes whose arguments grow with the tensors, and whose
    smaller tensors are the leading parts of the greater ones.

    Attributes:
        sizes: Names of arguments that decide on nothing but the sizes of tensors. In a mixture, layers that differ in
            these alone run as one layer of the greatest size, with the expected tensors.
        axis: The axis of inputs and outputs whose size these arguments decide, where a layer cannot run so: it runs
            once for each size, on the leading part of its inputs, and outputs are filled up with zeros. None: never.
        positional: The names of arguments by position, where the class takes ``*args`` and does not tell them.
    """

    sizes: frozenset[str] = frozenset()
    axis: int | None = None
    positional: tuple[str, ...] = ()

    def greatest(self, options: Sequence[Arguments]) -> Arguments:
        """Return the arguments of a layer that holds all options.

        Args:
            options: The arguments of each option, by name.
        """
        return {name: _greatest([option[name] for option in options]) for name in options[0]}

    def narrow(self, name: str, full: tuple[int, ...], shape: tuple[int, ...], arguments: Arguments) -> Sequence[Index]:
        """Return which part of a tensor a smaller layer uses: for each axis a slice or a list of indices.

        Args:
            name: The name of the tensor within the layer, such as ``"weight"``.
            full: Its shape in the greatest layer.
            shape: Its shape in the smaller layer.
            arguments: The arguments of the smaller layer.
        """
        return [slice(0, size) for size in shape]

    def written(self, name: str, arguments: Arguments) -> frozenset[int]:
        """Return the axes of a tensor along which its elements belong to one channel of the outputs each.

        A mixture whose sizes are cut off where they are read leaves these whole. A rule that does not say so is not
        mixed in this way.

        Args:
            name: The name of the tensor within the layer, such as ``"weight"``.
            arguments: The arguments of the layer.
        """
        return frozenset()

    def inputs(self, arguments: Arguments) -> dict[str, int] | None:
        """Return the sizes of inputs of ``forward`` along `axis`, by name; None where all have that of the layer.

        Args:
            arguments: The arguments of the layer.
        """
        return None

    def behaviour(self, arguments: Arguments) -> Arguments:
        """Return the arguments that are no sizes; layers that agree in them may run as one in a mixture."""
        return {name: value for name, value in arguments.items() if name not in self.sizes}

    def widest(self, group: Sequence[Arguments], all_options: Sequence[Arguments]) -> Arguments:
        """Return the arguments of the layer that runs for several options in a mixture.

        Args:
            group: Options that agree in what is no size.
            all_options: All options that are mixed; the inputs have the size of the greatest of them.

        Raises:
            MixtureError: If no single layer can stand for them.
        """
        greatest = {
            name: _greatest([option[name] for option in all_options]) for name in self.sizes if name in group[0]
        }
        return {**group[0], **greatest}


def _greatest(values: Sequence[Any]) -> Any:
    """Return the greatest of numbers, or of tuples axis by axis; the first of other things."""
    if all(isinstance(value, (int, float)) for value in values):
        return max(values)
    if all(isinstance(value, (tuple, list)) for value in values) and len({len(value) for value in values}) == 1:
        return tuple(_greatest(items) for items in zip(*values, strict=True))
    return next((value for value in values if value is not None), None)


def _tuple(value: Any, axes: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes


def _centred(full: int, size: int) -> slice:
    start = (full - size) // 2
    return slice(start, start + size)


class _Conv(Rule):
    """Convolutions: leading channels, centred kernels."""

    sizes = frozenset({"in_channels", "out_channels", "kernel_size", "padding"})

    def __init__(self, axes: int) -> None:
        self.axes = axes

    def greatest(self, options: Sequence[Arguments]) -> Arguments:
        arguments = super().greatest(options)
        self._channels(arguments, options)
        arguments["kernel_size"] = _greatest([_tuple(option["kernel_size"], self.axes) for option in options])
        arguments["padding"] = 0
        return arguments

    def _channels(self, arguments: Arguments, options: Sequence[Arguments]) -> None:
        """Put in channels and groups with which tensors hold those of all options."""
        # One group of as many channels as the greatest group has: the weights have the shape of the greatest ones.
        arguments["in_channels"] = max(option["in_channels"] // option["groups"] for option in options)
        arguments["groups"] = 1

    def narrow(self, name: str, full: tuple[int, ...], shape: tuple[int, ...], arguments: Arguments) -> Sequence[Index]:
        leading = [slice(0, size) for size in shape[:2]]
        return [*leading, *(_centred(whole, size) for whole, size in zip(full[2:], shape[2:], strict=True))]

    def written(self, name: str, arguments: Arguments) -> frozenset[int]:
        return frozenset({0})

    def behaviour(self, arguments: Arguments) -> Arguments:
        kept = super().behaviour(arguments)
        kept["groups"] = "depthwise" if _depthwise(arguments) else arguments["groups"]
        return kept

    def widest(self, group: Sequence[Arguments], all_options: Sequence[Arguments]) -> Arguments:
        arguments = super().widest(group, all_options)
        kernels = [_tuple(option["kernel_size"], self.axes) for option in all_options]
        kernel = arguments["kernel_size"] = _greatest(kernels)
        dilation = _tuple(group[0]["dilation"], self.axes)
        paddings: set[Any] = set()
        for option in group:
            if isinstance(option["padding"], str):
                grows = [
                    whole - size for whole, size in zip(kernel, _tuple(option["kernel_size"], self.axes), strict=True)
                ]
                if any(grow % 2 for grow in grows) or (option["padding"] != "same" and any(grows)):
                    raise MixtureError("its kernels of several sizes cannot be centred in one another")
                paddings.add(option["padding"])
                continue
            own = zip(_tuple(option["padding"], self.axes), _tuple(option["kernel_size"], self.axes), strict=True)
            paddings.add(
                tuple(
                    2 * pad + (whole - size) * step
                    for (pad, size), whole, step in zip(own, kernel, dilation, strict=True)
                )
            )
        padding = paddings.pop()
        if paddings or (not isinstance(padding, str) and any(twice % 2 for twice in padding)):
            raise MixtureError(
                "its kernels of several sizes need paddings that grow with them, by half of what they grow; "
                "write padding=kernel // 2"
            )
        arguments["padding"] = padding if isinstance(padding, str) else tuple(twice // 2 for twice in padding)
        if self.behaviour(group[0])["groups"] == "depthwise":
            arguments["groups"] = arguments["in_channels"]
            multipliers = {option["out_channels"] / option["in_channels"] for option in group}
            if multipliers != {1.0} and len({option["out_channels"] for option in all_options}) > 1:
                raise MixtureError("it is a depthwise convolution of several widths that changes their number")
        elif any(map(_depthwise, all_options)) and any(option["in_channels"] == 1 for option in group):
            raise MixtureError("it is a depthwise convolution of several widths, one of which is 1")
        elif group[0]["groups"] > 1:
            shapes = {(option["in_channels"], option["out_channels"]) for option in all_options}
            if len(shapes) > 1:
                raise MixtureError(
                    "its groups have other channels in each width; mix widths of groups=1 or of depthwise"
                )
        return arguments


def _depthwise(arguments: Arguments) -> bool:
    return bool(arguments["groups"] == arguments["in_channels"] > 1)


class _TransposedConv(_Conv):
    """Their weights have the channels of the inputs first, and of the outputs those of one group."""

    def greatest(self, options: Sequence[Arguments]) -> Arguments:
        return {**super().greatest(options), "output_padding": 0}

    def _channels(self, arguments: Arguments, options: Sequence[Arguments]) -> None:
        inputs, outputs = arguments["in_channels"], arguments["out_channels"]
        group = max(option["out_channels"] // option["groups"] for option in options)
        arguments["groups"] = max(
            (
                groups
                for groups in {option["groups"] for option in options}
                if inputs % groups == outputs % groups == 0 and outputs // groups >= group
            ),
            default=1,
        )

    def written(self, name: str, arguments: Arguments) -> frozenset[int]:
        return frozenset({int(name == "weight" and not _depthwise(arguments))})


class _ByFirst(Rule):
    """Layers whose tensors have the channels of the outputs along their first axis."""

    def written(self, name: str, arguments: Arguments) -> frozenset[int]:
        return frozenset({0})


class _Linear(_ByFirst):
    sizes = frozenset({"in_features", "out_features"})


class _BatchNorm(_ByFirst):
    sizes = frozenset({"num_features"})


class _Embedding(Rule):
    sizes = frozenset({"num_embeddings", "embedding_dim"})

    def written(self, name: str, arguments: Arguments) -> frozenset[int]:
        return frozenset({1})


class _PReLU(_ByFirst):
    """One slope for each channel; or one for all, which cannot be mixed with them."""

    sizes = frozenset({"num_parameters"})

    def widest(self, group: Sequence[Arguments], all_options: Sequence[Arguments]) -> Arguments:
        numbers = {option["num_parameters"] for option in all_options}
        if 1 in numbers and len(numbers) > 1:
            raise MixtureError("it has one slope for all channels, or one for each")
        return super().widest(group, all_options)


class _Along(Rule):
    """Layers that look at all channels at once, so that each width runs by itself in a mixture."""

    def __init__(self, axis: int) -> None:
        self.axis = axis


class _Attention(_Along):
    """Multi-head attention: leading features of queries, keys and values each."""

    def greatest(self, options: Sequence[Arguments]) -> Arguments:
        return {**super().greatest(options), "num_heads": 1}

    def inputs(self, arguments: Arguments) -> dict[str, int]:
        size = arguments["embed_dim"]
        return {"query": size, "key": arguments.get("kdim") or size, "value": arguments.get("vdim") or size}

    def narrow(self, name: str, full: tuple[int, ...], shape: tuple[int, ...], arguments: Arguments) -> Sequence[Index]:
        index: list[Index] = [slice(0, size) for size in shape]
        if name in ("in_proj_weight", "in_proj_bias"):
            index[0] = _of_parts(3, full[0], shape[0])
        return index


class _Recurrent(Rule):
    """Recurrent layers: leading features of each gate, and of each direction of the layer below."""

    def __init__(self, gates: int) -> None:
        self.gates = gates
        kind = ("nonlinearity",) if gates == 1 else ()
        self.positional = ("input_size", "hidden_size", "num_layers", *kind, "bias", "batch_first", "dropout")

    def narrow(self, name: str, full: tuple[int, ...], shape: tuple[int, ...], arguments: Arguments) -> Sequence[Index]:
        index: list[Index] = [slice(0, size) for size in shape]
        kind, _, layer = name.partition("_l")
        if not kind.endswith("hr"):
            index[0] = _of_parts(self.gates, full[0], shape[0])
        if kind == "weight_ih" and not layer.startswith("0") and arguments.get("bidirectional"):
            index[1] = _of_parts(2, full[1], shape[1])
        return index


def _of_parts(number: int, full: int, size: int) -> list[int]:
    """Return the leading elements of each of several equal parts of an axis."""
    return [part * (full // number) + at for part in range(number) for at in range(size // number)]


RULES: dict[type, Rule] = {
    nn.Conv1d: _Conv(1),
    nn.Conv2d: _Conv(2),
    nn.Conv3d: _Conv(3),
    nn.ConvTranspose1d: _TransposedConv(1),
    nn.ConvTranspose2d: _TransposedConv(2),
    nn.ConvTranspose3d: _TransposedConv(3),
    nn.Linear: _Linear(),
    nn.BatchNorm1d: _BatchNorm(),
    nn.BatchNorm2d: _BatchNorm(),
    nn.BatchNorm3d: _BatchNorm(),
    nn.InstanceNorm1d: _BatchNorm(),
    nn.InstanceNorm2d: _BatchNorm(),
    nn.InstanceNorm3d: _BatchNorm(),
    nn.Embedding: _Embedding(),
    nn.LayerNorm: _Along(-1),
    nn.GroupNorm: _Along(1),
    nn.MultiheadAttention: _Attention(-1),
    nn.PReLU: _PReLU(),
    nn.RNN: _Recurrent(1),
    nn.GRU: _Recurrent(3),
    nn.LSTM: _Recurrent(4),
}
"""The rules of PyTorch's layers; others follow `Rule` itself."""


def rule_for(plain: type[nn.Module]) -> Rule:
    """Return the rule of a class, or of the nearest class that it derives from."""
    return next((RULES[base] for base in plain.__mro__ if base in RULES), Rule())


def cut(tensor: Tensor, index: Sequence[Index]) -> Tensor:
    """Return a part of a tensor: a view, where no axis has a list of indices."""
    for axis, part in enumerate(index):
        if isinstance(part, slice):
            if (part.start, part.stop) != (0, tensor.shape[axis]):
                tensor = tensor.narrow(axis, part.start, part.stop - part.start)
        elif part != list(range(tensor.shape[axis])):
            tensor = tensor.index_select(axis, torch.tensor(part, device=tensor.device))
    return tensor


def share(shape: Sequence[int], parts: Iterable[tuple[Tensor, Sequence[Index]]]) -> Tensor:
    """Return for each element of a tensor the sum of the weights of the parts that contain it.

    Args:
        shape: The shape of the tensor.
        parts: Weights, tensors without dimensions, and the parts.
    """
    merged: dict[tuple[Any, ...], tuple[Tensor, Sequence[Index]]] = {}
    for weight, index in parts:
        key = tuple((part.start, part.stop) if isinstance(part, slice) else tuple(part) for part in index)
        merged[key] = (merged[key][0] + weight if key in merged else weight, index)
    found: Tensor | None = None
    for weight, index in merged.values():
        inside = weight
        for size, part in zip(shape, index, strict=True):
            row = torch.zeros(size, dtype=weight.dtype, device=weight.device)
            row[part] = 1
            inside = inside[..., None] * row
        found = inside if found is None else found + inside
    if found is None:
        raise MixtureError("there is nothing to mix")
    return found
