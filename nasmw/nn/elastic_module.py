"""Layers whose arguments are value choices: one layer of the greatest size holds them all."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from nasmw.errors import NasmwError, SpaceError
from nasmw.nn.rules import Arguments, Index, Rule, cut, rule_for, share
from nasmw.nn.switch import MixtureError, Switch, Weighted, total
from nasmw.nn.values import combinations, is_open, resolved

__all__ = ["ElasticModule", "module_class", "record_options"]

KEPT = 256
"""Layers without tensors that an elastic module keeps, one for each combination of its arguments."""


@attrs.frozen(eq=False)
class _Slot:
    """A tensor of a layer: where it stands, what it is called, and which part of the greatest one it is."""

    held_by: dict[str, Any]
    key: str
    name: str
    index: Sequence[Index]
    parameter: bool


@attrs.frozen(eq=False)
class _Layer:
    """A layer without tensors of its own."""

    module: nn.Module
    slots: tuple[_Slot, ...]
    arguments: Arguments


class _Record:
    """What an elastic module is about; apart from the module's own attributes, which are those of the plain class."""

    def __init__(self, plain: type[nn.Module], arguments: dict[str, Any], rule: Rule) -> None:
        self.plain = plain
        self.arguments = arguments
        self.rule = rule
        self.own: tuple[str, ...] = ()
        self.layers: dict[str, _Layer] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "layers": {}}


