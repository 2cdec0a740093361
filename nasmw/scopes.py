"""Tables over the columns of a space: closed under gates, merged where nested, and read fast.

A table over some columns is an array with one axis per column. It is *closed* where its scope contains the gates of
its columns and the entry of any codes is that of the canonical codes, in which inactive choices are 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Codes
from nasmw.errors import ProfilerError
from nasmw.space import Space

__all__ = ["Reader", "Scope", "Table", "check_bytes", "close", "merge"]

Scope = tuple[int, ...]
Table = npt.NDArray[Any]

JOINT_ENTRIES = 8192  # of float64: what a core's first-level cache nearly holds
CHUNK = 8192
FEW = 128
LISTED_ENTRIES = 2**16
MISSING = object()


def close(space: Space, columns: Sequence[int], table: Table, limit_bytes: int) -> tuple[Scope, Table]:
    """Return a table over ascending columns that contain their gates, with the entries of canonical codes throughout.

    Args:
        space: The space whose columns these are.
        columns: The columns of the axes, in any order, without gates perhaps.
        table: The entries.
        limit_bytes: How much the result may need.

    Raises:
        ProfilerError: If it would need more.
    """
    scope = tuple(sorted(with_gates(space, columns)))
    shape = tuple(len(space.choices[column].options) for column in scope)
    check_bytes(space, scope, limit_bytes)
    full = np.broadcast_to(_expanded(columns, table, scope), shape)
    codes = dict(zip(scope, np.ix_(*(np.arange(n) for n in shape)), strict=True))
    active: dict[int, Any] = {}
    for column in scope:
        active[column] = np.True_
        for gate, allowed in space.gates[column].items():
            active[column] = active[column] & active[gate] & np.isin(codes[gate], list(allowed))
    if not all(mask is np.True_ for mask in active.values()):
        full = full[tuple(np.where(active[column], codes[column], 0) for column in scope)]
    return _without_idle(space, scope, full)


def _without_idle(space: Space, scope: Scope, table: Table) -> tuple[Scope, Table]:
    """Return the table without the columns that change no entry and gate no other column of it."""
    for column in reversed(scope):
        axis = scope.index(column)
        first = table.take([0], axis=axis)
        if not any(column in space.gates[other] for other in scope) and (table == first).all():
            scope, table = scope[:axis] + scope[axis + 1 :], first.squeeze(axis)
    return scope, np.array(table)


def check_bytes(space: Space, columns: Sequence[int], limit_bytes: int) -> None:
    """Check that a table over some columns is not too large.

    Raises:
        ProfilerError: If it is.
    """
    size = 8 * math.prod(len(space.choices[column].options) for column in columns)
    if size > limit_bytes:
        names = [space.choices[column].name for column in columns]
        raise ProfilerError(
            f"a table over {names} needs {size / 2**20:.0f} MiB, more than {limit_bytes / 2**20:.0f}; "
            "split it into a sum of smaller ones"
        )


def with_gates(space: Space, columns: Iterable[int]) -> set[int]:
    """Return columns with those that they depend on."""
    found: set[int] = set()
    pending = list(columns)
    while pending:
        column = pending.pop()
        if column not in found:
            found.add(column)
            pending.extend(space.gates[column])
    return found


def _expanded(columns: Sequence[int], table: Table, scope: Scope) -> Table:
    """Return the table with its axes in the order of a greater scope, and axes of length 1 for what it lacks."""
    order = sorted(range(len(columns)), key=lambda axis: columns[axis])
    sorted_columns = [columns[axis] for axis in order]
    table = table.transpose(order)
    shape = iter(table.shape)
    return table.reshape([next(shape) if column in sorted_columns else 1 for column in scope])


def merge(tables: Iterable[tuple[Scope, Table]], combine: np.ufunc) -> dict[Scope, Table]:
    """Return tables of which none has a scope that lies in another one's; integers stay so if all are integers."""
    merged: dict[Scope, Table] = {}
    for scope, table in tables:
        merged[scope] = combine(merged[scope], table) if scope in merged else table
    by_column: dict[int, set[Scope]] = {}
    for scope in merged:
        for column in scope:
            by_column.setdefault(column, set()).add(scope)
    for scope in sorted(merged, key=len):
        if scope:
            wider = set.intersection(*(by_column[column] for column in scope)) - {scope}
        else:
            wider = merged.keys() - {scope}
        if not wider:
            continue
        target = min(wider, key=lambda other: (merged[other].size, other))
        merged[target] = combine(merged[target], _expanded(scope, merged[scope], target))
        del merged[scope]
        for column in scope:
            by_column[column].remove(scope)
    return merged


class _Group(NamedTuple):
    """Choices under one condition: the gates with what they allow, the names, those of gates, what options add."""

    condition: list[tuple[str, frozenset[Any]]]
    names: list[str]
    guards: list[str]
    adds: list[tuple[str, int, dict[Any, int]]]


