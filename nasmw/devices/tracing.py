"""What a network computes on an example, operator by operator: what the writers of other formats start from."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nasmw.errors import DeviceError

__all__ = [
    "Graph",
    "Node",
    "UnsupportedOperatorError",
    "Value",
    "fold_batch_norms",
    "limits",
    "scale_and_shift",
    "trace",
]

FOLDED_ELEMENTS = 1 << 16
"""A result of constants alone stays an operator where it is larger than this, and larger than what it is made of."""

UNCHANGED = frozenset({"alias", "detach", "dropout", "feature_dropout", "lift_fresh", "resolve_conj", "resolve_neg"})
"""Operators that pass on their first argument when a network is evaluated."""
COPIES = frozenset({"clone", "contiguous", "to", "_to_copy", "type_as"})
"""Operators that give the same numbers, at another place or in another layout, unless they convert them."""


class UnsupportedOperatorError(Exception):
    """An operator that a writer does not know; `operator` is its name, `why` what about it, where that is narrower."""

    def __init__(self, operator: str, why: str = "") -> None:
        super().__init__(f"{operator}{f' ({why})' if why else ''}")
        self.operator = operator
        self.why = why


@attrs.frozen(eq=False)
class Value:
    """A tensor that depends on the input.

    Attributes:
        number: Its place in the order in which tensors came to be.
        shape: Its shape on the example, the batch included.
        dtype: Its kind of numbers.
    """

    number: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@attrs.define(eq=False)
class Node:
    """One operator of ATen, PyTorch's library of tensor operators, applied once.

    Attributes:
        operator: Its name without namespace and overload, as in ``"conv2d"``; those that work in place lose their
            trailing underscore.
        arguments: All of its arguments by name, defaults included: values, constant tensors, numbers, lists.
        outputs: What it gives.
    """

    operator: str
    arguments: dict[str, Any]
    outputs: tuple[Value, ...]

    @property
    def output(self) -> Value:
        """The only output."""
        (output,) = self.outputs
        return output

    def inputs(self) -> Iterator[Value]:
        """Yield the arguments that depend on the network's input."""
        for leaf in _leaves(self.arguments.values()):
            if isinstance(leaf, Value):
                yield leaf


@attrs.frozen(eq=False)
class Graph:
    """A network as a list of operators, each after those whose results it takes.

    Attributes:
        inputs: The network's inputs.
        nodes: The operators; none whose result is not used.
        outputs: What the network gives: values, or constant tensors where an output does not depend on the input.
        names: The names of the network's parameters and buffers, by the `id` of the tensor.
    """

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Any, ...]
    names: dict[int, str]


