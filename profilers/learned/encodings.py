"""Encodings: architectures as rows of numbers, by name, composable, prepared once for each space."""

from __future__ import annotations

import hashlib
import json
import math
import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Codes, Floats
from nasmw.errors import ProfilerError, SpaceError
from nasmw.space import Space

__all__ = ["Encoding", "Features", "Group", "Interaction", "Joined", "OneHot", "Slots", "Term", "conditioned"]

Term = tuple[tuple[str, ...], Floats]
"""Names of choices and an array with one axis for each, as a `CostTable` takes them."""

WORD = re.compile(r"[A-Za-z_][\w.\-]*")
"""What texts of encodings take as a name without quotes."""

_PLANS: weakref.WeakKeyDictionary[Space, dict[str, Any]] = weakref.WeakKeyDictionary()


def kept(space: Space, key: str, make: Callable[[], Any]) -> Any:
    """Return what `make` gave for a space, made once; it must hold no reference to the space itself."""
    plans = _PLANS.setdefault(space, {})
    if key not in plans:
        plans[key] = make()
    return plans[key]


@attrs.frozen
class Group:
    """Columns of features that belong together: those of one encoding in a sum.

    Attributes:
        name: The encoding's text.
        start: The first column.
        stop: The column after the last one.
    """

    name: str
    start: int
    stop: int

    @property
    def columns(self) -> slice:
        """The columns as a slice."""
        return slice(self.start, self.stop)


@attrs.frozen(eq=False)
class Features:
    """What a predictor is given of candidates.

    Attributes:
        values: ``(n, p)`` float64.
        groups: Which columns belong together; they cover all ``p`` columns in order.
    """

    values: Floats
    groups: tuple[Group, ...]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Features:
        """Select rows by a boolean mask, an index array or a slice."""
        return Features(self.values[index], self.groups)