class Reader:
    """Reads tables for many rows of codes, or for one architecture.

    Neighbouring tables are joined first as long as the joint one stays small: that is most of the speed.

    Args:
        space: The space whose architectures are read.
        tables: Closed tables.
        combine: `numpy.add` or `numpy.maximum`.
    """

    def __init__(self, space: Space, tables: Mapping[Scope, Table], combine: np.ufunc) -> None:
        self._space = space
        self._combine = combine
        self._tables = _joined(tables, combine)
        self._needed = sorted({column for scope, _ in self._tables for column in scope})
        rows = {column: row for row, column in enumerate(self._needed)}
        greatest = max((table.size for _, table in self._tables), default=1)
        self._dtype: Any = np.uint16 if greatest <= 2**16 else np.intp
        self._steps = [
            ([(rows[column], n) for column, n in zip(scope, table.shape, strict=True)], table.ravel())
            for scope, table in self._tables
        ]
        sizes = [flat.size for _, flat in self._steps]
        self._strides = np.zeros((len(self._needed), len(sizes)), dtype=np.intp)
        for number, (axes, _) in enumerate(self._steps):
            stride = 1
            for row, n_options in reversed(axes):
                self._strides[row, number] = stride
                stride *= n_options
        self._offsets = np.cumsum([0, *sizes[:-1]])
        self._flat = np.concatenate([flat for _, flat in self._steps]) if sizes else np.zeros(0)
        self._lists: list[Any] = [flat.tolist() if flat.size <= LISTED_ENTRIES else flat for _, flat in self._steps]
        self._groups = self._plan()

    def batch(self, codes: Codes) -> Table:
        """Return the combined entries of each row, ``(n,)``, in the tables' dtype; there must be a table."""
        n = len(codes)
        if n <= FEW:
            return self._few(codes)
        first = self._steps[0][1]
        result = np.empty(n, dtype=first.dtype)
        size = min(n, CHUNK)
        block = np.empty((len(self._needed), size), dtype=self._dtype)
        index = np.empty(size, dtype=self._dtype)
        wide = np.empty(size, dtype=np.intp)
        part = np.empty(size, dtype=first.dtype)
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)
            m = stop - start
            chunk = codes[start:stop]
            for row, column in enumerate(self._needed):
                block[row, :m] = chunk[:, column]
            total = result[start:stop]
            for number, (axes, flat) in enumerate(self._steps):
                at = index[:m]
                at[:] = 0 if not axes else block[axes[0][0], :m]
                for row, n_options in axes[1:]:
                    at *= n_options
                    at += block[row, :m]
                wide[:m] = at
                # mode="clip" spares numpy a copy; no index is out of range.
                if number == 0:
                    np.take(flat, wide[:m], out=total, mode="clip")
                else:
                    np.take(flat, wide[:m], out=part[:m], mode="clip")
                    self._combine(total, part[:m], out=total)
        return result

    def _few(self, codes: Codes) -> Table:
        """Return what `batch` does, to the last bit, with fewer calls and more work for each row."""
        parts = self._flat.take((codes[:, self._needed].astype(np.intp) @ self._strides + self._offsets).T)
        total: Table = parts[0]
        for part in parts[1:]:
            self._combine(total, part, out=total)
        return total

    def _plan(self) -> list[_Group]:
        """Return the choices in groups of one condition: the condition, and what each option adds to which index."""
        adds: list[list[tuple[int, dict[Any, int]]]] = [[] for _ in self._space.choices]
        for number, (scope, table) in enumerate(self._tables):
            strides = [math.prod(table.shape[axis + 1 :]) for axis in range(len(scope))]
            for column, stride in zip(scope, strides, strict=True):
                options = self._space.choices[column].options
                adds[column].append((number, {option: code * stride for code, option in enumerate(options)}))
        guards = {gate for gates in self._space.gates for gate in gates}
        groups: dict[Any, _Group] = {}
        for column, choice in enumerate(self._space.choices):
            gates = self._space.gates[column]
            key = tuple((gate, tuple(sorted(allowed))) for gate, allowed in gates.items())
            if key not in groups:
                condition = []
                for gate, allowed in gates.items():
                    options = self._space.choices[gate].options
                    condition.append((self._space.choices[gate].name, frozenset(options[code] for code in allowed)))
                groups[key] = _Group(condition, [], [], [])
            group = groups[key]
            group.names.append(choice.name)
            if column in guards:
                group.guards.append(choice.name)
            spare = len(self._tables)  # a choice that no table is about is checked all the same
            own = adds[column] or [(spare, dict.fromkeys(choice.options, 0))]
            group.adds.extend((choice.name, number, offsets) for number, offsets in own)
        return list(groups.values())

    def one(self, architecture: Architecture) -> list[Any]:
        """Return the entry of each table for one architecture, as Python numbers.

        Raises:
            SpaceError: If the architecture is not of the space.
        """
        index = [0] * (len(self._tables) + 1)
        active: dict[str, Any] = {}
        count = 0
        try:
            for condition, names, guards, adds in self._groups:
                for gate, allowed in condition:
                    if active.get(gate, MISSING) not in allowed:
                        break
                else:
                    count += len(names)
                    for name in guards:
                        active[name] = architecture[name]
                    for name, number, offsets in adds:
                        index[number] += offsets[architecture[name]]
        except (KeyError, TypeError):
            self._space.encode(architecture)  # raises, and says what is wrong
            raise
        if count != len(architecture):
            self._space.encode(architecture)  # raises for an unknown name; inactive choices may be given
        return [values[at] for values, at in zip(self._lists, index, strict=False)]


def _joined(tables: Mapping[Scope, Table], combine: np.ufunc) -> list[tuple[Scope, Table]]:
    joined: list[tuple[Scope, Table]] = []
    for scope, table in sorted(tables.items()):
        if joined:
            last, before = joined[-1]
            union = tuple(sorted({*last, *scope}))
            sizes = {**dict(zip(last, before.shape, strict=True)), **dict(zip(scope, table.shape, strict=True))}
            if math.prod(sizes[column] for column in union) <= JOINT_ENTRIES:
                joined[-1] = (union, combine(_expanded(last, before, union), _expanded(scope, table, union)))
                continue
        joined.append((scope, table))
    return joined
