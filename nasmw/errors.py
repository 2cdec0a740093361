"""The tree of exceptions that nasmw raises on purpose; every one is a `NasmwError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AdapterError",
    "BuildError",
    "ConstraintError",
    "DeadlockError",
    "DeviceError",
    "EvaluationError",
    "ExportError",
    "LogError",
    "LogInUseError",
    "LogMismatchError",
    "MissingExtraError",
    "NasmwError",
    "OrderError",
    "ProfilerError",
    "SearchInterrupted",
    "SpaceError",
    "TrialStopped",
]


class NasmwError(Exception):
    """Root of all exceptions that nasmw raises on purpose."""


class SpaceError(NasmwError, ValueError):
    """A space, a choice or an architecture is not well formed."""


class BuildError(NasmwError, RuntimeError):
    """`Space.build` failed for an architecture, or gave something that is no network."""


class ConstraintError(NasmwError, ValueError):
    """A limit cannot be met, or contradicts itself."""


class ProfilerError(NasmwError, ValueError):
    """A profiler gave something that is no finite number, or clashes with another one."""


class EvaluationError(NasmwError, ValueError):
    """An evaluation returned something that cannot be the metrics of a trial."""


class TrialStopped(NasmwError):  # noqa: N818  it is no error
    """Ends a trial that `Trial.report` found not worth going on with; an evaluation lets it pass."""


class ExportError(NasmwError, RuntimeError):
    """An exported network is not what it was exported from."""


class AdapterError(NasmwError, RuntimeError):
    """A library that a strategy hands its work to has failed; the message says which one, and how."""


class OrderError(NasmwError, RuntimeError):
    """A stage was called out of order: told what it never asked, asked before `setup`, told twice."""


class DeadlockError(NasmwError, RuntimeError):
    """Nothing was asked, nothing is pending, and the strategy is not exhausted."""


class LogError(NasmwError, RuntimeError):
    """The log cannot be read or written."""


class LogMismatchError(LogError):
    """The log belongs to another space, chain or seed, or replaying it took another course."""


class LogInUseError(LogError):
    """Another run holds the log."""


class DeviceError(NasmwError, RuntimeError):
    """A device did not do what it was asked: it crashed, hung, answered rubbish or refused; never a number."""


class MissingExtraError(NasmwError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed; install it with: pip install 'nasmw[{extra}]'"
        )
        self.package = package
        self.extra = extra


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a search; what had finished is in the log, and the message says how to go on."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return the end of a sentence that names what `name` may have been meant to be.

    Args:
        name: What was given.
        known: What would have been accepted, in order.

    Returns:
        ``"; did you mean 'a' or 'b'?"``, or ``"; known are 'a', 'b', ..."`` where nothing is near.
    """
    options = list(known)
    by_text = {str(option): option for option in options}
    near = difflib.get_close_matches(str(name), by_text, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(by_text[text]) for text in near) + "?"
    shown = ", ".join(repr(option) for option in options[:8])
    return f"; known are {shown}{', ...' if len(options) > 8 else ''}"