class Encoding(ABC):
    """Gives a row of ``p`` numbers for each candidate; a value that says nothing of any one space.

    A subclass implements `_prepare` (what depends on the space alone; kept for as long as the space lives) and
    `_encode`. Its `str` is its whole configuration: equal texts mean equal encodings. Encodings are joined by ``+``
    (or ``&``); each part is one `Group` of columns.

    Where each number depends on a few choices only, `terms` says so: a linear predictor is then an exact `CostTable`.

    Attributes:
        metric: Whether distances between rows mean something as they are, so that whoever scales the columns keeps
            their sizes beside each other.
    """

    metric: ClassVar[bool] = False

    @abstractmethod
    def __str__(self) -> str:
        """Return the text that `encoding` reads back."""

    @abstractmethod
    def _prepare(self, space: Space) -> Any:
        """Return what `_encode` needs of a space; it holds no reference to the space itself.

        Raises:
            ProfilerError: If the space lacks what the encoding encodes.
        """

    @abstractmethod
    def _encode(self, plan: Any, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        """Return ``(n, p)`` float64; `active` is ``(n, d)``, which choices matter in each row."""

    @abstractmethod
    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the ``p`` columns."""

    def terms(self, space: Space, weights: Floats) -> list[Term] | None:
        """Return the weighted sum of the columns as terms of a `CostTable`; None where it is no sum of small tables.

        Args:
            space: The space.
            weights: ``(p,)``.
        """
        return None

    def __repr__(self) -> str:
        return f"<encoding {self}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __add__(self, other: Encoding) -> Joined:
        if not isinstance(other, Encoding):
            return NotImplemented
        return Joined((*self.parts, *other.parts))

    __and__ = __add__

    @property
    def parts(self) -> tuple[Encoding, ...]:
        """The encodings that are joined; itself alone by default."""
        return (self,)

    def plan(self, space: Space) -> Any:
        """Return what `_prepare` gave for a space, prepared once."""
        return kept(space, str(self), lambda: self._prepare(space))

    def width(self, space: Space) -> int:
        """Return the number of columns, ``p``."""
        width: int = kept(space, f"width of {self}", lambda: len(self.names(space)))
        return width

    def groups(self, space: Space) -> tuple[Group, ...]:
        """Return which columns belong together."""
        return (Group(str(self), 0, self.width(space)),)

    def encode(self, candidates: Candidates) -> Features:
        """Return the features of candidates."""
        space = space_of(candidates)
        values = self._encode(self.plan(space), candidates, space.active(candidates.codes))
        return Features(np.ascontiguousarray(values, dtype=np.float64), self.groups(space))

    def fingerprint(self, space: Space) -> str:
        """Return a hash of what the columns mean for some fixed architectures of a space.

        Spaces whose choices agree may still differ in what their networks cost; encodings of costs tell them apart.
        """
        sample = space.sample(16, np.random.default_rng(0))
        rounded = [f"{value:.9e}" for value in self.encode(sample).values.ravel().tolist()]
        return _hash(*self.names(space), *rounded)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def numeric_options(options: Sequence[Any]) -> bool:
    """Return whether all options are positive numbers, of which powers can be taken."""
    return all(
        isinstance(option, (int, float)) and not isinstance(option, bool) and 0 < option < np.inf for option in options
    )


def space_of(candidates: Candidates) -> Space:
    """Return the space of candidates.

    Raises:
        TypeError: If they have none.
    """
    if not isinstance(candidates, Candidates) or not isinstance(candidates.space, Space):
        raise TypeError(f"an encoding takes Candidates of a Space, got {candidates!r}")
    return candidates.space


def gated(space: Space, columns: Sequence[int]) -> list[int]:
    """Return columns and all that decide on whether they are active."""
    scope = list(columns)
    for column in scope:  # grows as gates of gates are met
        scope.extend(gate for gate in space.gates[column] if gate not in scope)
    return scope


def conditioned(space: Space, columns: Sequence[int], values: Floats, on: Sequence[int] | None = None) -> Term:
    """Return a term that is 0 wherever one of some choices is inactive.

    Args:
        space: The space.
        columns: The choices that the term depends on, by column.
        values: One axis for each of them.
        on: The choices among them that have to be active; all of them by default.
    """
    wanted = gated(space, columns if on is None else on)
    scope = [*columns, *(column for column in wanted if column not in columns)]
    sizes = [len(space.choices[column].options) for column in scope]
    table = np.broadcast_to(values.reshape([*values.shape, *[1] * (len(scope) - len(columns))]), sizes).copy()
    for column in wanted:
        for gate, allowed in space.gates[column].items():
            axis = scope.index(gate)
            holds = np.isin(np.arange(sizes[axis]), list(allowed))
            table *= holds.reshape([-1 if place == axis else 1 for place in range(len(scope))])
    return tuple(space.choices[column].name for column in scope), table


@attrs.frozen
class _Slot:
    """Choices that are encoded together, and where their columns begin."""

    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    start: int

    @property
    def width(self) -> int:
        return int(np.prod(self.sizes))


@attrs.frozen(eq=False)
class _SlotPlan:
    """All slots of a space, and the same in arrays that number the columns of all of them at once.

    Attributes:
        slots: The slots, which hold each choice once.
        order: The choices, slot by slot.
        factors: How many columns apart two neighbouring options of each of these choices are.
        begins: Where each slot begins among these choices.
        starts: The first column of each slot.
        first: The first choice of each slot, by which it is active.
    """

    slots: tuple[_Slot, ...]
    order: npt.NDArray[np.intp]
    factors: npt.NDArray[np.intp]
    begins: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    first: npt.NDArray[np.intp]

    @classmethod
    def of(cls, slots: Sequence[_Slot]) -> _SlotPlan:
        factors = [math.prod(slot.sizes[place + 1 :]) for slot in slots for place in range(len(slot.sizes))]
        begins = np.cumsum([0, *(len(slot.columns) for slot in slots[:-1])])
        order = np.array([column for slot in slots for column in slot.columns], dtype=np.intp)
        starts = np.array([slot.start for slot in slots], dtype=np.intp)
        return cls(tuple(slots), order, np.array(factors, dtype=np.intp), begins, starts, order[begins])

    @property
    def width(self) -> int:
        return self.slots[-1].start + self.slots[-1].width

    def numbers(self, codes: Codes) -> npt.NDArray[np.intp]:
        """Return ``(n, slots)``, which column of each slot is 1 where the slot is active."""
        summed: npt.NDArray[np.intp] = np.add.reduceat(codes[:, self.order] * self.factors, self.begins, axis=1)
        return summed + self.starts


class Slots(Encoding):
    """One-hot over whole slots: the choices under one prefix and one condition are one joint choice; 0 where inactive.

    In a space of blocks with a kernel and an expansion each, a slot is a block and has a column for each (kernel,
    expansion). What costs one layer depends on all of its choices, so a linear predictor needs them together.

    Example:
        >>> from nasmw.testing import toy_space
        >>> Slots().names(toy_space())[9:12]
        ('block0.kernel=1 block0.expand=1', 'block0.kernel=1 block0.expand=2', 'block0.kernel=3 block0.expand=1')
    """

    text: ClassVar[str] = "slots"
    most: ClassVar[int] = 4096
    """Slots of more combinations than this are left apart, a choice for itself."""

    def __str__(self) -> str:
        return self.text

    def _grouped(self, space: Space) -> list[list[int]]:
        found: dict[tuple[Any, ...], list[int]] = {}
        for column, choice in enumerate(space.choices):
            prefix, dot, _ = choice.name.rpartition(".")
            condition = tuple(sorted((gate, tuple(sorted(codes))) for gate, codes in space.gates[column].items()))
            found.setdefault((prefix, condition) if dot else (column,), []).append(column)
        slots: list[list[int]] = []
        for columns in found.values():
            joint = int(np.prod([len(space.choices[column].options) for column in columns]))
            slots += [columns] if joint <= self.most else [[column] for column in columns]
        return slots

    def _prepare(self, space: Space) -> _SlotPlan:
        slots, start = [], 0
        for columns in self._grouped(space):
            slot = _Slot(tuple(columns), tuple(len(space.choices[column].options) for column in columns), start)
            slots.append(slot)
            start += slot.width
        return _SlotPlan.of(slots)

    def _encode(self, plan: _SlotPlan, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        features = np.zeros((len(candidates), plan.width))
        rows = np.arange(len(candidates))[:, None]
        features[rows, plan.numbers(candidates.codes)] = active[:, plan.first]
        return features

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        found = []
        for slot in self.plan(space).slots:
            choices = [space.choices[column] for column in slot.columns]
            for codes in np.ndindex(slot.sizes):
                pairs = zip(choices, codes, strict=True)
                found.append(" ".join(f"{choice.name}={choice.options[code]}" for choice, code in pairs))
        return tuple(found)

    def terms(self, space: Space, weights: Floats) -> list[Term]:
        """Return one term for each slot."""
        return [
            conditioned(space, slot.columns, weights[slot.start : slot.start + slot.width].reshape(slot.sizes))
            for slot in self.plan(space).slots
        ]


class OneHot(Slots):
    """One-hot: a column for each option of each choice; all columns of an inactive choice are 0.

    Example:
        >>> from nasmw.testing import toy_space
        >>> space = toy_space()
        >>> short = space.candidates([{"width": 8, "depth": 1, "block0.op": "pool"}])
        >>> int(OneHot().encode(short).values.sum())
        3
    """

    text = "one_hot"

    def _grouped(self, space: Space) -> list[list[int]]:
        return [[column] for column in range(len(space))]


class Interaction(Encoding):
    """Every column of an encoding times a power of a numeric choice, which is divided by its greatest option.

    A layer's work grows with the square of the resolution, so ``Interaction(Slots(), "resolution", 2)`` has a column
    for it; `Slots` beside it has what does not grow.

    Args:
        encoding: What is multiplied.
        choice: The name of a choice with positive numbers as options, which every architecture has.
        power: Any finite number but 0.

    Raises:
        ProfilerError: If the power is none.
    """

    def __init__(self, encoding: Encoding, choice: str, power: float = 1.0) -> None:
        if not isinstance(encoding, Encoding):
            raise TypeError(f"an interaction multiplies an Encoding, got {encoding!r}")
        if isinstance(power, bool) or not isinstance(power, (int, float)) or not np.isfinite(power) or power == 0:
            raise ProfilerError(f"the power of an interaction is a finite number but 0, got {power!r}")
        self.encoding = encoding
        self.choice = choice
        self.power = float(power)

    def __str__(self) -> str:
        inner = f"({self.encoding})" if len(self.encoding.parts) > 1 else str(self.encoding)
        return f"{inner} * {self._factor}"

    @property
    def _factor(self) -> str:
        """The choice and its power, as texts of encodings have them."""
        choice = self.choice if WORD.fullmatch(self.choice) else json.dumps(self.choice)
        power = repr(self.power).removesuffix(".0")
        return choice if self.power == 1.0 else f"{choice}^{power}"

    def plan(self, space: Space) -> tuple[Any, int, Floats]:
        """Return what is prepared for a space; that of what is multiplied is kept by itself."""
        column, factors = super().plan(space)
        return self.encoding.plan(space), column, factors

    def width(self, space: Space) -> int:
        """Return the number of columns."""
        return self.encoding.width(space)

    def fingerprint(self, space: Space) -> str:
        """Return a hash of what is multiplied by what."""
        return _hash(self.encoding.fingerprint(space), str(self), repr(self.plan(space)[2].tolist()))

    def _prepare(self, space: Space) -> tuple[int, Floats]:
        try:
            column = space.column(self.choice)
        except SpaceError as error:
            raise ProfilerError(f"the encoding {str(self)!r} cannot be made: {error}") from None
        options = space.choices[column].options
        if space.gates[column] or not numeric_options(options):
            raise ProfilerError(
                f"the encoding {str(self)!r} needs a choice with positive numbers as options that every architecture "
                f"has; {self.choice!r} has {options!r}" + (" and a condition" if space.gates[column] else "")
            )
        factors = (np.array(options, dtype=np.float64) / max(options)) ** self.power
        return column, factors

    def _encode(self, plan: Any, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        inner, column, factors = plan
        values = self.encoding._encode(inner, candidates, active)
        return np.asarray(values * factors[candidates.codes[:, column]][:, None])

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(f"{name} * {self._factor}" for name in self.encoding.names(space))

    def terms(self, space: Space, weights: Floats) -> list[Term] | None:
        """Return the terms of what is multiplied, each with the choice added to its scope."""
        _, _, factors = self.plan(space)
        inner = self.encoding.terms(space, weights)
        if inner is None:
            return None
        found: list[Term] = []
        for names, table in inner:
            if self.choice in names:
                shape = [-1 if name == self.choice else 1 for name in names]
                found.append((names, table * factors.reshape(shape)))
            else:
                found.append(((*names, self.choice), np.multiply.outer(table, factors)))
        return found


class Joined(Encoding):
    """Encodings side by side, as ``OneHot() + Costs()`` gives."""

    def __init__(self, parts: Sequence[Encoding]) -> None:
        self._parts = tuple(parts)
        texts = [str(part) for part in self._parts]
        if len(set(texts)) < len(texts):
            raise ProfilerError(f"an encoding is joined with itself: {' + '.join(texts)}")

    @property
    def parts(self) -> tuple[Encoding, ...]:
        """The encodings that are joined."""
        return self._parts

    def __str__(self) -> str:
        return " + ".join(str(part) for part in self._parts)

    def plan(self, space: Space) -> list[Any]:
        """Return what the parts have prepared."""
        return [part.plan(space) for part in self._parts]

    def _prepare(self, space: Space) -> list[Any]:
        return self.plan(space)

    def width(self, space: Space) -> int:
        """Return the number of columns."""
        return sum(part.width(space) for part in self._parts)

    def fingerprint(self, space: Space) -> str:
        """Return a hash of those of the parts."""
        return _hash(*(part.fingerprint(space) for part in self._parts))

    def _encode(self, plan: list[Any], candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        values = [part._encode(own, candidates, active) for part, own in zip(self._parts, plan, strict=True)]
        return np.concatenate(values, axis=1)

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(name for part in self._parts for name in part.names(space))

    def groups(self, space: Space) -> tuple[Group, ...]:
        """Return the groups of the parts, one after another: one for each part, but for those that have several."""
        found: list[Group] = []
        for part in self._parts:
            start = found[-1].stop if found else 0
            found += [Group(group.name, start + group.start, start + group.stop) for group in part.groups(space)]
        return tuple(found)

    def terms(self, space: Space, weights: Floats) -> list[Term] | None:
        """Return the terms of all parts; None where one has none."""
        found: list[Term] = []
        start = 0
        for part in self._parts:
            stop = start + part.width(space)
            own = part.terms(space, weights[start:stop])
            if own is None:
                return None
            found += own
            start = stop
        return found