class _Shown:
    """An attribute of an elastic module: that of the layer of the chosen size, where a path runs.

    In a mixture it is open, where the layer was given it; where nothing runs it is that of the greatest layer.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, module: ElasticModule | None, owner: type) -> Any:
        if module is None or self._name not in module.__dict__:
            raise AttributeError(f"{owner.__name__!r} has no attribute {self._name!r}")
        switch, arguments = module._switch, module._record.arguments
        if switch.chosen is None:
            return module.__dict__[self._name]
        try:
            options = [resolved(arguments, run.chosen) for run in switch.combinations(arguments)]
        except MixtureError:
            raise
        except SpaceError:  # the layer is not on the path
            return module.__dict__[self._name]
        values = [vars(module._layer(option).module).get(self._name) for option in options]
        if all(value is values[0] or repr(value) == repr(values[0]) for value in values):
            return values[0]
        if switch.mixed(given := arguments.get(self._name)):
            return given
        raise MixtureError(
            f"module {module._path!r}, a {module.plain.__name__}, was asked for its attribute {self._name!r}, which "
            f"has no single value in a mixture but {values!r}; run one path at a time with space.activate, or let the "
            "shapes of tensors say the size"
        )

    def __set__(self, module: ElasticModule, value: Any) -> None:
        module.__dict__[self._name] = value


class ElasticModule(nn.Module):
    """A layer of the greatest size, of which smaller ones use a part; made by calling an `Elastic`.

    Its tensors have the names that they have in the plain layer, and other attributes, such as ``out_features``, are
    those of the layer that runs.
    """

    _path: str = ""
    _switch: Switch
    _record: _Record

    @classmethod
    def _of(cls, arguments: dict[str, Any], rule: Rule) -> ElasticModule:
        plain: type[nn.Module] = cls.__mro__[2]
        record = _Record(plain, arguments, rule)
        options = record_options(record)
        largest = rule.greatest(options)
        try:
            greatest = plain(**largest)
        except NasmwError:
            raise
        except Exception as error:
            raise SpaceError(
                f"no {plain.__name__} can be made that holds all of its options, with the arguments {largest!r} "
                f"({type(error).__name__}: {error}); give nasmw.nn.elastic a rule whose `greatest` says which"
            ) from error
        if any(
            True for module in greatest.modules() if isinstance(module, ElasticModule) or hasattr(module, "decided_by")
        ):
            raise SpaceError(
                f"{plain.__name__} makes choices itself, so it cannot be elastic; hand value choices to it as they are"
            )
        self = object.__new__(cls)
        self.__dict__.update(greatest.__dict__)
        self.__dict__.update(_record=record, _switch=Switch())
        record.own = tuple(
            name
            for name in greatest.__dict__
            if name[:1] != "_" and name != "training" and not hasattr(nn.Module, name)
        )
        self._show()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._show()

    def _show(self) -> None:
        cls = type(self)
        for name in self._record.own:
            if name not in vars(cls):
                setattr(cls, name, _Shown(name))

    @property
    def shown(self) -> list[str]:
        """The attributes that are open while this layer is mixed."""
        return [name for name in self.__dict__ if self._switch.mixed(self._record.arguments.get(name))]

    @property
    def scaled_once(self) -> bool:
        """Whether a mixture may scale its sizes where they are read alone: whether it is known what it writes."""
        rule = self._record.rule
        return not rule.sizes or rule.axis is not None or type(rule).written is not Rule.written

    @property
    def plain(self) -> type[nn.Module]:
        """The class of the plain layers."""
        return self._record.plain

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the plain layers by name, some of them values that are chosen."""
        return self._record.arguments

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer of the chosen size, or a mixture."""
        if not self._switch.mixed(self._record.arguments):
            chosen = self._switch.value(self._record.arguments)
            return self._run(self._layer(chosen), None, args, kwargs)
        try:
            return self._mixture(self._switch.combinations(self._record.arguments), args, kwargs)
        except MixtureError as error:
            raise MixtureError(f"module {self._path!r}, a {self.plain.__name__}, cannot be mixed: {error}") from None
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if self.mixable(record_options(self._record)):
                raise
            raise MixtureError(
                f"module {self._path!r}, a {self.plain.__name__}, cannot be mixed: its sizes do not run on inputs of "
                f"the greatest one ({type(error).__name__}: {error}); run one path at a time, or give nasmw.nn.elastic "
                "a rule whose `sizes` or `axis` say how"
            ) from error

    def _layer(self, arguments: Arguments) -> _Layer:
        """Return the layer of some arguments, without tensors of its own."""
        layers = self._record.layers
        key = repr(arguments)
        if key not in layers:
            if len(layers) >= KEPT:
                layers.clear()
            layers[key] = self._made(arguments)
        return layers[key]

    def _made(self, arguments: Arguments) -> _Layer:
        module = without_data(self.plain, arguments)
        full = dict(self._tensors())
        slots = []
        for path, owner in module.named_modules():
            kinds = ((owner._parameters, True), (owner._buffers, False))
            for held_by, parameter in kinds:
                for key, tensor in held_by.items():
                    if tensor is None:
                        continue
                    name = f"{path}.{key}" if path else key
                    index = self._part(name, key, owner, full, tuple(tensor.shape), arguments)
                    slots.append(_Slot(held_by, key, name, index, parameter))
        return _Layer(module, tuple(slots), arguments)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            **dict(self.named_parameters(remove_duplicate=False)),
            **dict(self.named_buffers(remove_duplicate=False)),
        }

    def _part(
        self,
        name: str,
        key: str,
        owner: nn.Module,
        full: Mapping[str, Tensor],
        shape: tuple[int, ...],
        arguments: Arguments,
    ) -> Sequence[Index]:
        """Return the part of a tensor, which a module within the layer owns, that a layer of some arguments uses."""
        if name not in full:
            raise SpaceError(
                f"module {self._path!r}: the greatest {self.plain.__name__} has no tensor {name!r}, which the one of "
                f"{arguments!r} has; give nasmw.nn.elastic a rule whose `greatest` says which arguments have them all"
            )
        whole = tuple(full[name].shape)
        rule = self._record.rule
        if type(rule) is Rule and len(whole) == len(shape):  # it knows nothing of the class, but of the layers in it
            index = rule_for(type(owner)).narrow(key, whole, shape, vars(owner))
        else:
            index = rule.narrow(name, whole, shape, arguments)
        sizes = [part.stop - part.start if isinstance(part, slice) else len(part) for part in index]
        inside = all(
            part.start >= 0 and part.stop <= size if isinstance(part, slice) else all(0 <= at < size for at in part)
            for part, size in zip(index, whole, strict=False)
        )
        if tuple(sizes) != shape or len(whole) != len(shape) or not inside:
            raise SpaceError(
                f"module {self._path!r}: tensor {name!r} of a {self.plain.__name__} has the shape {whole} at the "
                f"greatest size, which has no part of the shape {shape} for {arguments!r}; give nasmw.nn.elastic a rule"
            )
        return index

    def _run(
        self, layer: _Layer, shares: Mapping[str, Tensor] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run a layer with parts of the tensors, parameters scaled by their shares."""
        tensors = self._tensors()
        layer.module.train(self.training)
        empty = [slot.held_by[slot.key] for slot in layer.slots]
        try:
            for slot in layer.slots:
                tensor = cut(tensors[slot.name], slot.index)
                if slot.parameter:
                    if shares is not None:
                        tensor = tensor * cut(shares[slot.name], slot.index).to(tensor.dtype)
                    tensor = tensor.contiguous()
                    if not torch.is_grad_enabled():  # PyTorch multiplies weights that require gradients otherwise
                        tensor = tensor.detach().requires_grad_(tensors[slot.name].requires_grad)
                slot.held_by[slot.key] = tensor
            return layer.module(*args, **kwargs)
        finally:
            for slot, tensor in zip(layer.slots, empty, strict=True):
                slot.held_by[slot.key] = tensor

    # -- mixtures -----------------------------------------------------------------------------------------------

    def _mixture(self, runs: list[Weighted], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = self._record.rule
        options = [resolved(self._record.arguments, run.chosen) for run in runs]
        if rule.axis is not None:
            return self._sizes_apart(runs, options, rule.axis, args, kwargs)
        groups: dict[str, list[int]] = {}
        for at, arguments in enumerate(options):
            groups.setdefault(repr(rule.behaviour(arguments)), []).append(at)

        def outputs() -> Any:
            for members in groups.values():
                weights = [weight_of(runs[at]) for at in members]
                together = torch.stack(weights).sum()
                layer = self._layer(rule.widest([options[at] for at in members], options))
                if len(groups) == 1:
                    yield torch.ones_like(together), self._run(layer, self._shares(weights, options), args, kwargs)
                    continue
                # Where several layers run, each has the tensors that are expected given that it does.
                given = _given(weights, together) if len(members) > 1 else None
                shares = None if given is None else self._shares(given, [options[at] for at in members])
                if shares is None and layer.arguments != options[members[0]]:
                    shares = self._shares([torch.ones_like(together)], [options[members[0]]])
                yield together, self._run(layer, shares, args, kwargs)

        if len(groups) == 1:
            return next(outputs())[1]
        return total(outputs(), "it")

    def _shares(self, weights: Sequence[Tensor], options: Sequence[Arguments]) -> dict[str, Tensor]:
        """Return for each element of each parameter how likely it is to be used."""
        layers = [self._layer(arguments) for arguments in options]
        found: dict[str, Tensor] = {}
        for name, tensor in self.named_parameters(remove_duplicate=False):
            parts = [
                (weight.to(tensor.device), self._read(slot, tensor, layer) if self._switch.once else slot.index)
                for weight, layer in zip(weights, layers, strict=True)
                for slot in layer.slots
                if slot.name == name
            ]
            found[name] = share(tensor.shape, parts) if parts else torch.zeros_like(tensor)
        return found

    def _read(self, slot: _Slot, tensor: Tensor, layer: _Layer) -> Sequence[Index]:
        """Return the part of a tensor that a layer uses, as if it had all channels that are written."""
        written = self._record.rule.written(slot.name, layer.arguments)
        return [slice(0, tensor.shape[axis]) if axis in written else part for axis, part in enumerate(slot.index)]

    def _sizes_apart(
        self,
        runs: list[Weighted],
        options: list[Arguments],
        axis: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run each size by itself, on the leading parts of the inputs, and add up outputs filled up with zeros."""
        axis, sizes = _extent(options, axis)
        bound = inspect.signature(self.plain.forward).bind(self, *args, **kwargs)
        given = dict(bound.arguments)
        results = []
        for arguments, size in zip(options, sizes, strict=True):
            inputs = self._record.rule.inputs(arguments)
            lengths = dict.fromkeys(given, size) if inputs is None else inputs
            bound.arguments.update(
                {name: _leading(given[name], axis, lengths[name]) for name in lengths if name in given}
            )
            results.append(self._run(self._layer(arguments), None, bound.args[1:], bound.kwargs))
        firsts = [result[0] if isinstance(result, tuple) else result for result in results]
        made = [first.shape[axis] for first in firsts]
        shares = [weight_of(run) for run in runs]
        if self._switch.once and len(set(made)) > 1:
            shares = _given_used(shares, made, firsts[0].dim(), axis)
        filled = (_filled(first, axis, max(made)) for first in firsts)
        mixed = total(zip(shares, filled, strict=True), "it")
        return (mixed, None) if isinstance(results[0], tuple) else mixed

    def mixable(self, options: Sequence[Arguments]) -> bool:
        """Return whether some options can be mixed, as far as their arguments tell."""
        rule = self._record.rule
        if rule.axis is not None:
            return True
        groups: dict[str, list[Arguments]] = {}
        for arguments in options:
            groups.setdefault(repr(rule.behaviour(arguments)), []).append(arguments)
        try:
            for group in groups.values():
                rule.widest(group, options)
        except MixtureError:
            return False
        shapes = [
            [(slot.name, slot.held_by[slot.key].shape) for slot in self._layer(arguments).slots]
            for arguments in options
        ]
        return bool(rule.sizes) or all(other == shapes[0] for other in shapes)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _restored, (self.plain,), self.__dict__.copy()

    def extra_repr(self) -> str:
        """Return the arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items() if is_open(value))


def weight_of(run: Weighted) -> Tensor:
    """Return the weight of a combination, of which there is one in a mixture."""
    if run.weight is None:
        raise MixtureError("nothing is mixed")
    return run.weight


def _given(weights: Sequence[Tensor], together: Tensor) -> list[Tensor]:
    """Return weights given that one of them it is; where none has any, they are alike."""
    divisor = together.clamp_min(1e-12)
    return [torch.where(together > 0, weight / divisor, 1 / len(weights)) for weight in weights]


def _given_used(weights: Sequence[Tensor], lengths: Sequence[int], dim: int, axis: int) -> list[Tensor]:
    """Return for each size the weights of its elements along an axis, given that one is used that has the element.

    What reads the elements scales them by how likely they are to be used.
    """
    place = torch.arange(max(lengths), device=weights[0].device)
    used = torch.stack([place < length for length in lengths])  # (sizes, elements)
    mass = torch.where(used, torch.stack(list(weights))[:, None], 0.0)
    whole = mass.sum(dim=0)
    shares = torch.where(whole > 0, mass / whole.clamp_min(1e-12), used / used.sum(dim=0))
    shape = [1] * dim
    shape[axis] = max(lengths)
    return [share.reshape(shape) for share in shares]


SIZES = ("embed_dim", "num_channels", "normalized_shape")


def _extent(options: Sequence[Arguments], axis: int) -> tuple[int, list[int | None]]:
    """Return the axis along which layers differ in size, and the size of each; None where it is not known."""
    for name in SIZES:
        if name not in options[0]:
            continue
        sizes = [option[name] for option in options]
        if not isinstance(sizes[0], (tuple, list)):
            return axis, [int(size) for size in sizes]
        several = [at for at in range(len(sizes[0])) if len({size[at] for size in sizes}) > 1]
        if len(several) > 1:
            raise MixtureError(f"its {name} differs along several axes")
        at = several[0] if several else len(sizes[0]) - 1
        return at - len(sizes[0]), [int(size[at]) for size in sizes]
    return axis, [None] * len(options)


def _leading(value: Any, axis: int, size: int | None) -> Any:
    if not isinstance(value, Tensor) or size is None or value.shape[axis] <= size:
        return value
    return value.narrow(axis, 0, size)


def _filled(output: Tensor, axis: int, size: int) -> Tensor:
    missing = size - output.shape[axis]
    if not missing:
        return output
    shape = list(output.shape)
    shape[axis] = missing
    return torch.cat([output, output.new_zeros(shape)], axis)


def record_options(record: _Record) -> list[Arguments]:
    """Return the arguments of all combinations of options."""
    what = f"a {record.plain.__name__}"
    return [resolved(record.arguments, chosen) for chosen in combinations(record.arguments, what)]


def without_data(plain: type[nn.Module], arguments: Arguments) -> nn.Module:
    """Return a layer whose tensors have no data; what it draws comes from nobody's random numbers."""
    meta = {**arguments, "device": "meta"} if arguments.get("device") is not None else arguments
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return plain(**meta)
        except NasmwError:
            raise
        except Exception:  # a constructor may look at values; then it makes a layer with data, to be replaced
            return plain(**arguments)


_CLASSES: dict[type[nn.Module], type[ElasticModule]] = {}


def module_class(plain: type[nn.Module]) -> type[ElasticModule]:
    """Return the class of elastic modules of a class of layers; one for each."""
    if plain not in _CLASSES:
        _CLASSES[plain] = type(f"Elastic{plain.__name__}", (ElasticModule, plain), {"__module__": __name__})
    return _CLASSES[plain]


def _restored(plain: type[nn.Module]) -> ElasticModule:
    return object.__new__(module_class(plain))
