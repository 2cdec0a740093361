"""NetworkProfiler: a number that follows from the network, from tables where they are to be had, else by counting."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from nasmw.candidates import Architecture, Candidates, Codes, Floats
from nasmw.cost import CostTable, MaxTable
from nasmw.errors import ProfilerError
from nasmw.profiler import Bounds, Profiler
from nasmw.profilers.cache import Kept, load_table, save_table, table_path
from nasmw.profilers.discover import VERIFIED, discover
from nasmw.profilers.explain import NotDecomposableError
from nasmw.profilers.inputs import ExampleInput, ExampleLike, check_resolution
from nasmw.profilers.probe import Metric, Pool, Sample, forget_pools, random_build, shared_pool
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Method", "NetworkProfiler"]

Method = Literal["auto", "probe", "count"]
REMEMBERED = 65_536
FIXED = 2


class NetworkProfiler(Profiler):
    """A number about a network that is, over a space, a sum or a maximum of small tables.

    The tables are those that the space declares, or are found by building some hundreds of its networks without data
    (once: they are kept on disk). They are compared with the direct count on networks that they were not made from.
    Where a space has no such tables the networks are counted one by one, each once, and a warning says so.

    Profilers of one space and one example input look at the same probed networks. So do those that need no example
    input, where they are made after one that does.

    A subclass says what is counted by `metric` and `_count`.

    Args:
        space: The space whose architectures are profiled; None where only networks are.
        name: The name of the metric.
        unit: Its unit.
        example_input: What networks are run on, for metrics that need it.
        resolution: The choice whose option is the height and width of the input; ``"resolution"`` is taken only where
            the space has such a choice. None keeps the example as it is.
        method: ``"auto"`` as described; ``"probe"`` does not take declared tables; ``"count"`` counts each network.
        progress: Whether a bar is shown while tables are made.

    Raises:
        ProfilerError: If the networks of the space do not run on the example input, `build` is random, or declared
            tables differ from the direct count.
        BuildError: If a network of the space cannot be built.
    """

    metric: Metric
    """What is counted of each layer."""
    factor: float = 1.0
    """The value of the profiler is the metric times this."""

    def __init__(
        self,
        space: Space | None,
        name: str,
        unit: str = "",
        *,
        example_input: ExampleLike | None = None,
        resolution: str | None = "resolution",
        method: Method = "auto",
        progress: bool = True,
    ) -> None:
        super().__init__(name, unit, space=space, kind="analytical")
        if method not in get_args(Method):
            raise ProfilerError(f"`method` is one of {get_args(Method)}, got {method!r}")
        self.example_input = None if example_input is None else ExampleInput.of(example_input)
        self.resolution = None if self.example_input is None else check_resolution(space, resolution)
        self.method: Method = method
        self.source = "counted one by one"
        self._values: dict[bytes, float] = {}
        if space is not None:
            self.table = self._tables(space, progress)

    # -- what a subclass implements -----------------------------------------------------------------------------

    @abstractmethod
    def _count(self, model: nn.Module, architecture: Architecture | None) -> float:
        """Return the value of a network by counting, and leave the network as it is.

        Args:
            model: The network.
            architecture: The architecture that it was built from; None for a network outside any space.
        """

    def _weighed(self, sample: Sample) -> Sample:
        """Return what a network is made of with the layers of the metric, where probes do not note them."""
        return sample

    def _details(self) -> tuple[object, ...] | None:
        """Return what else the tables depend on, besides space, metric, input and resolution.

        None: on something that cannot be written down, so the tables are not kept on disk.
        """
        return ()

    def _after_probing(self, pool: Pool) -> None:
        """Say what was noticed while the tables were made."""

    def _note_uncounted(self, names: Iterable[str]) -> None:
        """Hear of operators in the networks of the space that nothing is known about."""

    # -- tables -------------------------------------------------------------------------------------------------

    def _tables(self, space: Space, progress: bool) -> CostTable | MaxTable | None:
        declared = self._declared(space) if self.method == "auto" else None
        if not space.buildable:
            if declared is None:
                raise ProfilerError(
                    f"{type(self).__name__} builds the networks of {space!r}, which was made without `build`; "
                    "pass Space(choices, build=function)"
                )
            self.source = "declared tables"
            return declared * self.factor
        fixed = space.sample(FIXED, np.random.default_rng(0))
        pool = self._pool(space)
        if declared is not None:
            self._compare(declared, pool, fixed)
            self.source = "declared tables"
            return declared * self.factor
        counted = [self._value(row) for row in fixed.codes]
        if self.method == "count":
            if self._built(fixed.codes[0], seed=1) != counted[0]:
                raise ProfilerError(random_build(space, fixed.codes[0]))
            return None
        if len(pool) and self._traced(pool, fixed) != counted:  # `build` is not what it was when these were probed
            forget_pools(space)
            pool = self._pool(space)
        try:
            found = self._found(space, pool, fixed, counted, progress)
        except NotDecomposableError as error:
            warnings.warn(f"{self!r} counts each network of {space!r} by itself: {error}", stacklevel=4)
            return None
        wrong = 100 * (1.0 - 0.05 ** (1.0 / VERIFIED))
        self.source = f"tables by probing, under {wrong:.1g}% wrong at 95% confidence"
        return found

    def _pool(self, space: Space) -> Pool:
        return shared_pool(space, self.example_input, self.resolution)

    def _traced(self, pool: Pool, fixed: Candidates) -> list[float]:
        """Return the values of some networks from probes.

        Raises:
            NotDecomposableError: If they do not run on shapes alone.
        """
        try:
            return [self.factor * self._weighed(pool.sample(row)).value(self.metric) for row in fixed.codes]
        except ProfilerError as error:
            raise NotDecomposableError(str(error)) from error

    def _declared(self, space: Space) -> CostTable | None:
        """Return the table that the space declares for such inputs, or None."""
        function = space.tables.get(self.metric)
        if function is None:
            return None
        example = self.example_input
        if example is None:
            return function(space, None)
        if len(example.args) != 1 or example.kwargs or not isinstance(example.args[0], torch.Tensor):
            return None
        if "resolution" in space.names and self.resolution != "resolution":
            return None
        return function(space, tuple(example.args[0].shape))

    def _compare(self, table: CostTable | MaxTable, pool: Pool, fixed: Candidates) -> None:
        for row, expected in zip(fixed.codes, table.evaluate(fixed).tolist(), strict=True):
            counted = pool.sample(row).value(self.metric)
            if counted != expected:
                raise ProfilerError(
                    f"the tables that {pool.space!r} declares give {self.metric} = {expected:.0f} for "
                    f"{pool.space.decode(row)!r}, whose network has {counted}; correct them, or pass method='probe'"
                )

    def _found(
        self, space: Space, pool: Pool, fixed: Candidates, counted: list[float], progress: bool
    ) -> CostTable | MaxTable:
        """Return the tables from the disk, or by probing."""
        traced = self._traced(pool, fixed)
        if traced != counted:
            pool.repeat([*fixed.codes] * FIXED)
            raise NotDecomposableError(f"run on shapes alone its networks give {traced}, run on data {counted}")
        path = self._path(space)
        kept = None if path is None else load_table(path, space, maximum=self.metric == "memory")
        if kept is not None and (kept.table * self.factor).evaluate(fixed).tolist() == traced:
            self._note_uncounted(kept.uncounted)
            return kept.table * self.factor
        table = discover(pool, self.metric, weigh=self._weighed, progress=progress).table
        self._after_probing(pool)
        self._note_uncounted(pool.uncounted)
        if path is not None:
            save_table(path, Kept(table, frozenset(pool.uncounted)))
        return table * self.factor

    def _path(self, space: Space) -> Path | None:
        """Return the file of the tables, or None where they are not kept."""
        details = self._details()
        if details is None:
            return None
        inputs = "" if self.example_input is None else self.example_input.describe()
        return table_path(space, self.metric, space.builder_name, inputs, self.resolution, *details)

    # -- values -------------------------------------------------------------------------------------------------

    def _profile(self, architecture: Architecture) -> float:
        if self.table is not None:
            value: float = self.table.value(architecture)
            return value
        return self._value(self._space().encode(architecture))

    def _profile_batch(self, candidates: Candidates) -> Floats:
        if self.table is not None:
            values: Floats = self.table.evaluate(candidates)
            return values
        return np.array([self._value(row) for row in candidates.codes], dtype=np.float64)

    def _profile_model(self, model: nn.Module) -> float:
        return self._count(model, None)

    def bounds(self) -> Bounds | None:
        """Return the least and greatest value over the space, exactly, or None where there are no tables."""
        if self.table is None:
            return None
        found: Bounds = self.table.bounds()
        return found

    def _value(self, row: Codes) -> float:
        key = row.tobytes()
        if key not in self._values:
            value = self._built(row)
            if len(self._values) >= REMEMBERED:
                del self._values[next(iter(self._values))]
            self._values[key] = value
        return self._values[key]

    def _built(self, row: Codes, seed: int = 0) -> float:
        """Return the value of a network that is built for it, under another random state than that of the run."""
        space = self._space()
        architecture = space.decode(row)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = space.build(architecture)
        return float(self._count(model, architecture))

    @property
    def auditors(self) -> tuple[Profiler, ...]:
        """This profiler, where it answers from tables."""
        return () if self.table is None else (self,)

    def _recount(self, model: nn.Module, architecture: Architecture) -> float:
        """Return what `_count` does, by a cheaper way if there is one."""
        return self._count(model, architecture)

    def audit(
        self, model: nn.Module, architecture: Architecture, *, mismatch: Literal["error", "count"] = "error"
    ) -> float:
        """Count a network that was built for an architecture, and compare with what the tables say of it.

        Args:
            model: The network; it stays as it is.
            architecture: The architecture.
            mismatch: What follows where they differ: ``"error"``, or ``"count"``: a warning, and from then on each
                network is counted by itself, under a new `version`.

        Returns:
            The counted value.

        Raises:
            ProfilerError: If they differ.
        """
        counted = self._recount(model, architecture)
        if self.table is None or (said := self.profile(architecture)) == counted:
            return counted
        message = (
            f"{self!r} says {said:.0f} of {dict(architecture)!r}, whose network has {counted:.0f}: `build` follows no "
            "sum of small tables there, or has changed"
        )
        if mismatch == "error":
            raise ProfilerError(f"{message}; pass method='count' to count each network")
        warnings.warn(f"{message}; from now on each network is counted by itself", stacklevel=2)
        self.table = None
        self.source = "counted one by one"
        self.version += 1
        return counted

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_values": {}}  # what was counted one by one can be counted again

    def __repr__(self) -> str:
        inputs = "" if self.example_input is None else f" of inputs {self.example_input.shapes()}"
        source = "" if self.space is None else f": {self.source}"
        return f"<{type(self).__name__} {self.name!r}{inputs}{source}>"