def trace(model: nn.Module, example: Tensor | Sequence[Tensor], known: Container[str]) -> Graph:
    """Run a network once, in evaluation mode, and return what it computes.

    Shapes are those of the example, the batch included; Python code of the network (loops, conditions on shapes) has
    run and is gone. What depends on parameters alone is computed now, unless that makes it much larger.

    Args:
        model: The network; it is left in the mode that it was in.
        example: Its input, or its inputs in order.
        known: The names of operators that the writer knows. Others are taken apart where PyTorch can do that.

    Raises:
        UnsupportedOperatorError: If an operator is not known and cannot be taken apart.
        DeviceError: If the network decides by the values of its input what it computes, draws random numbers, or does
            not run on the example.
    """
    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    recorder = _Recorder(known)
    with evaluating(model), torch.inference_mode():
        arguments = [recorder.input(tensor) for tensor in inputs]
        given = tuple(argument.value for argument in arguments)
        with recorder:
            try:
                result = model(*arguments)
            except _DataDependentError as error:
                raise DeviceError(
                    f"{type(model).__name__} cannot be exported: it reads numbers that depend on its input (by "
                    f"{error}), so other inputs may take another course; write it with tensor operators alone"
                ) from None
            except (DeviceError, UnsupportedOperatorError):
                raise
            except Exception as error:  # whatever the network's own code raises
                raise DeviceError(
                    f"{type(model).__name__} cannot be exported: it does not run on an example of shape "
                    f"{', '.join(str(tuple(tensor.shape)) for tensor in inputs)}: {type(error).__name__}: {error}"
                ) from error
    if recorder.problem is not None:
        raise recorder.problem
    outputs = []
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, Tensor):
            outputs.append(leaf.value if isinstance(leaf, _Traced) else leaf)
    if not outputs:
        raise DeviceError(f"{type(model).__name__} cannot be exported: it returns no tensor, but {result!r}")
    names = {id(tensor): name for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers())}
    graph = _alive(Graph(given, tuple(recorder.nodes), tuple(outputs), names))
    for node in graph.nodes:
        if node.operator not in known:
            raise UnsupportedOperatorError(node.operator)
    return graph


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have a network in evaluation mode meanwhile, its attention layers in their plain form."""
    training = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in training.items():
            module.training = mode


class _DataDependentError(Exception):
    """The network reads numbers of a traced tensor, by the function that the message names."""


class _Traced(Tensor):
    """Stands for a tensor that depends on the input; it has a shape, but no numbers that the network could read."""

    value: Value
    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor, value: Value) -> _Traced:
        made: _Traced = Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype
        )
        made.held = real
        made.value = value
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"<traced {tuple(self.shape)}>"

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise _DataDependentError("Tensor.numpy")

    def tolist(self) -> Any:
        raise _DataDependentError("Tensor.tolist")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} was called on a traced tensor outside of its trace")


class _Recorder(TorchDispatchMode):
    """Runs operators as they are called and keeps those whose result depends on the input."""

    def __init__(self, known: Container[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = known
        self.nodes: list[Node] = []
        self.problem: UnsupportedOperatorError | None = None
        self._numbers = itertools.count()
        self._keys = itertools.count()
        self._alive: weakref.WeakValueDictionary[int, _Traced] = weakref.WeakValueDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would import its compiler, which takes seconds, to keep it away from this mode

    def input(self, tensor: Tensor) -> _Traced:
        """Return what stands for an input of the network."""
        return self._traced(tensor.detach().clone())

    def _value(self, real: Tensor) -> Value:
        return Value(next(self._numbers), tuple(real.shape), real.dtype)

    def _traced(self, real: Tensor) -> _Traced:
        return self._stands_for(real, self._value(real))

    def _stands_for(self, real: Tensor, value: Value) -> _Traced:
        traced = _Traced(real, value)
        self._alive[next(self._keys)] = traced
        return traced

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = list(_leaves((*args, *kwargs.values())))
        depends = any(isinstance(leaf, _Traced) for leaf in leaves)
        name = func._schema.name.removeprefix("aten::")
        if depends and _reads_numbers(func, name, args):
            raise _DataDependentError(name)
        if name in UNCHANGED and depends and not (name.endswith("dropout") and args[2]):
            return args[0]
        mutable = func._schema.is_mutable
        operator = name.removesuffix("_") if mutable else name
        decompose = operator not in self.known and func.has_kernel_for_dispatch_key(
            torch._C.DispatchKey.CompositeImplicitAutograd
        )
        if decompose:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if torch.Tag.nondeterministic_seeded in func.tags and operator != "scaled_dot_product_attention":
            raise DeviceError(f"the network cannot be exported: it draws random numbers by {name}")
        real = {key: _mapped(_held, item) for key, item in kwargs.items()}
        result = func(*(_mapped(_held, item) for item in args), **real)
        if not depends and (mutable or not _grows(leaves, result)):
            return result
        if name in COPIES and isinstance(args[0], _Traced) and result.dtype == args[0].dtype:
            return args[0] if result is args[0].held else self._stands_for(result, args[0].value)
        arguments = {key: _mapped(_described, item) for key, item in _by_name(func, args, kwargs).items()}
        if mutable:
            return self._in_place(name, operator, args, arguments)
        result = _mapped(lambda leaf: self._traced(leaf) if isinstance(leaf, Tensor) else leaf, result)
        outputs = tuple(leaf.value for leaf in _leaves([result]) if isinstance(leaf, _Traced))
        self.nodes.append(Node(operator, arguments, outputs))
        return result

    def _in_place(self, name: str, operator: str, args: Any, arguments: dict[str, Any]) -> Any:
        """Record an operator that works in place as one that does not, if nothing else sees the difference."""
        target: Any = args[0] if args else None
        if not isinstance(target, _Traced) or not name.endswith("_"):
            # The trace goes on: the network may still turn out to read numbers, which is another error.
            self.problem = self.problem or UnsupportedOperatorError(name, "it writes into a constant")
            return target
        storage = target.held.untyped_storage().data_ptr()
        sharing = [
            other
            for other in self._alive.values()
            if other is not target and other.held.untyped_storage().data_ptr() == storage
        ]
        if sharing:
            self.problem = self.problem or UnsupportedOperatorError(
                name, "it writes into a tensor of which there are views"
            )
        target.value = self._value(target.held)
        self.nodes.append(Node(operator, arguments, (target.value,)))
        return target


def _reads_numbers(func: Any, name: str, args: Any) -> bool:
    """Return whether what an operator gives depends on more than the shapes of its arguments."""
    if name in ("index", "index_put", "index_put_"):
        return any(isinstance(item, _Traced) and item.dtype in (torch.bool, torch.uint8) for item in args[1])
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def _leaves(items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items, and those of lists and tuples among them: operators take and give nothing deeper."""
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from item
        else:
            yield item


def _mapped(function: Callable[[Any], Any], item: Any) -> Any:
    """Return what a function makes of an item, or of each one in a list or tuple."""
    if isinstance(item, (list, tuple)):
        return [function(part) for part in item] if isinstance(item, list) else tuple(map(function, item))
    return function(item)


