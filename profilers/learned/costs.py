"""Encodings of what networks consist of and cost: counts of operators, and MACs and parameters part by part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Floats
from nasmw.cost import CostTable
from nasmw.errors import ProfilerError
from nasmw.profilers.learned.encodings import Encoding, Term, conditioned
from nasmw.space import Space

__all__ = ["Costs", "Counts", "families"]

FLOOR = 1e-3  # what is added before a logarithm is taken, as a share of a column's greatest value


def families(space: Space) -> list[str]:
    """Return the kind of each choice, such as ``"kernel"`` for ``"stage1.block2.kernel"``.

    Choices are of one kind where the last parts of their names agree but for numbers, and their options agree.
    """
    found: dict[tuple[str, str], str] = {}
    taken: dict[str, int] = {}
    names = []
    for choice in space.choices:
        word = re.sub(r"[_\-]?\d+", "", choice.name.rpartition(".")[2]) or "choice"
        key = word, repr(choice.options)
        if key not in found:
            taken[word] = taken.get(word, 0) + 1
            found[key] = word if taken[word] == 1 else f"{word}#{taken[word]}"
        names.append(found[key])
    return names


@attrs.frozen(eq=False)
class _Kinds:
    """Where the columns of each choice begin: choices of one kind share them."""

    names: tuple[str, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, space: Space, columns: Sequence[int], prefix: str, start: int) -> _Kinds:
        kinds = families(space)
        begins: dict[str, int] = {}
        names: list[str] = []
        for column in columns:
            if kinds[column] not in begins:
                begins[kinds[column]] = start + len(names)
                names += [f"{prefix}{kinds[column]}={option}" for option in space.choices[column].options]
        return cls(tuple(names), tuple(begins[kinds[column]] for column in columns))


class Counts(Encoding):
    """How many active choices of a kind have each option: how many blocks have a 5x5 kernel, say.

    Example:
        >>> from nasmw.testing import toy_space
        >>> space = toy_space()
        >>> batch = space.candidates([{"width": 8, "depth": 2, "block0.op": "pool", "block1.op": "pool"}])
        >>> dict(zip(Counts().names(space), Counts().encode(batch).values[0].tolist()))["number of op=pool"]
        2.0
    """

    def __str__(self) -> str:
        return "counts"

    def _prepare(self, space: Space) -> _Kinds:
        return _Kinds.of(space, range(len(space)), "number of ", 0)

    def _encode(self, plan: _Kinds, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        features = np.zeros((len(candidates), len(plan.names)))
        rows = np.arange(len(candidates))
        for column, start in enumerate(plan.starts):
            features[rows, start + candidates.codes[:, column].astype(np.intp)] += active[:, column]
        return features

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        plan: _Kinds = self.plan(space)
        return plan.names

    def terms(self, space: Space, weights: Floats) -> list[Term]:
        """Return one term for each choice."""
        plan: _Kinds = self.plan(space)
        return [
            conditioned(space, [column], weights[start : start + len(space.choices[column].options)])
            for column, start in enumerate(plan.starts)
        ]


@attrs.frozen(eq=False)
class _Part:
    """The cost of one part of the networks, and which columns of features it counts for.

    Attributes:
        scope: The choices it depends on, by column.
        table: One axis for each of them.
        whole: Columns of features that the whole part counts for.
        own: Choices of the part's own, each with its first column of features: its option says which one.
    """

    scope: tuple[int, ...]
    table: Floats
    whole: tuple[int, ...]
    own: tuple[tuple[int, int], ...]


@attrs.frozen(eq=False)
class _CostPlan:
    parts: tuple[_Part, ...]
    names: tuple[str, ...]
    scale: Floats


class Costs(Encoding):
    """What the networks cost: in total, stage by stage, and by the options of the layers (all 5x5 kernels together).

    Costs come from the tables that the space has in closed form (MACs and parameters, in ready spaces), or from given
    ones, such as ``FlopsProfiler(space).table``. Each column is divided by the most that it can be.

    Args:
        log: ``"log"`` takes logarithms (of a value plus a thousandth of the most it can be); a linear predictor is
            no sum of tables then.
        tables: Tables by metric in the place of those of the space. Files do not hold them: hand the same encoding to
            ``LearnedProfiler.load(..., given={"costs": ...})``.

    Raises:
        ProfilerError: If `log` is another word; at the first use, if the space has no tables.

    Example:
        >>> from nasmw.spaces import nasbench201
        >>> Costs().names(nasbench201())[:3]
        ('macs', 'macs edge=none', 'macs edge=skip_connect')
    """

    def __init__(self, log: str = "", tables: Mapping[str, CostTable] | None = None) -> None:
        if log not in ("", "log"):
            raise ProfilerError(f"costs take 'log' or nothing, got {log!r}")
        self.log = log
        self.tables = None if tables is None else dict(tables)

    def __str__(self) -> str:
        return "costs(log)" if self.log else "costs"

    def plan(self, space: Space) -> _CostPlan:
        """Return what was prepared for a space; that of tables of one's own is kept with the encoding."""
        if self.tables is None:
            plan: _CostPlan = super().plan(space)
            return plan
        kept: dict[str, _CostPlan] = self.__dict__.setdefault("_plans", {})
        if space.fingerprint not in kept:
            kept[space.fingerprint] = self._prepare(space)
        return kept[space.fingerprint]

    def _prepare(self, space: Space) -> _CostPlan:
        tables = self.tables
        if tables is None:
            tables = {name: make(space, None) for name, make in space.tables.items()}
        if not tables:
            raise ProfilerError(
                f"{space!r} knows no costs of its networks; give tables, such as "
                "Costs(tables={'macs': FlopsProfiler(space, example_input).table})"
            )
        parts: list[_Part] = []
        names: list[str] = []
        for metric, table in tables.items():
            if not isinstance(table, CostTable) or table.space.fingerprint != space.fingerprint:
                raise ProfilerError(f"costs are encoded from a CostTable of {space!r}, got {table!r}")
            parts += _parts(space, metric, table, names)
        scale = np.zeros(len(names))
        for part in parts:
            most = np.abs(part.table).max(initial=0.0)
            scale[list(part.whole)] += most
            for column, start in part.own:
                axes = tuple(axis for axis, own in enumerate(part.scope) if own != column)
                by_option = np.abs(part.table).max(axis=axes)
                scale[start : start + len(by_option)] += by_option
        scale[scale == 0.0] = 1.0
        return _CostPlan(tuple(parts), tuple(names), scale)

    def _encode(self, plan: _CostPlan, candidates: Candidates, active: npt.NDArray[np.bool_]) -> Floats:
        features = np.zeros((len(candidates), len(plan.names)))
        codes = candidates.codes
        rows = np.arange(len(candidates))
        for part in plan.parts:
            values = part.table[tuple(codes[:, column] for column in part.scope)]
            for place in part.whole:
                features[:, place] += values
            for column, start in part.own:
                features[rows, start + codes[:, column].astype(np.intp)] += np.where(active[:, column], values, 0.0)
        features /= plan.scale
        return np.log(features + FLOOR) if self.log else features

    def names(self, space: Space) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self.plan(space).names

    def width(self, space: Space) -> int:
        """Return the number of columns."""
        return len(self.plan(space).names)

    def terms(self, space: Space, weights: Floats) -> list[Term] | None:
        """Return the weighted tables; None under logarithms."""
        return None if self.log else list(self._terms(space, weights))

    def _terms(self, space: Space, weights: Floats) -> Iterator[Term]:
        plan = self.plan(space)
        scaled = weights / plan.scale
        for part in plan.parts:
            names = tuple(space.choices[column].name for column in part.scope)
            yield names, part.table * scaled[list(part.whole)].sum()
            for column, start in part.own:
                axis = part.scope.index(column)
                factors = scaled[start : start + part.table.shape[axis]]
                shape = [-1 if place == axis else 1 for place in range(part.table.ndim)]
                yield conditioned(space, part.scope, part.table * factors.reshape(shape), on=[column])


