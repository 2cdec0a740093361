"""Predictor: what learns numbers from features, and how it is found by its name."""

from __future__ import annotations

import importlib
import numbers
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, cast

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Floats
from nasmw.errors import ProfilerError, did_you_mean
from nasmw.profilers.learned.encodings import Features

__all__ = [
    "Arrays",
    "LeftOut",
    "Linear",
    "Prediction",
    "Predictor",
    "as_numbers",
    "make_predictor",
    "number",
    "predictor_class",
    "whole",
]

Arrays = dict[str, npt.NDArray[Any]]
Self = TypeVar("Self", bound="Predictor")

READY = {
    "boosting": ("nasmw.profilers.learned.boosting", "Boosting"),
    "gp": ("nasmw.profilers.learned.gaussian_process", "GaussianProcess"),
    "graph_network": ("nasmw.profilers.learned.graph_network", "GraphNetwork"),
    "mlp": ("nasmw.profilers.learned.mlp", "MLP"),
    "multi_source": ("nasmw.profilers.learned.multi_source", "MultiSource"),
    "ridge": ("nasmw.profilers.learned.ridge", "Ridge"),
    "transfer": ("nasmw.profilers.learned.transfer", "Transfer"),
}
"""The predictors of this package; a module is imported once its predictor is asked for."""
_KNOWN: dict[str, type[Predictor]] = {}


@attrs.frozen(eq=False)
class Prediction:
    """What a predictor says of candidates.

    Attributes:
        mean: ``(n,)`` float64.
        spread: ``(n,)`` float64 above 0: how uncertain each value is compared with the others. Its scale does not
            matter, since it is calibrated on residuals.
    """

    mean: Floats
    spread: Floats


@attrs.frozen(eq=False)
class LeftOut:
    """Predictions of samples by what was learnt without them.

    Attributes:
        rows: ``(m,)``, which of the samples.
        prediction: Of these, with the spread of a single measurement.
    """

    rows: npt.NDArray[np.intp]
    prediction: Prediction


@attrs.frozen(eq=False)
class Linear:
    """A predictor as a weighted sum of features.

    Attributes:
        weights: ``(p,)``.
        constant: What is added.
    """

    weights: Floats
    constant: float


class Predictor(ABC):
    """Learns numbers from features. Subclasses are attrs classes whose fields are the hyper-parameters.

    What is learnt lives in attributes with a leading underscore, is replaced as a whole by `fit`, and goes to files by
    `state` and `restore` as plain arrays. A subclass names itself by `kind`, by which files and configurations find it.
    Nothing touches a global random state: `seed` is a hyper-parameter where one is needed.
    """

    kind: ClassVar[str] = ""
    """The name by which files and configurations find the class, unique."""
    minimum: ClassVar[int] = 3
    """The number of samples below which nothing can be learnt."""
    folds: ClassVar[int] = 5
    """Into how many parts samples are split for calibration, each predicted by what the others taught."""
    folds_used: ClassVar[int] = 5
    """How many of these parts are predicted; fewer where a fit is slow."""
    options: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """What `tune` tries: values of hyper-parameters by name."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            _KNOWN[cls.kind] = cls  # attrs makes classes twice, the second is the one to keep

    @abstractmethod
    def fit(self, features: Features, values: Floats, weights: Floats) -> None:
        """Learn from samples, from scratch.

        Args:
            features: Of ``n`` samples.
            values: ``(n,)``, of mean 0 and standard deviation 1.
            weights: ``(n,)``, how much each sample counts, of mean 1.
        """

    @abstractmethod
    def predict(self, features: Features) -> Prediction:
        """Return what was learnt of candidates; a row does not depend on the other rows."""

    @abstractmethod
    def state(self) -> Arrays:
        """Return what was learnt, as arrays without Python objects."""

    @abstractmethod
    def restore(self, state: Arrays, groups: tuple[Any, ...]) -> None:
        """Take back what `state` gave; `groups` are those of the features."""

    def left_out(self) -> LeftOut | None:
        """Return what the last `fit` knows of samples had they been left out; None where that takes further fits."""
        return None

    def linear(self) -> Linear | None:
        """Return what was learnt as a weighted sum of the features; None where it is none."""
        return None

    @property
    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters, as JSON-able values by name."""
        return {name: getattr(self, name) for name in _parameter_names(type(self))}

    def fresh(self: Self, **changes: Any) -> Self:
        """Return the same predictor with nothing learnt, some hyper-parameters changed."""
        return type(self)(**{**self.parameters, **changes})


def whole(least: int) -> Callable[[Any, attrs.Attribute[Any], object], None]:
    """Return a validator of hyper-parameters that are whole numbers of at least `least`."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
            name = f"{type(instance).__name__}({attribute.name}=...)"
            raise ProfilerError(f"{name} takes a whole number of at least {least}, got {value!r}")

    return check


def as_numbers(what: str, values: npt.ArrayLike) -> Floats:
    """Return values as float64; `what` names them.

    Raises:
        ProfilerError: If they are no real numbers.
    """
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ProfilerError(f"{what} are numbers; got {reprlib.repr(values)} ({error})") from None


def number(wanted: str, holds: Callable[[float], bool]) -> Callable[[Any, attrs.Attribute[Any], object], None]:
    """Return a validator of hyper-parameters that are numbers of which something holds, `wanted` in words."""

    def check(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not holds(float(value)):
            raise ProfilerError(f"{type(instance).__name__}({attribute.name}=...) takes {wanted}, got {value!r}")

    return check


def _parameter_names(cls: type[Predictor]) -> list[str]:
    """Return the names of the hyper-parameters of a class of predictors, which is an attrs class."""
    fields: tuple[Any, ...] = attrs.fields(cast(Any, cls))
    return [field.name for field in fields if field.init]


def predictor_class(kind: str) -> type[Predictor]:
    """Return the class of a name.

    Raises:
        ProfilerError: If there is none; names the near ones.
    """
    if kind in READY and kind not in _KNOWN:
        module, name = READY[kind]
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    if kind not in _KNOWN:
        raise ProfilerError(
            f"there is no predictor {kind!r}{did_you_mean(kind, sorted({*READY, *_KNOWN}))}; a class of your own is "
            "known by its `kind` once its module is imported"
        )
    return _KNOWN[kind]


def make_predictor(predictor: Predictor | str | type[Predictor], **parameters: Any) -> Predictor:
    """Return a predictor with nothing learnt.

    Args:
        predictor: A name such as ``"ridge"``, a class, or a predictor to take the hyper-parameters of.
        **parameters: Hyper-parameters.

    Raises:
        TypeError: If it is none of these.
        ProfilerError: If the name or a hyper-parameter is unknown.
    """
    if isinstance(predictor, Predictor):
        return predictor.fresh(**parameters)
    cls = predictor_class(predictor) if isinstance(predictor, str) else predictor
    if not isinstance(cls, type) or not issubclass(cls, Predictor):
        raise TypeError(f"a predictor is a name such as 'ridge', or a Predictor, got {predictor!r}")
    known = _parameter_names(cls)
    for name in parameters:
        if name not in known:
            raise ProfilerError(f"the predictor {cls.kind!r} has no parameter {name!r}{did_you_mean(name, known)}")
    return cls(**parameters)