def _held(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, _Traced) else leaf


def _described(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, _Traced) else leaf


def _by_name(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of an operator by name, defaults included."""
    arguments = {}
    for position, argument in enumerate(func._schema.arguments):
        if position < len(args) and not argument.kwarg_only:
            arguments[argument.name] = args[position]
        else:
            arguments[argument.name] = kwargs.get(argument.name, argument.default_value)
    return arguments


def _grows(leaves: Sequence[Any], result: Any) -> bool:
    """Return whether an operator on constants makes far more of them than it takes."""
    given = sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor))
    made = sum(leaf.numel() for leaf in _leaves([result]) if isinstance(leaf, Tensor))
    return given > 0 and made > max(given, FOLDED_ELEMENTS)


def _alive(graph: Graph) -> Graph:
    """Return the graph without the operators whose results are not used."""
    needed = {output for output in graph.outputs if isinstance(output, Value)}
    kept = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.inputs())
    return attrs.evolve(graph, nodes=tuple(reversed(kept)))


def fold_batch_norms(graph: Graph, convolutions: Container[str] = ("conv1d", "conv2d", "conv3d")) -> Graph:
    """Return the graph with each batch norm merged into the convolution before it, where nothing else reads that.

    The new weights are computed in double precision; results change by rounding only. Other batch norms stay.
    """
    producers = {output: node for node in graph.nodes for output in node.outputs}
    readers: dict[Value, int] = {}
    for node in graph.nodes:
        for value in node.inputs():
            readers[value] = readers.get(value, 0) + 1
    for output in graph.outputs:
        if isinstance(output, Value):
            readers[output] = readers.get(output, 0) + 1
    names = dict(graph.names)
    merged: dict[Node, Node | None] = {}
    for norm in graph.nodes:
        given = norm.arguments.get("input")
        if norm.operator != "batch_norm" or not isinstance(given, Value):
            continue
        conv = producers.get(given)
        if (
            conv is None
            or conv.operator not in convolutions
            or readers[given] != 1
            or conv in merged
            or not _is_fixed(norm)
            or not isinstance(conv.arguments["weight"], Tensor)
            or isinstance(conv.arguments["bias"], Value)
        ):
            continue
        weight, bias = _merged_weights(conv, norm)
        for tensor, old, end in (
            (weight, conv.arguments["weight"], "weight"),
            (bias, conv.arguments["weight"], "bias"),
        ):
            if id(old) in graph.names:
                names[id(tensor)] = f"{graph.names[id(old)].removesuffix('weight')}{end}"
        merged[conv] = None
        merged[norm] = Node(conv.operator, {**conv.arguments, "weight": weight, "bias": bias}, norm.outputs)
    nodes = (merged.get(node, node) for node in graph.nodes)
    return attrs.evolve(graph, nodes=tuple(node for node in nodes if node is not None), names=names)


def _is_fixed(norm: Node) -> bool:
    given = [norm.arguments[name] for name in ("weight", "bias", "running_mean", "running_var")]
    constant = all(tensor is None or isinstance(tensor, Tensor) for tensor in given)
    return constant and given[2] is not None and not norm.arguments["training"]


def scale_and_shift(norm: Node) -> tuple[Tensor, Tensor]:
    """Return by what a batch norm in evaluation mode multiplies each channel and what it then adds, as float64."""
    mean, variance = (norm.arguments[name].double() for name in ("running_mean", "running_var"))
    scale = (variance + norm.arguments["eps"]).rsqrt()
    if norm.arguments["weight"] is not None:
        scale = scale * norm.arguments["weight"].double()
    shift = -mean * scale
    if norm.arguments["bias"] is not None:
        shift = shift + norm.arguments["bias"].double()
    return scale, shift


def limits(node: Node) -> tuple[float | None, float | None]:
    """Return the least and the greatest result of an operator that clips; None where it has no such limit.

    Raises:
        UnsupportedOperatorError: If they are tensors.
    """
    names = {"relu6": None, "hardtanh": ("min_val", "max_val"), "clamp": ("min", "max")}[node.operator]
    low, high = (0.0, 6.0) if names is None else (node.arguments[name] for name in names)
    if isinstance(low, (Tensor, Value)) or isinstance(high, (Tensor, Value)):
        raise UnsupportedOperatorError(node.operator, "limits that are tensors")
    return low, high


def _merged_weights(conv: Node, norm: Node) -> tuple[Tensor, Tensor]:
    scale, shift = scale_and_shift(norm)
    weight, bias = conv.arguments["weight"], conv.arguments["bias"]
    if bias is not None:
        shift = shift + bias.double() * scale
    scaled = weight.double() * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return scaled.to(weight.dtype), shift.to(weight.dtype)