def _parts(space: Space, metric: str, table: CostTable, names: list[str]) -> list[_Part]:
    """Return the parts of one cost; the names of their columns of features are added to `names`."""
    scopes = list(table.tables)
    # What decides on most parts, such as a resolution or a width, is no choice of any one of them.
    shared = {
        column for column in range(len(space)) if sum(column in scope for scope in scopes) > max(1, len(scopes) / 2)
    }
    gating = [{gate for column in scope for gate in space.gates[column]} for scope in scopes]
    owns = [
        [column for column in scope if column not in shared and column not in gates]
        for scope, gates in zip(scopes, gating, strict=True)
    ]
    total = len(names)
    names.append(metric)
    stages: dict[str, int] = {}
    for own in owns:
        stage, dot, _ = space.choices[own[0]].name.partition(".") if own else ("", "", "")
        if dot and stage not in stages:
            stages[stage] = len(names)
            names.append(f"{metric} {stage}")
    columns = sorted({column for own in owns for column in own})
    kinds = _Kinds.of(space, columns, f"{metric} ", len(names))
    names += kinds.names
    starts = dict(zip(columns, kinds.starts, strict=True))
    parts = []
    for scope, own in zip(scopes, owns, strict=True):
        stage = space.choices[own[0]].name.partition(".")[0] if own else ""
        whole = (total, stages[stage]) if stage in stages else (total,)
        values = table.tables[scope].astype(np.float64)
        parts.append(_Part(scope, values, whole, tuple((column, starts[column]) for column in own)))
    return parts
