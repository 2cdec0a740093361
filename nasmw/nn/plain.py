"""From a model space to the plain network of one architecture: its class, and its weights."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from nasmw.errors import BuildError
from nasmw.nn.decisions import Deciding
from nasmw.nn.elastic_module import ElasticModule
from nasmw.nn.rules import cut
from nasmw.nn.values import resolved

__all__ = ["inherit", "plain_class"]


_CLASSES: dict[type, type[nn.Module]] = {}


def plain_class(cls: type, base: type) -> type[nn.Module]:
    """Return a class of plain modules with the methods of a class of model spaces.

    Args:
        cls: The class, which derives from `base`.
        base: What the plain class has `torch.nn.Module` in the place of.
    """
    if cls in _CLASSES:
        return _CLASSES[cls]
    bases = tuple(
        nn.Module if parent is base else plain_class(parent, base) if issubclass(parent, base) else parent
        for parent in cls.__bases__
    )
    cell: types.CellType = types.CellType()
    left_out = {"__dict__", "__weakref__", "__init__", "__reduce_ex__", "__classcell__"}
    namespace = {name: _rebound(value, cell) for name, value in vars(cls).items() if name not in left_out}
    namespace["__reduce_ex__"] = _reduce
    namespace["_space_class"] = staticmethod(lambda: cls)
    made = types.new_class(cls.__name__, tuple(dict.fromkeys(bases)), exec_body=lambda own: own.update(namespace))
    cell.cell_contents = _CLASSES[cls] = made
    return made


def _rebound(value: Any, cell: types.CellType) -> Any:
    """Return a member of a class whose `super()` and `__class__` mean the class of another cell."""
    if isinstance(value, (staticmethod, classmethod)):
        return type(value)(_rebound(value.__func__, cell))
    if isinstance(value, property):
        getter, setter, deleter = (_rebound(function, cell) for function in (value.fget, value.fset, value.fdel))
        return property(getter, setter, deleter, value.__doc__)
    if not inspect.isfunction(value) or "__class__" not in value.__code__.co_freevars:
        return value
    names = value.__code__.co_freevars
    cells = tuple(
        cell if name == "__class__" else own for name, own in zip(names, value.__closure__ or (), strict=True)
    )
    made = types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
    made.__kwdefaults__ = value.__kwdefaults__
    made.__dict__.update(value.__dict__)
    made.__qualname__, made.__doc__ = value.__qualname__, value.__doc__
    made.__annotations__ = value.__annotations__
    return made


def _reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
    return _restored, (type(self)._space_class(),), self.__dict__.copy()


def _restored(cls: type) -> nn.Module:
    from nasmw.nn.model_space import ModelSpace

    made: nn.Module = object.__new__(plain_class(cls, ModelSpace))
    return made


def inherit(module: nn.Module, built: nn.Module, chosen: Mapping[Any, Any], path: str = "") -> None:
    """Give a built module the weights and buffers that a module of the supernet has for it.

    Args:
        module: The module of the supernet.
        built: What was built for it.
        chosen: The options by the names of the choices.
        path: The path of the module, for messages.

    Raises:
        BuildError: If the two are not alike.
    """
    if isinstance(module, Deciding):
        for part, made in module.inherit(built, _evaluated(chosen)):
            inherit(part, made, chosen, f"{path}.{type(part).__name__}")
        return
    if isinstance(module, ElasticModule):
        layer = module._layer(resolved(module.arguments, chosen))
        full = module._tensors()
        _copy({slot.name: cut(full[slot.name], slot.index) for slot in layer.slots}, _tensors(built, True), path)
        return
    _copy(_tensors(module, False), _tensors(built, False), path)
    for name, child in module._modules.items():
        if child is not None:
            if (its := built._modules.get(name)) is None:
                raise BuildError(f"the built network has no module {name!r} at {path!r}, and the space has one")
            inherit(child, its, chosen, f"{path}.{name}" if path else name)


def _evaluated(chosen: Mapping[Any, Any]) -> Callable[[Any], Any]:
    return lambda value: resolved(value, chosen)


def _tensors(module: nn.Module, deep: bool) -> dict[str, torch.Tensor]:
    return {
        **dict(module.named_parameters(recurse=deep, remove_duplicate=False)),
        **dict(module.named_buffers(recurse=deep, remove_duplicate=False)),
    }


def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], path: str) -> None:
    if {name: tensor.shape for name, tensor in source.items()} != {name: made.shape for name, made in target.items()}:
        raise BuildError(
            f"the built network has other tensors at {path!r} than the space: {sorted(target)} and {sorted(source)}, "
            "or other shapes; does `__init__` give another network each time?"
        )
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].data = tensor.detach().clone()
