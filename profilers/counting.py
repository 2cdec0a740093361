"""Counting one network: its multiply-adds by running it once under a trace, its parameters from their tensors."""

from __future__ import annotations

import types
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import torch
from torch import nn
from torch.utils import _pytree as pytree

from nasmw.errors import ProfilerError
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.operators import BLOCKS, HANDLES, KINDS, NORMALIZATION, POOLING, is_free

__all__ = ["Count", "Uncounted", "count", "count_parameters", "output_tensors", "report_uncounted", "untouched"]

Uncounted = Literal["warn", "error", "ignore"]


@attrs.frozen
class Count:
    """What one forward pass of a network costs.

    Attributes:
        macs: Multiply-adds of convolutions, linear layers, matrix products, einsum, attention and recurrent layers,
            each counted once; biases, activations, normalisation and pooling are not among them.
        by_operator: The same, split by ``"conv"``, ``"linear"``, ``"matmul"``, ``"einsum"``, ``"attention"`` and
            ``"recurrent"``; kinds that do not occur are left out.
        uncounted: Operators that nothing is known about, with the number of their calls. They cost something, which
            `macs` lacks.
        normalization: Elements that normalisation layers read.
        pooling: Elements that pooling layers read.
    """

    macs: int
    by_operator: Mapping[str, int]
    uncounted: Mapping[str, int]
    normalization: int
    pooling: int


