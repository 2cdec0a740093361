"""Profiler: what every profiler promises; arithmetic of profilers."""

from __future__ import annotations

import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeGuard, cast

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Floats, Outcomes
from nasmw.constraint import Constraint, exactly, parse_share
from nasmw.errors import ConstraintError, ProfilerError
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Bounds", "Combination", "MultiProfiler", "Profiler", "check_names", "profile"]

Kind = Literal["analytical", "learned", "measured"]
KINDS: tuple[Kind, ...] = ("analytical", "learned", "measured")


@attrs.frozen
class Bounds:
    """The least and the greatest value over a space, each with an architecture that has it."""

    low: float
    high: float
    low_architecture: Architecture
    high_architecture: Architecture


class Profiler(ABC):
    """Gives one number about each architecture of a space, without training it.

    A subclass implements `_profile` (one architecture), `_profile_batch` (a table of candidates), or both; each has a
    default in terms of the other. Both must be functions of the architecture alone, unless `pure` is False. What
    depends on the space alone is done in the constructor. `update` may change later answers and then counts `version`
    up; the loop never asks which kind of profiler it holds.

    Args:
        name: The name of the metric, unique in a run.
        unit: The unit, as in ``"ms"``; empty for a plain count.
        space: The space whose architectures are profiled; None where only networks are.
        kind: ``"analytical"`` (computed), ``"learned"`` (predicted) or ``"measured"``.
        device: What a latency is about; None where the device does not matter.

    Comparisons give a `Constraint`; ``+``, ``-`` and ``*`` by a number give a `Combination`.
    """

    table: Any = None
    """The cost table behind the profiler (MACs of each layer, say), or None."""
    relative_error: float | None = None
    """Where `std` is the same share of every value, that share; else None."""
    __array_ufunc__ = None  # NumPy numbers leave comparisons and arithmetic to the profiler

    def __init__(
        self,
        name: str,
        unit: str = "",
        *,
        space: Space | None = None,
        kind: Kind = "analytical",
        device: str | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ProfilerError(f"a profiler is named by a non-empty string, got {name!r}")
        if space is not None and not isinstance(space, Space):
            raise TypeError(f"{type(self).__name__} takes a Space first, got {type(space).__name__}")
        if kind not in KINDS:
            raise ProfilerError(f"the kind of a profiler is one of {KINDS}, got {kind!r}")
        self.name = name
        self.unit = unit
        self.space = space
        self.kind: Kind = kind
        self.device = device
        self.version = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls._profile is Profiler._profile and cls._profile_batch is Profiler._profile_batch:
            raise TypeError(f"{cls.__name__} must implement `_profile` or `_profile_batch`")

    @property
    def fixed(self) -> bool:
        """Whether a value is a function of the architecture alone, so that `update` changes nothing."""
        return self.kind == "analytical"

    @property
    def pure(self) -> bool:
        """Whether a value is a function of the architecture and of what was told; if not, runs record it."""
        return self.fixed or self.kind != "measured"

    def __repr__(self) -> str:
        on = f" on {self.device}" if self.device else ""
        return f"<{type(self).__name__} {self.name!r}{f' [{self.unit}]' if self.unit else ''}{on}>"

    # -- what a subclass implements -----------------------------------------------------------------------------

    def _profile(self, architecture: Architecture) -> float:
        return float(np.asarray(self._profile_batch(self._space().candidates([architecture])), dtype=np.float64)[0])

    def _profile_batch(self, candidates: Candidates) -> npt.ArrayLike:
        return [self._profile(architecture) for architecture in candidates]

    def _profile_model(self, model: nn.Module) -> float:
        raise TypeError(
            f"{self!r} knows architectures only, not networks; give it a mapping of choices, or use a profiler that "
            "counts on networks"
        )

    # -- what others call ---------------------------------------------------------------------------------------

    def _space(self) -> Space:
        if self.space is None:
            raise ProfilerError(f"{self!r} was made without a space; pass one to profile architectures")
        return self.space

    def profile(self, architecture: Architecture) -> float:
        """Return the value of one architecture, a mapping of choice names to options.

        Raises:
            SpaceError: If the architecture is not of the profiler's space.
            ProfilerError: If the value is not finite.
        """
        value = self._profile(architecture)
        if not math.isfinite(value):
            raise ProfilerError(f"{self!r} gave {value} for {dict(architecture)!r}; it must give a finite number")
        return value

    def profile_batch(self, candidates: Candidates) -> Floats:
        """Return the values of candidates, ``(n,)`` float64.

        Raises:
            ProfilerError: If a value is not finite; names the architecture.
        """
        values = np.asarray(self._profile_batch(candidates), dtype=np.float64)
        if values.shape != (len(candidates),):
            raise ProfilerError(f"{self!r} gave shape {values.shape} for {len(candidates)} candidates")
        # Most batches have one row, for which a scalar check is several times faster.
        if not (math.isfinite(values[0]) if len(values) == 1 else np.isfinite(values).all()):
            worst = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ProfilerError(
                f"{self!r} gave {values[worst]} for {next(iter(candidates[worst]))!r}; it must give finite numbers"
            )
        return values

    def profile_model(self, model: nn.Module) -> float:
        """Return the value of a network, outside any space.

        Raises:
            TypeError: If this profiler knows architectures only.
            ProfilerError: If the value is not finite.
        """
        value = self._profile_model(model)
        if not math.isfinite(value):
            raise ProfilerError(f"{self!r} gave {value} for a {type(model).__name__}")
        return value

    def std(self, candidates: Candidates) -> Floats | None:
        """Return the standard deviation of each value, ``(n,)``, or None where the profiler knows none."""
        return None

    def bounds(self) -> Bounds | None:
        """Return the least and greatest value over the space, exactly, or None where they are not known."""
        return None

    def update(self, outcomes: Outcomes) -> None:
        """Learn from finished trials; does nothing for an analytical profiler."""

    @property
    def auditors(self) -> tuple[Profiler, ...]:
        """The profilers whose `audit` compares something: this one, its parts, or none of them."""
        return ()

    def audit(self, model: nn.Module, architecture: Architecture) -> float | None:
        """Compare what this profiler says of an architecture with the network that was built for it.

        A search calls it on every network that `Trial.model` builds, in the worker, for the `auditors` of its
        profilers; what it raises fails the trial. It has to be cheap beside a training, has to leave the network as it
        is, and does nothing by default.

        Args:
            model: The network.
            architecture: The architecture that it was built from.

        Returns:
            The value of the network; None where nothing is compared.

        Raises:
            ProfilerError: If they differ.
        """
        return None

    # -- limits -------------------------------------------------------------------------------------------------

    def __le__(self, limit: float) -> Constraint:
        return Constraint(self, high=_limit(self, limit))

    def __ge__(self, limit: float) -> Constraint:
        return Constraint(self, low=_limit(self, limit))

    def __lt__(self, limit: float) -> Constraint:
        high = _limit(self, limit)
        return Constraint(self, high=math.nextafter(high, -math.inf), text=f"{self.name} < {exactly(high)}")

    def __gt__(self, limit: float) -> Constraint:
        low = _limit(self, limit)
        return Constraint(self, low=math.nextafter(low, math.inf), text=f"{self.name} > {exactly(low)}")

    def at_most(self, limit: float | str) -> Constraint:
        """Return an upper limit, as a number or as a share of the space.

        Args:
            limit: A number; ``"60%"``: the value that 60 % of the space does not exceed (estimated on
                4,096 random architectures when a search is set up); ``"60% of max"``: that share of the greatest
                value (exact where the profiler has bounds, else the greatest of the same sample).

        Example:
            >>> from nasmw.testing import toy_space, TableProfiler
            >>> TableProfiler(toy_space()).at_most("60%")
            <Constraint cost <= 60% of the space>
        """
        return self <= limit if not isinstance(limit, str) else Constraint(self, share=parse_share(limit), upper=True)

    def at_least(self, limit: float | str) -> Constraint:
        """Return a lower limit, as a number or as a share; ``"60%"`` is the value that 60 % of the space reaches."""
        return self >= limit if not isinstance(limit, str) else Constraint(self, share=parse_share(limit), upper=False)

    # -- arithmetic ---------------------------------------------------------------------------------------------

    def __add__(self, other: Profiler | float) -> Combination:
        return Combination.of((1.0, self), (1.0, other))

    def __radd__(self, other: float) -> Combination:
        return Combination.of((1.0, other), (1.0, self))

    def __sub__(self, other: Profiler | float) -> Combination:
        return Combination.of((1.0, self), (-1.0, other))

    def __mul__(self, factor: float) -> Combination:
        if not _is_number(factor):
            raise TypeError(f"a profiler is multiplied by a number, got {factor!r}; see Reward for other formulas")
        return Combination.of((float(factor), self))

    __rmul__ = __mul__

    def __neg__(self) -> Combination:
        return self * -1.0


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _limit(profiler: Profiler, limit: object) -> float:
    if isinstance(limit, Profiler):
        raise TypeError(f"a limit is a number; to compare two profilers write {profiler.name} - {limit.name} <= 0")
    if not _is_number(limit):
        hint = "; for a share of the space write .at_most('60%')" if isinstance(limit, str) else ""
        raise TypeError(f"a limit on {profiler.name!r} is a number, got {limit!r}{hint}")
    if not math.isfinite(limit):
        raise ConstraintError(f"a limit on {profiler.name!r} must be finite, got {limit}; leave it out for no limit")
    return float(limit)


class Combination(Profiler):
    """A weighted sum of profilers and a constant; made by arithmetic, renamed by `named`."""

    def __init__(
        self, terms: Sequence[tuple[float, Profiler]], constant: float = 0.0, *, name: str | None = None
    ) -> None:
        if not terms:
            raise ProfilerError("a combination needs at least one profiler")
        parts = [part for _, part in terms]
        units = {part.unit for part in parts}
        devices = {part.device for part in parts}
        spaces = {part.space.fingerprint: part.space for part in parts if part.space is not None}
        if len(spaces) > 1:
            raise ProfilerError(f"cannot combine profilers of different spaces: {parts}")
        super().__init__(
            name or _formula(terms, constant),
            units.pop() if len(units) == 1 else "",
            space=next(iter(spaces.values()), None),
            kind=max((part.kind for part in parts), key=KINDS.index),
            device=devices.pop() if len(devices) == 1 else None,
        )
        self.terms = tuple(terms)
        self.constant = float(constant)
        self._joint = self._part_tables(), self._joint_table()

    @property
    def fixed(self) -> bool:
        """Whether all parts are fixed."""
        return all(part.fixed for _, part in self.terms)

    @property
    def pure(self) -> bool:
        """Whether all parts are pure."""
        return all(part.pure for _, part in self.terms)

    @property
    def table(self) -> Any:
        """The weighted sum of the parts' tables as they are now (parts may learn); None where there is none."""
        tables = self._part_tables()
        if any(table is not before for table, before in zip(tables, self._joint[0], strict=True)):
            self._joint = tables, self._joint_table()
        return self._joint[1]

    def _part_tables(self) -> tuple[Any, ...]:
        return tuple(part.table for _, part in self.terms)

    def _joint_table(self) -> Any:
        """Return the weighted sum of the parts' tables, or None where a part has none or they cannot be added."""
        if any(part.table is None for _, part in self.terms):
            return None
        try:
            first, *rest = (part.table * weight for weight, part in self.terms)
            for table in rest:
                first = first + table
        except TypeError:  # a maximum takes part: it is no sum of tables
            return None
        return (first + self.constant).named(self.name)

    def bounds(self) -> Bounds | None:
        """Return the least and greatest value over the space where every part has a table, else None."""
        return None if self.table is None else cast(Bounds, self.table.bounds())

    @classmethod
    def of(cls, *terms: tuple[float, Profiler | float]) -> Combination:
        """Return the sum of weighted profilers and numbers; sums in it are opened, equal profilers merged."""
        weights: dict[int, tuple[float, Profiler]] = {}
        constant = 0.0
        for weight, term in terms:
            if isinstance(term, Combination):
                inner, constant = term.terms, constant + weight * term.constant
            elif isinstance(term, Profiler):
                inner = ((1.0, term),)
            elif _is_number(term) and math.isfinite(term):
                inner, constant = (), constant + weight * float(term)
            else:
                raise TypeError(f"a profiler is added to a profiler or a finite number, got {term!r}")
            for factor, part in inner:
                weights[id(part)] = (weights.get(id(part), (0.0, part))[0] + weight * factor, part)
        return cls(list(weights.values()), constant)

    def named(self, name: str) -> Combination:
        """Return the same sum under a name of its own."""
        return Combination(self.terms, self.constant, name=name)

    def combine(self, values: Sequence[npt.ArrayLike]) -> Floats:
        """Return the sum from the values of its parts, in the order of `terms`."""
        total = np.asarray(self.constant, dtype=np.float64)
        for (weight, _), part in zip(self.terms, values, strict=True):
            total = total + weight * np.asarray(part, dtype=np.float64)
        return total

    def _profile(self, architecture: Architecture) -> float:
        return float(self.combine([part.profile(architecture) for _, part in self.terms]))

    def _profile_batch(self, candidates: Candidates) -> Floats:
        return self.combine([part.profile_batch(candidates) for _, part in self.terms])

    def _profile_model(self, model: nn.Module) -> float:
        return self.constant + sum(weight * part.profile_model(model) for weight, part in self.terms)

    def std(self, candidates: Candidates) -> Floats | None:
        """Return the standard deviation of the sum, its parts taken as independent; None where no part knows any."""
        parts = [(weight, part.std(candidates)) for weight, part in self.terms]
        if all(std is None for _, std in parts):
            return None
        variance = np.zeros(len(candidates))
        for weight, std in parts:
            if std is not None:
                variance += (weight * std) ** 2
        return np.sqrt(variance)

    @property
    def auditors(self) -> tuple[Profiler, ...]:
        """The auditors among the parts."""
        return tuple(auditor for _, part in self.terms for auditor in part.auditors)

    def audit(self, model: nn.Module, architecture: Architecture) -> float | None:
        """Have every part audit the network; return nothing, for not every part has a value of it."""
        for auditor in self.auditors:
            auditor.audit(model, architecture)
        return None

    def update(self, outcomes: Outcomes) -> None:
        """Hand the outcomes on to every part."""
        for _, part in self.terms:
            part.update(outcomes)
        self.version = sum(part.version for _, part in self.terms)


def _formula(terms: Sequence[tuple[float, Profiler]], constant: float) -> str:
    text = " + ".join(part.name if weight == 1.0 else f"{weight:g}*{part.name}" for weight, part in terms)
    return text if constant == 0.0 else f"{text} + {constant:g}"


class MultiProfiler(ABC):
    """Several named metrics from one pass, such as latency, ROM and RAM of one compilation.

    A subclass implements `_profile_all`; ``profiler["rom_bytes"]`` is then a `Profiler` of that metric, and however
    many of them are asked, each architecture is passed once.

    Args:
        space: The space whose architectures are profiled.
        units: The unit of each metric, by name.
        kind: As for `Profiler`.
        device: As for `Profiler`.
    """

    def __init__(
        self, space: Space, units: Mapping[str, str], *, kind: Kind = "measured", device: str | None = None
    ) -> None:
        self._values: dict[bytes, dict[str, float]] = {}
        self._parts = {name: _Part(self, name, unit, space, kind, device) for name, unit in units.items()}

    @abstractmethod
    def _profile_all(self, architecture: Architecture) -> Mapping[str, float]:
        """Return every metric of one architecture, by name."""

    def __getitem__(self, name: str) -> Profiler:
        if name not in self._parts:
            raise ProfilerError(f"{type(self).__name__} has no metric {name!r}; it has {', '.join(self._parts)}")
        return self._parts[name]

    def _value(self, space: Space, architecture: Architecture, name: str) -> float:
        key = space.encode(architecture).tobytes()
        if key not in self._values:
            values = dict(self._profile_all(architecture))
            if missing := self._parts.keys() - values.keys():
                raise ProfilerError(f"{type(self).__name__} promised {sorted(missing)} and gave {sorted(values)}")
            self._values[key] = values
        return self._values[key][name]


class _Part(Profiler):
    """One metric of a `MultiProfiler`."""

    def __init__(
        self, whole: MultiProfiler, name: str, unit: str, space: Space, kind: Kind, device: str | None
    ) -> None:
        super().__init__(name, unit, space=space, kind=kind, device=device)
        self._whole = whole

    def _profile(self, architecture: Architecture) -> float:
        return float(self._whole._value(self._space(), architecture, self.name))


def profile(subject: nn.Module | Architecture, profilers: Iterable[Profiler]) -> dict[str, float]:
    """Return what each profiler says of one network or one architecture, outside any search.

    Args:
        subject: A `torch.nn.Module`, or an architecture of the profilers' space as a mapping.
        profilers: The profilers, with distinct names.

    Returns:
        The values by the profilers' names.

    Raises:
        ProfilerError: If two profilers have one name.
        TypeError: If a profiler cannot profile such a subject.
    """
    chosen = [profilers] if isinstance(profilers, Profiler) else list(profilers)
    check_names(chosen)
    if isinstance(subject, Mapping):
        return {profiler.name: profiler.profile(subject) for profiler in chosen}
    from torch import nn

    if not isinstance(subject, nn.Module):
        raise TypeError(f"profile takes a torch.nn.Module or a mapping of choices, got {type(subject).__name__}")
    return {profiler.name: profiler.profile_model(subject) for profiler in chosen}


def check_names(profilers: Iterable[Profiler]) -> dict[str, Profiler]:
    """Return profilers by name; one profiler may occur several times.

    Raises:
        ProfilerError: If two different profilers have one name.
    """
    named: dict[str, Profiler] = {}
    for profiler in profilers:
        if not isinstance(profiler, Profiler):
            raise TypeError(f"expected a Profiler, got {profiler!r}")
        if named.setdefault(profiler.name, profiler) is not profiler:
            raise ProfilerError(
                f"two profilers are named {profiler.name!r}: {named[profiler.name]!r} and {profiler!r}; "
                f"give one of them another name=..."
            )
    return named
