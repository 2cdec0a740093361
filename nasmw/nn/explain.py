"""Errors that name the module and the remedy, where a value that is open met code that wants a number."""

from __future__ import annotations

import inspect
import linecache
import re
from types import FrameType, TracebackType

from torch import nn

from nasmw.errors import NasmwError, SpaceError
from nasmw.nn.decisions import Deciding
from nasmw.nn.elastic_module import ElasticModule
from nasmw.nn.switch import MixtureError
from nasmw.nn.values import Computed, OpenValueError, ValueChoice, is_open

__all__ = ["explain_draft", "explain_mixture"]


def explain_mixture(space: nn.Module, error: Exception, ignored: frozenset[str]) -> None:
    """Raise an error that says more, where a value that is open in a mixture is behind one of a forward pass.

    Args:
        space: The model space.
        error: What was raised.
        ignored: The attributes of the space that are no business of a search.
    """
    if isinstance(error, MixtureError):
        return
    paths = {id(module): path for path, module in space.named_modules()}
    for module in reversed(_modules_of(error.__traceback__, "forward")):
        for name, value in vars(module).items():
            if name in ignored or isinstance(module, (Deciding, ElasticModule)) or not is_open(value):
                continue
            path = paths.get(id(module), "")
            where = f"module {path!r}" if path else "the space itself"
            raise MixtureError(
                f"{where}, a {type(module).__name__}, looks at its attribute {name!r} in `forward`, which is "
                f"{value!r} and has no single value in a mixture; run one path at a time with space.activate, or "
                "let a LayerChoice decide between modules that each have one value"
            ) from error
        text = str(error)
        if not isinstance(error, OpenValueError) and not any(kind.__name__ in text for kind in (ValueChoice, Computed)):
            continue
        for name, child in module.named_children():
            if isinstance(child, ElasticModule) and (shown := child.shown):
                path = paths.get(id(module), "")
                where = f"module {path!r}" if path else "the space itself"
                raise MixtureError(
                    f"{where}, a {type(module).__name__}, looks at {name}.{shown[0]} in `forward`, or at another "
                    f"size of a layer, which has none in a mixture ({error}); run one path at a time with "
                    "space.activate, or let the shapes of tensors say the size"
                ) from error


def _modules_of(trace: TracebackType | None, function: str) -> list[nn.Module]:
    """Return the modules whose method of some name was running where an exception was raised, outermost first."""
    found = []
    while trace is not None:
        module = _first_argument(trace.tb_frame)
        if trace.tb_frame.f_code.co_name == function and isinstance(module, nn.Module):
            found.append(module)
        trace = trace.tb_next
    return found


def _first_argument(frame: FrameType) -> object:
    """Return what is `self` in a method, whatever it is called."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None


_ASSIGNED = re.compile(r"^\s*\w+\.(\w+)\s*(?::[^=]+)?=[^=]")


def explain_draft(error: Exception) -> None:
    """Raise an error that names the module whose `__init__` met an open value, where that is what happened."""
    trace = error.__traceback__
    path: list[str] = []
    culprit: tuple[nn.Module, str, object] | None = None
    named = 0
    while trace is not None:
        frame = trace.tb_frame
        module = _first_argument(frame)
        if frame.f_code.co_name == "__init__" and isinstance(module, nn.Module):
            line = linecache.getline(frame.f_code.co_filename, trace.tb_lineno)
            assigned = _ASSIGNED.match(line)
            arguments = inspect.getargvalues(frame)
            given = {name: frame.f_locals[name] for name in arguments.args[1:] if name in frame.f_locals}
            held = next(((name, value) for name, value in given.items() if is_open(value)), None)
            if held is not None:
                culprit, named = (module, *held), len(path)
            elif isinstance(error, OpenValueError):
                culprit, named = (module, "", None), len(path)
            path.append(assigned[1] if assigned else type(module).__name__)
        trace = trace.tb_next
    if culprit is None:
        return
    module, argument, value = culprit
    if isinstance(error, NasmwError) and not isinstance(error, OpenValueError):
        return
    inner = ".".join(path[:named]) or "the space itself"
    what = f"{type(module).__module__}.{type(module).__qualname__}"
    if argument:
        name = type(module).__name__
        layer = f"nasmw.nn.{name}" if what.startswith("torch.nn.") else f"nasmw.nn.elastic({name})"
        raise SpaceError(
            f"module {inner!r}: {what} was given {value!r} as `{argument}` and has no hook for it "
            f"({type(error).__name__}: {error}); make it by {layer}, which takes value choices"
        ) from error
    raise SpaceError(f"module {inner!r}: {error}") from error
