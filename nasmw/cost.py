"""CostTable and MaxTable: a cost of an architecture as a sum, or a maximum, of small tables over a few choices each."""

from __future__ import annotations

import math
import numbers
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Codes, Floats
from nasmw.elimination import least
from nasmw.errors import ProfilerError, did_you_mean
from nasmw.profiler import Bounds
from nasmw.scopes import Reader, Scope, Table, check_bytes, close, merge
from nasmw.space import Space

if TYPE_CHECKING:
    import torch

__all__ = ["CostTable", "MaxTable", "TableBase"]

Terms = Iterable[tuple[Sequence[str], npt.ArrayLike]]
FORMAT = 1
EXACT = 2**53
MAX_BYTES = 512 * 2**20

Self = TypeVar("Self", bound="TableBase")


class TableBase(ABC):
    """What `CostTable` and `MaxTable` have in common: tables over the choices of a space, and how they are read.

    Attributes:
        space: The space whose architectures have the cost.
        name: How messages call the table.
        tables: The tables by their scope, a tuple of columns in ascending order. A scope contains the gates of its
            choices, and the entry of codes with inactive choices is that of the canonical codes. All are int64, or
            all are float64.
        constant: What is added to the value of every architecture.
    """

    kind: Literal["sum", "max"]
    _combine: np.ufunc

    def __init__(self, space: Space, terms: Terms, constant: float = 0.0, *, name: str = "cost") -> None:
        if not isinstance(space, Space):
            raise TypeError(f"{type(self).__name__} takes a Space first, got {type(space).__name__}")
        tables = [self._term(space, number, term) for number, term in enumerate(terms)]
        constant = _constant(constant)
        whole = isinstance(constant, int) or constant.is_integer()
        if whole and all(table.dtype == np.int64 for _, table in tables):
            constant = int(constant)
        self._set(space, merge(tables, self._combine), constant, name)
        if self.integer and self._reach() > EXACT:
            low, high = (self._least(sign)[0] + self.constant for sign in (1, -1))
            if max(abs(low), abs(high)) > EXACT:
                raise ProfilerError(
                    f"table {name!r} has integer values from {low:.6g} to {high:.6g}; beyond 2^53 "
                    "float64 is not exact: give float tables to accept rounding, or count in a greater unit"
                )

    def _set(self, space: Space, tables: Mapping[Scope, Table], constant: float, name: str) -> None:
        self.space = space
        self.name = name
        integer = isinstance(constant, int) and all(table.dtype == np.int64 for table in tables.values())
        dtype = np.int64 if integer else np.float64
        self.tables: dict[Scope, Table] = {scope: np.asarray(table, dtype) for scope, table in tables.items()}
        if self.kind == "sum" and () in self.tables:
            constant += self.tables.pop(()).item()
        self.constant: float = constant if integer else float(constant)
        for table in self.tables.values():
            table.flags.writeable = False

    @classmethod
    def _made(cls: type[Self], space: Space, tables: Mapping[Scope, Table], constant: float, name: str) -> Self:
        """Return a table of parts that are closed and merged; integers that float64 cannot hold become floats."""
        self = cls.__new__(cls)
        self._set(space, tables, constant, name)
        if self.integer and self._reach() > EXACT:
            self._set(space, tables, float(constant), name)
        return self

    @staticmethod
    def _term(space: Space, number: int, term: tuple[Sequence[str], npt.ArrayLike]) -> tuple[Scope, Table]:
        try:
            names, values = term
        except (TypeError, ValueError):
            raise TypeError(f"term {number} is a pair of choice names and an array, got {term!r}") from None
        if isinstance(names, str):
            raise TypeError(f"term {number} names its choices by a sequence of names, got the string {names!r}")
        columns = [space.column(name) for name in names]
        what = f"term {number} over {tuple(names)!r}"
        if len(set(columns)) < len(columns):
            raise ProfilerError(f"{what} names a choice twice")
        check_bytes(space, columns, MAX_BYTES)
        table = np.asarray(values)
        wanted = tuple(len(space.choices[column].options) for column in columns)
        if table.shape != wanted:
            raise ProfilerError(f"{what} needs an array of shape {wanted}, one axis per choice; got {table.shape}")
        if table.dtype.kind in "biu":
            if table.dtype == np.uint64 and table.size and int(table.max()) > np.iinfo(np.int64).max:
                raise ProfilerError(f"{what} holds {table.max()}, which is beyond int64; give floats")
            table = table.astype(np.int64)
        elif table.dtype.kind == "f":
            table = table.astype(np.float64)
            if not np.isfinite(table).all():
                at = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
                raise ProfilerError(f"{what} holds {table[at]} at codes {at}; entries must be finite")
        else:
            raise ProfilerError(f"{what} must hold numbers, got {table.dtype}")
        return close(space, columns, table, MAX_BYTES)

    @property
    def integer(self) -> bool:
        """Whether all entries are integers, so that every value is exact."""
        return isinstance(self.constant, int)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of options of each choice of the space."""
        return tuple(len(choice.options) for choice in self.space.choices)

    @cached_property
    def _last(self) -> npt.NDArray[np.unsignedinteger[Any]]:
        return np.array([size - 1 for size in self.sizes], dtype=self.space.dtype)

    @abstractmethod
    def _reach(self) -> float:
        """Return a number that no absolute value, and no sum on the way to it, exceeds."""

    def __repr__(self) -> str:
        entries = sum(table.size for table in self.tables.values())
        kind = "integers" if self.integer else "floats"
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self.tables)} tables, {entries} {kind} on {self.space.name!r}>"
        )

    # -- values -------------------------------------------------------------------------------------------------

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self.space, self.tables, self._combine)

    def evaluate(self, candidates: Candidates | Codes) -> Floats:
        """Return the values of candidates, or of ``(n, d)`` codes, canonical or not, as ``(n,)`` float64.

        Values of integer tables are exact.

        Raises:
            ProfilerError: If the candidates belong to another space.
            SpaceError: If the codes do not fit the space.
        """
        codes = self._codes(candidates)
        if not self.tables:
            return np.full(len(codes), float(self.constant))
        values = self._reader.batch(codes)
        values += values.dtype.type(self.constant)
        return values.astype(np.float64, copy=False)

    def _codes(self, candidates: Candidates | Codes) -> Codes:
        if not isinstance(candidates, Candidates):
            codes = np.asarray(candidates)
        else:
            space = candidates.space
            if space is not self.space and getattr(space, "fingerprint", None) != self.space.fingerprint:
                raise ProfilerError(f"{self!r} was given candidates of another space, {space!r}")
            codes = candidates.codes
        fits = codes.ndim == 2 and codes.shape[1] == len(self.space) and codes.dtype.kind == "u"
        if not fits or (len(codes) and (codes.max(axis=0) > self._last).any()):
            codes = self.space.check_codes(codes)
        return codes

    def value(self, architecture: Architecture) -> float:
        """Return the value of one architecture, without the overhead of arrays.

        Raises:
            SpaceError: If the architecture is not of the space.
        """
        parts = self._reader.one(architecture)
        return float(self._scalar(parts) + self.constant) if parts else float(self.constant)

    @abstractmethod
    def _scalar(self, parts: list[float]) -> float:
        """Combine the entries of one architecture."""

    # -- bounds -------------------------------------------------------------------------------------------------

    @cached_property
    def _bounds(self) -> Bounds:
        found = []
        for sign in (1, -1):
            value, codes = self._least(sign)
            row = self.space.canonical(np.array([codes], dtype=self.space.dtype))[0]
            found.append((float(value + self.constant), self.space.decode(row)))
        (low, lowest), (high, highest) = found
        return Bounds(low, high, lowest, highest)

    @abstractmethod
    def _least(self, sign: int) -> tuple[float, list[int]]:
        """Return the least value (sign 1) or the greatest (sign -1) without the constant, and codes that have it."""

    def bounds(self) -> Bounds:
        """Return the least and the greatest value over the space, exactly, each with an architecture that has it.

        Found by eliminating one choice after the other, not by enumeration.
        """
        return self._bounds

    # -- arithmetic ---------------------------------------------------------------------------------------------

    def named(self: Self, name: str) -> Self:
        """Return the same table under another name."""
        return type(self)._made(self.space, self.tables, self.constant, name)

    def _shifted(self: Self, number: float) -> Self:
        number = _constant(number)
        if self.integer and float(number).is_integer():
            number = int(number)
        return type(self)._made(self.space, self.tables, self.constant + number, self.name)

    def _scaled(self: Self, factor: float) -> Self:
        factor = _constant(factor)
        number = int(factor) if self.integer and float(factor).is_integer() else float(factor)
        if self.integer and abs(number) * self._reach() > EXACT:
            number = float(number)
        tables = {scope: table * number for scope, table in self.tables.items()}
        return type(self)._made(self.space, tables, self.constant * number, self.name)

    # -- files --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file in numpy's npz format, without pickled objects."""
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "kind": np.array(self.kind),
            "fingerprint": np.array(self.space.fingerprint),
            "name": np.array(self.name),
            "constant": np.array(self.constant),
        }
        for number, (scope, table) in enumerate(self.tables.items()):
            arrays[f"scope{number}"] = np.array(scope, dtype=np.int64)
            arrays[f"table{number}"] = table
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str], space: Space) -> Self:
        """Return the table that `save` wrote.

        Args:
            path: The file.
            space: The space that the table is about.

        Raises:
            ProfilerError: If the file is no such table, has a later format, or is about another space.
        """
        what = repr(os.fspath(path))
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if "format" not in file or "fingerprint" not in file:
                raise ProfilerError(f"{what} is no saved {cls.__name__}")
            if (version := int(file["format"])) > FORMAT:
                raise ProfilerError(f"{what} has format {version}, this version reads up to {FORMAT}; update nasmw")
            if (kind := str(file["kind"])) != cls.kind:
                raise ProfilerError(f"{what} holds a table of kind {kind!r}, not a {cls.__name__}")
            if (fingerprint := str(file["fingerprint"])) != space.fingerprint:
                raise ProfilerError(
                    f"{what} was saved for a space with fingerprint {fingerprint}; {space!r} has "
                    f"{space.fingerprint}: names, options or conditions of the choices differ"
                )
            count = sum(key.startswith("table") for key in file.files)
            tables = {tuple(file[f"scope{i}"].tolist()): file[f"table{i}"] for i in range(count)}
            return cls._made(space, tables, file["constant"].item(), str(file["name"]))


