"""From probes to tables: explains each layer of a space, adds the layers up, verifies the sum on fresh networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nasmw.candidates import Codes
from nasmw.cost import CostTable, MaxTable
from nasmw.profilers.explain import ABSENT, Explainer, Ints, Leaf, NotDecomposableError, Split, Tree, restrict
from nasmw.profilers.probe import Metric, Naming, Pool, Sample, find_anchors
from nasmw.space import Space

__all__ = ["Found", "discover"]

FIRST_PROBES = 64
MAX_ROUNDS = 60
BATCH = 64
CHANGED_PROBES = 48
BUDGETS = (750, 3_000)  # probes for each way of naming layers, one way after the other
VERIFIED = 300
FLIPPED = 50
REPEATED = 24  # networks that are built again where no table is right
MAX_ENTRIES = 4_000_000

Table = CostTable | MaxTable
Assignment = dict[int, int]


@attrs.frozen
class Found:
    """A table that was found by probing.

    Attributes:
        table: The table.
        verified: On how many random networks, none of which it was made from, it equalled the direct count.
        probes: How many networks were built in all.
    """

    table: Table
    verified: int
    probes: int

    @property
    def bound(self) -> float:
        """The share of wrong networks that `verified` right ones leave possible, at 95 % confidence."""
        return float(1.0 - 0.05 ** (1.0 / self.verified))


def discover(
    pool: Pool,
    metric: Metric,
    *,
    weigh: Callable[[Sample], Sample] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Found:
    """Return the table of a metric over the pool's space.

    Layers are named by what `build` read before it constructed them, or else by their paths.

    Args:
        pool: The probes so far; it grows.
        metric: The metric, one of the pool's.
        weigh: Takes what a network is made of and returns it with the layers of the metric, where the pool has none.
        seed: Of the random architectures.
        progress: Whether a bar is shown.

    Raises:
        NotDecomposableError: If no sum of small tables was found that equals the direct count.
        ProfilerError: If `build` gives different networks for one architecture.
    """
    with tqdm(desc=f"tabulating {metric} of {pool.space.name}", unit=" networks", disable=not progress) as bar:
        search = _Search(pool, metric, weigh, seed, bar)
        search.start()
        reasons = []
        namings = search.namings()
        for budget in BUDGETS:
            for naming in list(namings):
                try:
                    return search.run(naming, budget)
                except _ExhaustedError as error:
                    if budget == BUDGETS[-1]:
                        reasons.append(f"layers named by {naming}: {error}")
                except NotDecomposableError as error:
                    namings.remove(naming)
                    reasons.append(f"layers named by {naming}: {error}")
        pool.repeat([sample.codes for sample in search.samples.values()][:REPEATED])
        raise NotDecomposableError("; ".join(reasons))


@attrs.frozen(eq=False)
class _Column:
    """What was observed of one layer or of several alike: whether it is there, or one of the numbers of its cost."""

    name: Hashable
    number: int | None
    values: Ints


class _IncompleteError(Exception):
    """Cases that were not observed yet, as codes by columns."""

    def __init__(self, wanted: list[Assignment]) -> None:
        super().__init__()
        self.wanted = wanted


class _ExhaustedError(NotDecomposableError):
    """As many networks were probed as were to be."""


class _Search:
    def __init__(
        self, pool: Pool, metric: Metric, weigh: Callable[[Sample], Sample] | None, seed: int, bar: tqdm[Any]
    ) -> None:
        self.pool = pool
        self.space: Space = pool.space
        self.metric: Metric = metric
        self.weigh = weigh
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.bar = bar
        self.samples: dict[bytes, Sample] = {}
        self.probes = 0
        self.limit = math.inf
        self.changes: list[tuple[Sample, Sample]] = []
        self.anchors: frozenset[int] = frozenset()

    # -- probing ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Probe some networks, one of them twice, and some of them with one choice changed."""
        for codes in self.balanced(FIRST_PROBES):
            self.add(codes)
        if not self.pool.observed:
            self.pool.repeat([next(iter(self.samples.values())).codes])
        self.change_each()
        for codes in self.pool.observed.values():
            self.add(codes)

    def change_each(self) -> None:
        """Probe pairs of networks that differ in one choice, one pair for each choice or for many of them."""
        samples = list(self.samples.values())
        codes = np.stack([sample.codes for sample in samples])
        active = self.space.active(codes)
        sizes = [len(choice.options) for choice in self.space.choices]
        columns = [column for column in range(len(sizes)) if sizes[column] > 1 and active[:, column].any()]
        for column in self.rng.permutation(columns)[:CHANGED_PROBES].tolist():
            sample = samples[self.rng.choice(np.flatnonzero(active[:, column]))]
            row = sample.codes.copy()
            row[column] = (int(row[column]) + 1 + int(self.rng.integers(sizes[column] - 1))) % sizes[column]
            self.changes.append((sample, self.add(self.space.canonical(row[None])[0])))

    def balanced(self, n: int, rng: np.random.Generator | None = None) -> Codes:
        """Return architectures in which every option of every choice is about as frequent."""
        rng = rng or self.rng
        columns = [rng.permutation(np.arange(n) % len(choice.options)) for choice in self.space.choices]
        return self.space.canonical(np.stack(columns, axis=1).astype(self.space.dtype))

    def add(self, codes: Codes) -> Sample:
        """Probe a network and keep it as an observation."""
        codes = np.ascontiguousarray(codes)
        key = codes.tobytes()
        if key not in self.samples:
            self.samples[key] = self.look(codes)
        return self.samples[key]

    def look(self, codes: Codes) -> Sample:
        """Probe a network."""
        before = len(self.pool)
        sample = self.pool.sample(np.ascontiguousarray(codes))
        if len(self.pool) > before:
            self.probes += 1
            self.bar.update()
        if self.probes > self.limit:
            raise _ExhaustedError(f"{self.probes} networks were probed, and there is no end")
        return sample if self.weigh is None else self.weigh(sample)

    def fill(self, wanted: list[Assignment]) -> None:
        """Probe networks that show cases not observed yet, many in each."""
        order = [wanted[at] for at in self.rng.permutation(len(wanted))]
        for codes in self.balanced(min(BATCH, len(wanted))):
            row = codes.copy()
            chosen: Assignment = {}
            left = []
            for case in order:
                if all(chosen.get(column, code) == code for column, code in case.items()):
                    chosen.update(case)
                else:
                    left.append(case)
            order = left
            if not chosen:
                return
            raw = np.array([self.rng.integers(len(choice.options)) for choice in self.space.choices])
            raw[list(chosen)] = list(chosen.values())
            row = self.space.canonical(raw[None].astype(self.space.dtype))[0]
            self.add(row)

    # -- explaining ---------------------------------------------------------------------------------------------

    def run(self, naming: Naming, budget: int) -> Found:
        """Return the table for one way of naming layers, with some further probes."""
        self.limit = self.probes + budget
        for _ in range(MAX_ROUNDS):
            try:
                table = self.tabulate(naming)
            except _IncompleteError as missing:
                self.fill(missing.wanted)
                continue
            if self.verify(table):
                self.pool.observed.update((key, sample.codes) for key, sample in self.samples.items())
                return Found(table, VERIFIED, self.probes)
        raise NotDecomposableError(f"the costs of fresh networks still differ after {MAX_ROUNDS} rounds of probing")

    def namings(self) -> list[Naming]:
        """Return the ways of naming layers, that one first in which a changed choice changes fewer layers."""
        namings: list[Naming] = ["reads", "paths"]
        return sorted(namings, key=self._changed)

    def _changed(self, naming: Naming) -> int:
        self.anchors = self._anchors(naming)
        pairs = [[set(sample.names(self.metric, naming, self.anchors)) for sample in pair] for pair in self.changes]
        return sum(len(one ^ other) for one, other in pairs)

    def _anchors(self, naming: Naming) -> frozenset[int]:
        return find_anchors(self.samples.values(), len(self.space)) if naming == "reads" else frozenset()

    def columns(self, naming: Naming) -> dict[Hashable, list[Ints]]:
        """Return for each layer whether it is there, and the numbers of its cost, in each sample."""
        samples = list(self.samples.values())
        anchors = self.anchors = self._anchors(naming)
        found: dict[Hashable, list[Ints]] = {}
        for at, sample in enumerate(samples):
            for name, groups in sample.names(self.metric, naming, anchors):
                numbers = [number for group in groups for number in group]
                if name not in found:
                    found[name] = [np.full(len(samples), ABSENT, dtype=np.int64) for _ in range(len(numbers) + 1)]
                    found[name][0][:] = 0
                there, *values = found[name]
                there[at] = 1
                for column, number in zip(values, numbers, strict=True):
                    column[at] = number
        return found

    def tabulate(self, naming: Naming) -> Table:
        """Return the table that the samples give.

        Raises:
            _IncompleteError: If cases are missing.
            NotDecomposableError: If it would be too large.
        """
        columns = self.columns(naming)
        explainer = Explainer(self.space, np.stack([sample.codes for sample in self.samples.values()]))
        trees: dict[bytes, Tree] = {}
        named: dict[Hashable, list[Tree]] = {}
        for name, values in columns.items():
            named[name] = []
            for number, column in enumerate(values):
                key = column.tobytes()
                if key not in trees:
                    trees[key] = explainer.explain(column, self._observer(naming, name, number))
                named[name].append(trees[key])
        composer = _Composer(self.space, explainer, maximum=self.metric == "memory")
        for name, (there, *numbers) in named.items():
            composer.add(there, numbers, _form(name))
        if composer.wanted:
            raise _IncompleteError(composer.wanted)
        return composer.table(self.metric)

    def _observer(self, naming: Naming, name: Hashable, number: int) -> Callable[[Codes], int]:
        def observe(codes: Codes) -> int:
            for other, groups in self.add(codes).names(self.metric, naming, self.anchors):
                if other == name:
                    return 1 if number == 0 else [value for group in groups for value in group][number - 1]
            return 0 if number == 0 else ABSENT

        return observe

    # -- verifying ----------------------------------------------------------------------------------------------

    def verify(self, table: Table) -> bool:
        """Compare the table with the direct count on fresh networks; keep those that differ as observations."""
        differing = 0
        for batch in self._fresh():
            values = table.evaluate(batch)
            for codes, value in zip(batch, values.tolist(), strict=True):
                sample = self.look(codes)
                if sample.value(self.metric) != value:
                    differing += 1
                    self.add(codes)
            if differing:
                self.pool.rounds += 1
                return False
        return True

    def _fresh(self) -> Iterable[Codes]:
        rng = np.random.default_rng([self.seed, self.pool.rounds])  # the same networks, whatever the metric
        flips = self._flips(rng)
        if flips is not None:
            yield flips
        left = VERIFIED
        while left:
            n = min(left, 25)
            yield self.space.sample(n, rng).codes
            left -= n

    def _flips(self, rng: np.random.Generator) -> Codes | None:
        """Return networks that differ from random ones in one choice that guards others."""
        guards = sorted({gate for gates in self.space.gates for gate in gates})
        if not guards:
            return None
        codes = self.balanced(FLIPPED, rng).copy()
        for row in codes:
            column = int(rng.choice(guards))
            size = len(self.space.choices[column].options)
            row[column] = (int(row[column]) + 1 + int(rng.integers(max(size - 1, 1)))) % size
        return self.space.canonical(codes)


