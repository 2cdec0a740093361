"""Profilers by name from a plain dictionary or a TOML file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nasmw.errors import OrderError, ProfilerError, did_you_mean
from nasmw.profiler import Profiler
from nasmw.space import Space

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["from_config"]

Settings = dict[str, Any]
Maker = Callable[[Space, str, Settings, Path], Profiler]
"""Makes a profiler of a space, its name, its settings (those that it takes out are known), and the folder of files."""


def from_config(
    space: Space,
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    kinds: Mapping[str, Maker] | None = None,
) -> dict[str, Profiler]:
    """Return profilers by name, as a dictionary or a TOML file lists them.

    Each profiler is a table ``[profilers.NAME]`` with a ``kind``; NAME is the name of its metric. Paths are relative to
    the TOML file (to the working folder, for a dictionary). The kinds and what they take:

    - ``flops``, ``activations``, ``peak_memory``: ``input``, the shape of an input, such as ``[1, 3, 224, 224]``;
    - ``params``, ``model_size``: nothing;
    - ``lookup``: ``file``, the table; ``format`` and ``unit`` where it needs them;
    - ``learned``: ``file``, what `LearnedProfiler.save` wrote; or ``store`` and ``device`` (and ``metric_name``, if the
      store knows it by another name), from a `PredictorStore`; or ``predictor``, ``encoding``, ``parameters`` (of the
      predictor), ``unit``, ``device``, ``transform``, ``update_weight`` for one that is still to be fitted or that
      learns during the search. With each of them ``metric``, the raw metric that it learns from; ``frozen = true`` for
      one that does not learn any more.

    Args:
        space: The space that is profiled.
        config: The path of a TOML file, or a dictionary of the same form. Other tables in it are left alone.
        kinds: Further kinds by name.

    Returns:
        The profilers by name, in the order of the file.

    Raises:
        FileNotFoundError: If a file is missing.
        ProfilerError: If there is no profiler, a kind or a setting is unknown, or a setting does not fit.

    Example:
        >>> from nasmw.testing import toy_space
        >>> profilers = from_config(toy_space(), {"profilers": {"weights": {"kind": "params"}}})
        >>> profilers["weights"].name
        'weights'
    """
    if not isinstance(space, Space):
        raise TypeError(f"from_config takes a Space first, got {type(space).__name__}")
    if isinstance(config, Mapping):
        tables, folder, what = config, Path(), "the configuration"
    else:
        path = Path(config)
        tables, folder, what = _read(path), path.parent, repr(str(path))
    listed = tables.get("profilers")
    if not isinstance(listed, Mapping) or not listed:
        raise ProfilerError(f"{what} lists no profilers; it needs tables such as [profilers.latency_ms], with a kind")
    makers = {**MAKERS, **(kinds or {})}
    profilers = {}
    for name, given in listed.items():
        where = f"[profilers.{name}] in {what}"
        if not isinstance(given, Mapping):
            raise ProfilerError(f"{where} is to be a table of settings, got {given!r}")
        settings = _Settings(given)
        kind = settings.pop("kind", None)
        if not isinstance(kind, str) or kind not in makers:
            raise ProfilerError(f"{where} has the kind {kind!r}{did_you_mean(kind, sorted(makers))}")
        try:
            profilers[name] = makers[kind](space, name, settings, folder)
        except _LackingError as error:
            raise ProfilerError(f"{where} lacks the setting {error.args[0]!r}, which the kind {kind!r} needs") from None
        except OrderError as error:
            raise OrderError(f"{where}: {error}") from error
        except (TypeError, ValueError) as error:
            if type(error) not in (TypeError, ValueError, ProfilerError):
                raise
            raise ProfilerError(f"{where}: {error}") from error
        if settings:
            raise ProfilerError(f"{where} has settings that the kind {kind!r} does not take: {', '.join(settings)}")
        if not isinstance(profilers[name], Profiler) or profilers[name].name != name:
            raise ProfilerError(f"{where} is to give a profiler named {name!r}, and gave {profilers[name]!r}")
    return profilers


class _LackingError(KeyError):
    """A setting is missing."""


class _Settings(Settings):
    """Settings that have not been taken out yet."""

    def __missing__(self, name: str) -> Any:
        raise _LackingError(name)

    def pop(self, name: str, *default: Any) -> Any:
        """Take a setting out."""
        if name not in self and not default:
            raise _LackingError(name)
        return super().pop(name, *default)


def _typed(settings: Settings, name: str, kind: type, *default: Any) -> Any:
    """Take a setting out that is to be of a kind."""
    value = settings.pop(name, *default)
    if not isinstance(value, kind) and (value,) != default:
        raise ProfilerError(f"`{name}` is to be a {kind.__name__}, got {value!r}")
    return value


def _read(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise ProfilerError(f"{str(path)!r} is no TOML file: {error}") from None


def _input(settings: Settings) -> Any:
    import torch

    shape = settings.pop("input")
    if not isinstance(shape, (list, tuple)) or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise ProfilerError(f"`input` is the shape of an input, such as [1, 3, 224, 224], got {shape!r}")
    return torch.zeros(*shape)


def _flops(space: Space, name: str, settings: Settings, folder: Path) -> Profiler:
    from nasmw.profilers.flops import FlopsProfiler

    return FlopsProfiler(space, _input(settings), name=name)


def _activations(space: Space, name: str, settings: Settings, folder: Path) -> Profiler:
    from nasmw.profilers.activations import ActivationsProfiler

    return ActivationsProfiler(space, _input(settings), name=name)


def _peak_memory(space: Space, name: str, settings: Settings, folder: Path) -> Profiler:
    from nasmw.profilers.activations import PeakMemoryProfiler

    return PeakMemoryProfiler(space, _input(settings), name=name)


def _params(space: Space, name: str, settings: Settings, folder: Path) -> Profiler:
    from nasmw.profilers.params import ParamsProfiler

    return ParamsProfiler(space, name=name)


def _model_size(space: Space, name: str, settings: Settings, folder: Path) -> Profiler:
    from nasmw.profilers.params import ModelSizeProfiler

    return ModelSizeProfiler(space, name=name)


def _lookup(space: Space, name: str, settings: Settings, folder: Path) -> Profiler:
    from nasmw.profilers.lookup import LookupTableProfiler

    file = folder / _typed(settings, "file", str)
    return LookupTableProfiler(
        space, file, name=name, format=settings.pop("format", None), unit=settings.pop("unit", None)
    )


def _learned(space: Space, name: str, settings: Settings, folder: Path) -> Profiler:
    from nasmw.profilers.learned.base import LearnedProfiler
    from nasmw.profilers.learned.predictor import make_predictor
    from nasmw.profilers.learned.store import PredictorStore

    metric = _typed(settings, "metric", str, None)
    frozen = _typed(settings, "frozen", bool, False)
    if "file" in settings:
        profiler = LearnedProfiler.load(folder / _typed(settings, "file", str), space)
    elif "store" in settings:
        store = PredictorStore(folder / _typed(settings, "store", str))
        profiler = store.get(space, _typed(settings, "device", str, None), _typed(settings, "metric_name", str, name))
    else:
        profiler = LearnedProfiler(
            space,
            make_predictor(settings.pop("predictor"), **_typed(settings, "parameters", dict, {})),
            settings.pop("encoding", None),
            name=name,
            unit=settings.pop("unit", "ms"),
            device=settings.pop("device", None),
            transform=settings.pop("transform", "none"),
            update_weight=settings.pop("update_weight", 1.0),
        )
    profiler.name = name
    profiler.metric = metric or (profiler.metric if profiler.metric != name else f"measured_{name}")
    return profiler.freeze() if frozen else profiler


MAKERS: dict[str, Maker] = {
    "activations": _activations,
    "flops": _flops,
    "learned": _learned,
    "lookup": _lookup,
    "model_size": _model_size,
    "params": _params,
    "peak_memory": _peak_memory,
}
"""What makes a profiler of each kind."""