class CostTable(TableBase):
    """A cost as a constant plus a sum of small tables, each over the few choices that decide one layer.

    MACs, parameters and lookup-table latencies are of this form. A term is given over the choices that it depends on;
    choices under whose condition these matter are added to its scope, and entries for inactive choices repeat the
    entry of option 0. So values may be looked up for any codes, and an expectation under independent probabilities
    needs no knowledge of conditions. Tables whose scope lies in another one's are added into it.

    Args:
        space: The space whose architectures have the cost.
        terms: Pairs of choice names and an array with one axis per choice, in that order, as long as its options.
            Integers stay exact integers, as far as no value exceeds 2^53; any float makes all tables float64.
        constant: The cost that every architecture has.
        name: How messages call the table.

    Raises:
        SpaceError: If a choice is unknown.
        ProfilerError: If an array does not fit its choices, or an entry is not finite.

    Example:
        >>> from nasmw import Choice, Space
        >>> space = Space([Choice("depth", (1, 2)), Choice("width", (8, 16), when={"depth": (2,)})])
        >>> macs = CostTable(space, [(("depth", "width"), [[10, 10], [30, 50]])], constant=5, name="macs")
        >>> macs.value({"depth": 2, "width": 16}), macs.bounds().low_architecture
        (55.0, {'depth': 1})
    """

    kind = "sum"
    _combine = np.add

    def _reach(self) -> float:
        return abs(self.constant) + sum(_largest(table) for table in self.tables.values())

    def _scalar(self, parts: list[float]) -> float:
        total = parts[0]  # from left to right, as batches add; `sum` compensates rounding in some versions of Python
        for part in parts[1:]:
            total += part
        return total

    def _least(self, sign: int) -> tuple[float, list[int]]:
        value, codes = least([(scope, table * sign) for scope, table in self.tables.items()], self.sizes, np.add)
        return sign * value, codes

    def __add__(self, other: CostTable | float) -> CostTable:
        """Return the sum with another cost table of the same space, or with a number."""
        if isinstance(other, CostTable):
            if other.space.fingerprint != self.space.fingerprint:
                raise ProfilerError(f"cannot add tables of different spaces: {self!r} and {other!r}")
            tables = merge([*self.tables.items(), *other.tables.items()], np.add)
            return CostTable._made(self.space, tables, self.constant + other.constant, f"{self.name} + {other.name}")
        return self._shifted(other) if _is_number(other) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: CostTable | float) -> CostTable:
        return self + -other

    def __mul__(self, factor: float) -> CostTable:
        """Return the table with every value multiplied by a number; whole numbers keep integers."""
        return self._scaled(factor) if _is_number(factor) else NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> CostTable:
        return self._scaled(-1)

    # -- expectation --------------------------------------------------------------------------------------------

    def expectation(self, probabilities: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the exact expected cost where each choice is drawn independently; differentiable.

        A choice that turns out inactive counts for nothing, whatever was drawn for it.

        Args:
            probabilities: For each choice that the cost depends on, by name, a tensor of shape ``(options,)`` that
                sums to 1; others are ignored.

        Returns:
            A tensor without dimensions, of the probabilities' dtype and device.

        Raises:
            ProfilerError: If probabilities are missing, have another shape, or do not sum to 1.
        """
        import torch

        used = {column: self._probabilities(column, probabilities) for scope in self.tables for column in scope}
        if not used:
            return torch.tensor(float(self.constant))
        sums = torch.stack([p.detach().sum() for p in used.values()])
        if not bool(((sums - 1).abs() < 1e-3).all()):
            worst = int((sums - 1).abs().argmax())
            name = self.space.choices[list(used)[worst]].name
            raise ProfilerError(f"the probabilities of choice {name!r} sum to {float(sums[worst]):.6g}, not to 1")
        first = next(iter(used.values()))
        total = torch.as_tensor(float(self.constant), dtype=first.dtype, device=first.device)
        for scopes, part in self._tensors(first.dtype, first.device):
            for axis in reversed(range(part.ndim - 1)):
                weights = torch.stack([used[scope[axis]] for scope in scopes])
                part = (part.reshape(len(scopes), -1, weights.shape[1]) @ weights[:, :, None]).reshape(part.shape[:-1])
            total = total + part.sum()
        return total

    def _tensors(self, dtype: torch.dtype, device: torch.device) -> list[tuple[list[Scope], torch.Tensor]]:
        """Return tables of one shape as one tensor, ``(t, ...)``, with their scopes; kept from one call to the next."""
        import torch

        cache: dict[Any, list[tuple[list[Scope], torch.Tensor]]] = self.__dict__.setdefault("_on_device", {})
        if (dtype, device) not in cache:
            alike: dict[tuple[int, ...], list[Scope]] = {}
            for scope, table in self.tables.items():
                alike.setdefault(table.shape, []).append(scope)
            cache[dtype, device] = [
                (scopes, torch.tensor(np.stack([self.tables[scope] for scope in scopes]), dtype=dtype, device=device))
                for scopes in alike.values()
            ]
        return cache[dtype, device]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_on_device", "_reader")}

    def _probabilities(self, column: int, probabilities: Mapping[str, torch.Tensor]) -> torch.Tensor:
        choice = self.space.choices[column]
        if choice.name not in probabilities:
            raise ProfilerError(
                f"table {self.name!r} depends on choice {choice.name!r}, which has no probabilities"
                + did_you_mean(choice.name, probabilities)
            )
        given = probabilities[choice.name]
        if tuple(given.shape) != (len(choice.options),):
            raise ProfilerError(
                f"the probabilities of choice {choice.name!r} need the shape ({len(choice.options)},), "
                f"got {tuple(given.shape)}"
            )
        return given


class MaxTable(TableBase):
    """A cost as the maximum of small tables, plus a constant: peak memory is the greatest need of one layer.

    It is evaluated, bounded and limited like a `CostTable`; it has no expectation and cannot be added to another one.
    A layer that does not exist must need no more than others do, such as 0.

    Args:
        space: As for `CostTable`.
        terms: As for `CostTable`; at least one.
        constant: What is added to the maximum.
        name: How messages call the table.

    Raises:
        SpaceError: If a choice is unknown.
        ProfilerError: If there is no term, an array does not fit its choices, or an entry is not finite.
    """

    kind = "max"
    _combine = np.maximum

    def __init__(self, space: Space, terms: Terms, constant: float = 0.0, *, name: str = "peak") -> None:
        super().__init__(space, terms, constant, name=name)
        if not self.tables:
            raise ProfilerError(f"a maximum needs at least one table, {name!r} has none")

    def _reach(self) -> float:
        return abs(self.constant) + max((_largest(table) for table in self.tables.values()), default=0)

    def _scalar(self, parts: list[float]) -> float:
        return max(parts)

    def _least(self, sign: int) -> tuple[float, list[int]]:
        if sign > 0:
            return least(list(self.tables.items()), self.sizes, np.maximum)
        scope, table = max(self.tables.items(), key=lambda item: item[1].max())
        codes = [0] * len(self.space)
        for column, code in zip(scope, np.unravel_index(int(table.argmax()), table.shape), strict=True):
            codes[column] = int(code)
        return table.max().item(), codes

    def __add__(self, number: float) -> MaxTable:
        """Return the table with a number added to every value."""
        return self._shifted(number) if _is_number(number) else NotImplemented

    __radd__ = __add__

    def __mul__(self, factor: float) -> MaxTable:
        """Return the table with every value multiplied by a number of at least 0."""
        if not _is_number(factor) or factor < 0:
            return NotImplemented
        return self._scaled(factor)

    __rmul__ = __mul__


def _largest(table: Table) -> float:
    """Return the greatest absolute entry, as a Python number that cannot overflow."""
    largest: float = max(abs(table.max().item()), abs(table.min().item()))
    return largest


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _constant(value: float) -> float:
    if not _is_number(value):
        raise TypeError(f"the constant or factor of a table is a number, got {value!r}")
    if not math.isfinite(value):
        raise ProfilerError(f"the constant or factor of a table must be finite, got {value}")
    return int(value) if isinstance(value, (int, np.integer)) else float(value)
