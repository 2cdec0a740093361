"""Running a network on shapes alone: what each operator multiplies and writes, without computing anything.

Operators are answered below the level of functions, so that whatever a module calls is seen. Convolutions, batch norm
and elementwise operators are answered by formulas of shapes, the others by PyTorch's kernels for tensors without data.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nasmw.errors import ProfilerError
from nasmw.profilers.counting import output_tensors, untouched
from nasmw.profilers.inputs import ExampleInput, ExampleLike
from nasmw.profilers.operators import is_known

__all__ = ["Operation", "Trace", "trace"]

RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})

Shape = tuple[int, ...]
aten = torch.ops.aten


@attrs.frozen(eq=False)
class Operation:
    """One call of an operator.

    Attributes:
        module: The innermost module that was running.
        name: The operator's name, such as ``"convolution"``.
        macs: Numbers whose product is the multiply-adds; None where there are none, and where no output of the network
            depends on the result: a traced or exported network lacks such operators.
        written: For each tensor that it wrote, the shape.
        live: For each tensor that has to be in memory during the call, the bytes of an element and the shape.
        weights: Whether it multiplies by something that does not depend on the inputs of the network.
    """

    module: nn.Module
    name: str
    macs: Shape | None
    written: tuple[Shape, ...]
    live: tuple[Shape, ...]
    weights: bool


@attrs.frozen(eq=False)
class Trace:
    """The operators of one forward pass, in order, and the names of those that nothing is known about."""

    operations: tuple[Operation, ...]
    uncounted: frozenset[str]

    @property
    def macs(self) -> int:
        """The multiply-adds of the network."""
        return sum(math.prod(operation.macs) for operation in self.operations if operation.macs is not None)


def trace(
    model: nn.Module, example: ExampleLike, *, live: bool = False, float_bytes: int | None = None, keep: bool = True
) -> Trace:
    """Return the operators of one forward pass; the network stays as it is, and may have tensors without data.

    Args:
        model: The network.
        example: What it is run on.
        live: Whether `Operation.live` is wanted; it is empty otherwise.
        float_bytes: Bytes of an element of floating point in `Operation.live`; None takes those of the dtype.
        keep: Whether the network has to stay as it is; False spares the care for one that was built for this trace.

    Raises:
        ProfilerError: If the network does not run on the example, gives no tensor, or asks for the values of tensors.
    """
    call = ExampleInput.of(example)
    recorder = _Recorder(float_bytes, _held(model))
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # there, functions are taken apart in another way
        args, kwargs = pytree.tree_map_only(Tensor, recorder.input, (call.args, call.kwargs))
        stack.enter_context(untouched(model) if keep else _evaluating(model))
        stack.enter_context(_running(recorder.modules))
        if recurrent:
            stack.enter_context(_Recurrent())
        stack.enter_context(recorder)
        try:
            outputs = output_tensors(model(*args, **kwargs), f"a {type(model).__name__}")
        except ProfilerError:
            raise
        except Exception as error:
            raise ProfilerError(
                f"a {type(model).__name__} does not run on shapes of an example input of shape {call.shapes()}: "
                f"{type(error).__name__}: {error}"
            ) from error
    return recorder.finish(model, outputs, live)


def _held(model: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors of a network that have data: parameters, buffers and other attributes."""
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(tensor, Tensor) and not tensor.is_meta:
                yield tensor