class _Call(nn.Module):
    """Runs a network on arguments of any structure, from the plain tensors that a trace takes.

    The network is no submodule of it: the analysis would hook every submodule. Its tensors are, for the trace takes no
    others that require a gradient.
    """

    def __init__(self, model: nn.Module, example: ExampleInput, what: str) -> None:
        super().__init__()
        self._run = model.__call__
        self._what = what
        for number, parameter in enumerate(model.parameters()):
            self.register_parameter(f"parameter{number}", parameter)
        for number, buffer in enumerate(model.buffers()):
            self.register_buffer(f"buffer{number}", buffer)
        leaves, self._structure = pytree.tree_flatten((example.args, example.kwargs))
        self._leaves = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self._places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        leaves = list(self._leaves)
        for place, tensor in zip(self._places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return tuple(output_tensors(self._run(*args, **kwargs), self._what))


def output_tensors(outputs: Any, what: str) -> list[torch.Tensor]:
    """Return the tensors that a network gives, those in containers and in attributes of records included.

    Args:
        outputs: What the network returned.
        what: What messages call the network.

    Raises:
        ProfilerError: If there is none: then nothing that was computed is known to be needed.
    """
    found: list[torch.Tensor] = []
    ahead, seen = [outputs], set[int]()
    while ahead:
        for leaf in pytree.tree_leaves(ahead.pop()):
            if isinstance(leaf, torch.Tensor):
                found.append(leaf)
            elif id(leaf) not in seen and not isinstance(leaf, (str, type, types.ModuleType, nn.Module)):
                seen.add(id(leaf))
                ahead.append(list(_held_by(leaf)))
    if not found:
        raise ProfilerError(
            f"{what} returns no tensors but {outputs!r}; what is to be counted is what its outputs depend on, so let "
            "`forward` return them"
        )
    return found


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run what follows in eval mode and without gradients, and leave the network as it was found.

    The training flag and the buffers of every module, PyTorch's random state and its switch of fused attention layers
    (which would hide what they compute) come back, whatever happens.
    """
    modules = list(model.modules())
    training = [module.training for module in modules]
    held = [
        (module, name, buffer, buffer.clone())
        for module in modules
        for name, buffer in module.named_buffers(recurse=False)
    ]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for module in modules:
                module.training = False
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, flag in zip(modules, training, strict=True):
            module.training = flag
        with torch.no_grad():
            for module, name, buffer, values in held:
                with torch.inference_mode(buffer.is_inference()):
                    buffer.copy_(values)
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)


def _held_by(record: Any) -> Iterator[Any]:
    """Yield what a container that PyTorch does not know holds, or the attributes of a record."""
    if isinstance(record, Mapping):
        yield from record.values()
    elif isinstance(record, (list, tuple, set)):
        yield from record
    yield from getattr(record, "__dict__", {}).values()
    for kind in type(record).__mro__:
        for name in getattr(kind, "__slots__", ()):
            yield getattr(record, name, None)


def _marked(kind: str) -> Any:
    return lambda inputs, outputs: Counter({kind: 1})


def count(model: nn.Module, example: ExampleLike, *, what: str | None = None) -> Count:
    """Return what one forward pass of a network costs; the network stays as it is.

    The network runs once on the example, in eval mode, under fvcore's `FlopCountAnalysis` with handles of our own. A
    module that is called twice counts twice, each time at the size of its input.

    Args:
        model: The network, on the device of the example.
        example: A tensor, a tuple of arguments or a mapping of keyword arguments.
        what: What messages call the network; its class by default.

    Raises:
        ProfilerError: If the network does not run on the example; names both.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        >>> count(layers, torch.zeros(1, 3, 4, 4))
        Count(macs=3456, by_operator={'conv': 3456}, uncounted={}, normalization=128, pooling=0)
    """
    from fvcore.nn import FlopCountAnalysis

    what = what or f"a {type(model).__name__}"
    call = ExampleInput.of(example)
    if any(nn.parameter.is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
        raise ProfilerError(f"{what} has lazy layers without shapes; run it once on the example input, then count it")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ProfilerError(f"{what} has scripted modules, whose operators are hidden; count it before scripting them")
    with untouched(model):
        analysis = FlopCountAnalysis(_Call(model, call, what), tuple(call.tensors()))
        analysis.clear_op_handles().set_op_handle(**HANDLES).set_op_handle(**{kind: _marked(kind) for kind in BLOCKS})
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        try:
            counts = analysis.by_operator()
        except ProfilerError:
            raise
        except Exception as error:
            raise ProfilerError(
                f"{what} does not run on an example input of shape {call.shapes()}: {type(error).__name__}: {error}"
            ) from error
        unknown = {kind: number for kind, number in analysis.unsupported_ops().items() if not is_free(kind)}
    by_operator = {kind: int(counts[kind]) for kind in KINDS if counts[kind]}
    unknown.update({kind: counts[kind] for kind in BLOCKS if counts[kind]})
    return Count(sum(by_operator.values()), by_operator, unknown, int(counts[NORMALIZATION]), int(counts[POOLING]))


def report_uncounted(uncounted: Mapping[str, int], mode: Uncounted, what: str, told: set[str]) -> None:
    """Say which operators a count lacks, each once in a warning.

    Args:
        uncounted: The operators, with the number of their calls; 0 where that is not known.
        mode: ``"warn"``, ``"error"`` or ``"ignore"``.
        what: What the message calls the network.
        told: The operators of which there was a warning before; it grows.

    Raises:
        ProfilerError: If there is such an operator and `mode` is ``"error"``.
    """
    if mode == "ignore" or (told.issuperset(uncounted) if mode == "warn" else not uncounted):
        return
    told.update(uncounted)
    names = ", ".join(f"{name} ({number} times)" if number else name for name, number in sorted(uncounted.items()))
    message = (
        f"{what} has operators whose multiply-adds are not known and not counted: {names}; the count is too low if "
        "they multiply. Pass uncounted='ignore' if they do not, or uncounted='error' to refuse such networks"
    )
    if mode == "error":
        raise ProfilerError(message)
    warnings.warn(message, stacklevel=2)


def count_parameters(model: nn.Module, *, buffers: bool = False) -> int:
    """Return the number of elements of all parameters; a tensor that several modules share counts once.

    Args:
        model: The network.
        buffers: Whether buffers (running statistics, say) count as well.

    Example:
        >>> count_parameters(nn.BatchNorm1d(8)), count_parameters(nn.BatchNorm1d(8), buffers=True)
        (16, 33)
    """
    tensors: list[Any] = [*model.parameters(), *(model.buffers() if buffers else ())]
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise ProfilerError(f"a {type(model).__name__} has lazy layers without shapes; run it once, then count it")
    return sum(tensor.numel() for tensor in tensors)