def _form(name: Hashable) -> tuple[int, ...]:
    """Return the number of factors of each product of a layer's cost, which stands last in its name."""
    form: tuple[int, ...] = name[-1]  # type: ignore[index]
    return form


class _Composer:
    """Adds up, or maximises over, the costs of layers from the trees of their numbers."""

    def __init__(self, space: Space, explainer: Explainer, *, maximum: bool) -> None:
        self.space = space
        self.explainer = explainer
        self.maximum = maximum
        self.wanted: list[Assignment] = []
        self._terms: dict[tuple[int, ...], npt.NDArray[np.int64]] = {}
        self._entries = 0

    def add(self, there: Tree, numbers: Sequence[Tree], form: tuple[int, ...]) -> None:
        """Add a layer: the tree of whether it is there, and those of its numbers."""
        self._compose(there, list(numbers), form, {})

    def _compose(
        self, there: Tree | None, numbers: list[Tree | None], form: tuple[int, ...], known: Assignment
    ) -> None:
        for tree in (there, *numbers):
            if isinstance(tree, Split):
                column = tree.column
                if any(gate not in known for gate in self.explainer.space.gates[column]):
                    column = next(gate for gate in self.explainer.space.gates[column] if gate not in known)
                if not self._active(column, known):
                    self._compose(
                        restrict(there, column, 0),
                        [restrict(other, column, 0) for other in numbers],
                        form,
                        known | {column: 0},
                    )
                    return
                for code in range(self.explainer.sizes[column]):
                    self._compose(
                        restrict(there, column, code),
                        [restrict(other, column, code) for other in numbers],
                        form,
                        known | {column: code},
                    )
                return
        self._leaf(there, numbers, form, known)

    def _active(self, column: int, known: Assignment) -> bool:
        return all(
            known.get(gate) in allowed and self._active(gate, known)
            for gate, allowed in self.space.gates[column].items()
        )

    def _leaf(self, there: Tree | None, numbers: list[Tree | None], form: tuple[int, ...], known: Assignment) -> None:
        if there is None:
            self.wanted.append(known)
            return
        if not isinstance(there, Leaf):
            raise TypeError(f"expected a leaf, got {there!r}")
        if not there.scope and there.values.get(()) == 0:
            return
        leaves = [tree for tree in (there, *numbers) if isinstance(tree, Leaf)]
        scope = tuple(sorted({column for leaf in leaves for column in leaf.scope}))
        shape = tuple(self.explainer.sizes[column] for column in scope)
        full = (*sorted(known), *scope)
        self._entries += math.prod(shape)
        if self._entries > MAX_ENTRIES:
            raise NotDecomposableError(f"its tables would have more than {MAX_ENTRIES} entries")
        exists, complete = self._spread(there, scope, shape, known)
        factors = []
        for tree in numbers:
            if tree is None:
                if complete and exists.any():
                    self.wanted.append(known)
                return
            if not isinstance(tree, Leaf):
                raise TypeError(f"expected a leaf, got {tree!r}")
            values, whole = self._spread(tree, scope, shape, known, where=exists > 0)
            complete = complete and whole
            factors.append(values)
        if not complete:
            return
        total = np.zeros(shape, dtype=np.int64)
        at = 0
        for length in form:
            product = exists.copy()
            for values in factors[at : at + length]:
                product = product * values
            total = total + product
            at += length
        sizes = [self.explainer.sizes[column] for column in full]
        table = self._terms.setdefault(full, np.zeros(sizes, dtype=np.int64))
        index = tuple(known[column] for column in sorted(known))
        table[index] = np.maximum(table[index], total) if self.maximum else table[index] + total

    def _spread(
        self,
        leaf: Leaf,
        scope: tuple[int, ...],
        shape: tuple[int, ...],
        known: Assignment,
        where: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[np.int64], bool]:
        """Return a leaf's values over a greater scope, and whether all that matter were observed."""
        own = np.full([self.explainer.sizes[column] for column in leaf.scope], ABSENT, dtype=np.int64)
        for codes, value in leaf.values.items():
            own[codes] = value
        spread = own.reshape([self.explainer.sizes[column] if column in leaf.scope else 1 for column in scope])
        values = np.broadcast_to(spread, shape)
        missing = values == ABSENT
        if where is not None:
            missing = missing & where
        if not missing.any():
            return np.where(values == ABSENT, 0, values), True
        if where is None:
            cases = [dict(zip(leaf.scope, codes, strict=True)) for codes in np.argwhere(own == ABSENT).tolist()]
        else:
            axes = [axis for axis, column in enumerate(scope) if column in leaf.scope]
            first: dict[tuple[int, ...], list[int]] = {}
            for cell in np.argwhere(missing).tolist():
                first.setdefault(tuple(cell[axis] for axis in axes), cell)
            cases = [dict(zip(scope, codes, strict=True)) for codes in first.values()]
        self.wanted += [known | case for case in cases]
        return np.where(values == ABSENT, 0, values), False

    def table(self, name: str) -> Table:
        """Return the table of all layers."""
        terms = [([self.space.choices[column].name for column in scope], table) for scope, table in self._terms.items()]
        if not self.maximum:
            return CostTable(self.space, terms, name=name)
        if not terms:
            raise NotDecomposableError("there is nothing to maximise over")
        return MaxTable(self.space, terms, name=name)