class _Recurrent(TorchFunctionMode):
    """Takes the data from the weights of recurrent layers, which PyTorch wants on the device of their inputs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RECURRENT:
            args, kwargs = pytree.tree_map(_empty_of, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model.eval()
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def _running(stack: list[nn.Module]) -> Iterator[None]:
    """Keep the modules that are running on a stack."""
    before = register_module_forward_pre_hook(lambda module, inputs: stack.append(module))
    after = register_module_forward_hook(lambda module, inputs, outputs: _drop(stack), always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def _drop(stack: list[nn.Module]) -> None:
    stack.pop()


@attrs.define(eq=False)
class _Note:
    module: nn.Module | None
    name: str
    macs: Shape | None
    written: tuple[Shape, ...]
    reads: set[int]
    writes: set[int]
    makes: list[int]
    weights: bool
    unknown: bool


class _Recorder(TorchDispatchMode):
    def __init__(self, float_bytes: int | None, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.float_bytes = float_bytes
        self.modules: list[nn.Module] = []
        self.notes: list[_Note] = []
        self._kept: list[Tensor] = []  # a storage that were freed could give its address to another one
        self._sizes: dict[int, Shape] = {}
        self._activations: set[int] = set()
        self._lasting = {_storage(tensor) for tensor in held}  # outlives the pass: what writes there is needed
        self._weights = set(self._lasting)  # of the network, or computed from its tensors alone; these have data

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would import its compiler, which takes seconds, to keep it away from this mode

    def input(self, tensor: Tensor) -> Tensor:
        """Return an argument without data, and count it as being in memory."""
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        self._made(empty)
        self._activations.add(_storage(empty))
        self._lasting.add(_storage(empty))
        return empty

    def _made(self, tensor: Tensor) -> int | None:
        """Note a tensor; return its storage if no tensor with it was seen before."""
        key = _storage(tensor)
        if key in self._sizes:
            return None
        self._kept.append(tensor)
        size = self.float_bytes if self.float_bytes and tensor.is_floating_point() else tensor.element_size()
        self._sizes[key] = (size, *tensor.shape)
        return key

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        tensors = _tensors((*args, *kwargs.values()) if kwargs else args)
        storages = {_storage(tensor) for tensor in tensors}
        filled = not any(tensor.is_meta for tensor in tensors)
        if filled and not storages & self._weights:
            return func(*args, **kwargs)
        if _is_composite(func):  # under inference mode functions arrive here that are made of operators
            with self:
                return func.decompose(*args, **kwargs)
        outputs = func(*args, **kwargs) if filled else _run(func, name, args, kwargs)
        results = [outputs] if isinstance(outputs, Tensor) else _tensors(outputs)
        if _is_view(func):
            return outputs
        formula = MACS.get(name)
        macs = formula(args, results) if formula else None
        unknown = formula is None and not is_known(f"aten::{name}")
        made = [key for key in map(self._made, results) if key is not None]
        writes = {_storage(result) for result in results}
        module = self.modules[-1] if self.modules else None
        written = tuple(tuple(result.shape) for result in results if result.numel())
        factors = [tensor for tensor in tensors if tensor.ndim > 1]
        weights = not all(_storage(tensor) in self._activations for tensor in factors)
        if filled:
            self._weights |= writes
        if storages & self._activations:
            self._activations |= writes
        reads = storages & self._sizes.keys()
        self.notes.append(_Note(module, name, macs, written, reads, writes, made, weights, unknown))
        return outputs

    def finish(self, model: nn.Module, outputs: Sequence[Tensor], live: bool) -> Trace:
        """Return the trace, with what is alive during each operator where that is wanted."""
        alive = self._alive(outputs) if live else [()] * len(self.notes)
        needed = self._needed(outputs)
        operations = [
            Operation(
                note.module or model, note.name, note.macs if counts else None, note.written, tensors, note.weights
            )
            for note, tensors, counts in zip(self.notes, alive, needed, strict=True)
        ]
        uncounted = {note.name for note, counts in zip(self.notes, needed, strict=True) if counts and note.unknown}
        return Trace(tuple(operations), frozenset(f"aten::{name}" for name in uncounted))

    def _needed(self, outputs: Sequence[Tensor]) -> list[bool]:
        """Return for each operator whether an output depends on it, or a tensor that outlives the pass."""
        wanted = {_storage(tensor) for tensor in outputs} | self._lasting
        found = []
        for note in reversed(self.notes):
            found.append(bool(note.writes & wanted))
            if found[-1]:
                wanted |= note.reads
        return found[::-1]

    def _alive(self, outputs: Sequence[Tensor]) -> list[tuple[Shape, ...]]:
        """Return what is alive during each operator: a tensor is, from its making to its last use."""
        first = dict.fromkeys(self._sizes, 0)
        last = dict.fromkeys(self._sizes, 0)
        for step, note in enumerate(self.notes):
            first.update(dict.fromkeys(note.makes, step))
            last.update(dict.fromkeys([*note.reads, *note.makes], step))
        for tensor in outputs:
            if (key := _storage(tensor)) in last:
                last[key] = len(self.notes)
        starting: dict[int, list[int]] = {}
        for key, step in first.items():
            starting.setdefault(step, []).append(key)
        found = []
        alive: list[int] = []
        for step in range(len(self.notes)):
            alive = [key for key in alive if last[key] >= step] + starting.get(step, [])
            found.append(tuple(self._sizes[key] for key in alive))
        return found


def _storage(tensor: Tensor) -> int:
    """Return what tells the memory of a tensor, which its views share, from that of others."""
    found: int = tensor.untyped_storage()._cdata
    return found


def _tensors(values: Any) -> list[Tensor]:
    """Return the tensors among values, those in lists and tuples included."""
    found: list[Tensor] = []
    for value in values if isinstance(values, (list, tuple)) else (values,):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(item for item in value if isinstance(item, Tensor))
    return found


_COMPOSITE: dict[Any, bool] = {}


def _is_composite(func: Any) -> bool:
    """Return whether an operator is a function of others, and nothing by itself."""
    if func not in _COMPOSITE:
        _COMPOSITE[func] = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return _COMPOSITE[func]


_VIEWS: dict[Any, bool] = {}


def _is_view(func: Any) -> bool:
    """Return whether an operator only looks at its argument."""
    if func not in _VIEWS:
        aliases = [value.alias_info for value in func._schema.returns]
        looks = bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)
        _VIEWS[func] = looks or torch.Tag.inplace_view in func.tags
    return _VIEWS[func]


def _empty_of(tensor: Any) -> Any:
    if isinstance(tensor, Tensor) and not tensor.is_meta:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return tensor


def _run(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    rule = RULES.get(name)
    if rule is not None and (outputs := rule(*args, **kwargs)) is not None:
        return outputs
    in_place = func._schema.is_mutable and isinstance(args[0], Tensor)
    if in_place and not args[0].is_meta:
        return args[0]  # a buffer of the network, which stays as it is
    meta_args, meta_kwargs = pytree.tree_map(_empty_of, (args, kwargs))
    if isinstance(meta_kwargs.get("device"), torch.device):
        meta_kwargs["device"] = torch.device("meta")
    return func(*meta_args, **meta_kwargs)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    axes = len(weight.shape) - 2
    fits = len(x.shape) == axes + 2 and x.shape[1] == weight.shape[1] * groups and len(stride) == len(padding) == axes
    if transposed or not fits or len(dilation) != axes or weight.shape[0] % groups:
        return None  # PyTorch's kernel does it, or says what is wrong
    sizes = [
        (x.shape[axis + 2] + 2 * padding[axis] - dilation[axis] * (weight.shape[axis + 2] - 1) - 1) // stride[axis] + 1
        for axis in range(axes)
    ]
    return torch.empty((x.shape[0], weight.shape[0], *sizes), dtype=x.dtype, device="meta") if min(sizes) > 0 else None


def _batch_norm(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    shapes = {tuple(arg.shape) for arg in args[:4] if isinstance(arg, Tensor)}
    if shapes - {(x.shape[1],)}:
        return None
    nothing = torch.empty((0,), dtype=x.dtype, device="meta")
    return torch.empty(x.shape, dtype=x.dtype, device="meta"), nothing, nothing


def _layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    affine = [tuple(tensor.shape) for tensor in (weight, bias) if tensor is not None]
    if set(affine) - {tuple(shape)} or tuple(x.shape[-len(shape) :]) != tuple(shape):
        return None
    nothing = torch.empty((0,), dtype=x.dtype, device="meta")
    return torch.empty(x.shape, dtype=x.dtype, device="meta"), nothing, nothing


def _product(x: Tensor, y: Tensor) -> Tensor | None:
    if len(x.shape) != len(y.shape) or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-2]:
        return None
    return torch.empty((*x.shape[:-1], y.shape[-1]), dtype=x.dtype, device="meta")


def _affine(bias: Tensor, x: Tensor, y: Tensor, **factors: float) -> Tensor | None:
    return _product(x, y) if bias.shape[-1:] in (y.shape[-1:], (1,)) and len(bias.shape) == 1 else None


def _clone(x: Tensor, **memory_format: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="meta")


def _cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor | None:
    first = tensors[0]
    axis %= max(len(first.shape), 1)
    rests = {(*tensor.shape[:axis], *tensor.shape[axis + 1 :]) for tensor in tensors}
    if len(rests) > 1 or len({(len(tensor.shape), tensor.dtype) for tensor in tensors}) > 1:
        return None
    joined = sum(tensor.shape[axis] for tensor in tensors)
    return torch.empty((*first.shape[:axis], joined, *first.shape[axis + 1 :]), dtype=first.dtype, device="meta")


def _mean(x: Tensor, axes: Sequence[int] | None = None, keep: bool = False, **dtype: Any) -> Tensor | None:
    if not axes or dtype or not x.is_floating_point():
        return None
    gone = {axis % len(x.shape) for axis in axes}
    shape = [1 if axis in gone else size for axis, size in enumerate(x.shape) if keep or axis not in gone]
    return torch.empty(shape, dtype=x.dtype, device="meta")


def _softmax(x: Tensor, axis: int, half_to_float: bool) -> Tensor | None:
    return None if half_to_float else torch.empty(x.shape, dtype=x.dtype, device="meta")


def _elementwise(x: Any, *args: Any, **kwargs: Any) -> Tensor | None:
    if not isinstance(x, Tensor) or not x.is_meta or not x.is_floating_point():
        return None
    for other in args:
        if isinstance(other, Tensor) and not (_widens(other.shape, x.shape) and other.dtype == x.dtype):
            return None
    return torch.empty(x.shape, dtype=x.dtype, device="meta")


def _widens(shape: Sequence[int], wide: Sequence[int]) -> bool:
    """Return whether broadcasting a shape with a wide one gives the wide one."""
    return len(shape) == len(wide) and all(a in (1, b) for a, b in zip(shape, wide, strict=True))


def _elementwise_in_place(x: Tensor, *args: Any, **kwargs: Any) -> Tensor | None:
    others = [arg for arg in args if isinstance(arg, Tensor)]
    return x if x.is_meta and all(_widens(other.shape, x.shape) for other in others) else None


_POINTWISE = """relu hardswish hardsigmoid hardtanh silu gelu sigmoid tanh elu leaky_relu mish softplus exp add mul sub
div neg""".split()  # noqa: SIM905 (a list of names reads better so)
RULES: dict[str, Callable[..., Any]] = {
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "mm": _product,
    "bmm": _product,
    "addmm": _affine,
    "_softmax": _softmax,
    "mean": _mean,
    "clone": _clone,
    "cat": _cat,
    **{name: _elementwise for name in _POINTWISE},
    **{f"{name}_": _elementwise_in_place for name in _POINTWISE},
}
"""Shapes of what an operator returns; None leaves it to PyTorch."""


def _convolution_macs(args: Any, results: Sequence[Tensor]) -> Shape:
    at_each = args[0] if args[6] else results[0]
    return (*at_each.shape, *args[1].shape[1:])


def _product_macs(left: int) -> Callable[[Any, Sequence[Tensor]], Shape]:
    return lambda args, results: (*results[0].shape, args[left].shape[-1])


def _addbmm_macs(args: Any, results: Sequence[Tensor]) -> Shape:
    return (*args[1].shape, args[2].shape[-1])


MACS: dict[str, Callable[[Any, Sequence[Tensor]], Shape]] = {
    "convolution": _convolution_macs,
    **{name: _product_macs(0) for name in ("mm", "bmm", "mv", "dot", "vdot")},
    **{name: _product_macs(1) for name in ("addmm", "addmm_", "baddbmm", "baddbmm_", "addmv", "addmv_")},
    "addbmm": _addbmm_macs,
    "_trilinear": lambda args, results: (*results[0].shape, *args[1].shape[1:]),  # what torch.nn.Bilinear runs
}
"""Numbers whose product is the multiply-adds of a call."""


@contextmanager
def unfilled() -> Iterator[None]:
    """Let what is built have tensors without data, and skip their initial values."""
    originals = {name: getattr(nn.init, name) for name in ("zeros_", "ones_")}  # modes do not see these as functions
    for name, original in originals.items():
        setattr(nn.init, name, _skipped(original))
    try:
        with _Unfilled():
            yield
    finally:
        for name, original in originals.items():
            setattr(nn.init, name, original)


def _skipped(fill: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def skipped(tensor: Tensor) -> Tensor:
        return tensor if tensor.is_meta else fill(tensor)

    return skipped


class _Unfilled(TorchFunctionMode):
    """Puts new tensors on the meta device, as `torch.device` does, and leaves them as they are."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in MAKING and kwargs.get("device") is None:
            return func(*args, **{**kwargs, "device": "meta"})
        if func in FILLING:
            filled = args[0] if args else kwargs.get("tensor")
            if isinstance(filled, Tensor) and filled.is_meta:
                return filled
        return func(*args, **kwargs)


_IN_PLACE = ("uniform", "normal", "zero", "fill", "bernoulli", "exponential", "erfinv", "mul", "add", "clamp", "copy")
FILLING = {
    *(function for name, function in vars(nn.init).items() if name.endswith("_") and not name.startswith("_")),
    *(getattr(Tensor, f"{name}_") for name in _IN_PLACE),
}
"""What fills tensors in place, and has nothing to do where they have no data."""
_NEW = """empty empty_permuted empty_strided empty_quantized ones arange bartlett_window blackman_window eye fft.fftfreq
fft.rfftfreq full hamming_window hann_window kaiser_window linspace logspace nested.nested_tensor rand randn randint
randperm range sparse_coo_tensor sparse_compressed_tensor sparse_csr_tensor sparse_csc_tensor sparse_bsr_tensor
sparse_bsc_tensor tril_indices triu_indices zeros asarray tensor as_tensor scalar_tensor""".split()  # noqa: SIM905
MAKING = {operator.attrgetter(name)(torch) for name in _NEW}
"""What makes tensors on the default device."""
