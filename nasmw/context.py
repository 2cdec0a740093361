"""Context: what a stage of a search is given; recorded values; the counts of the funnel."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import Architecture, Candidates, Floats
from nasmw.constraint import Constraint
from nasmw.errors import NasmwError, ProfilerError
from nasmw.objective import Objective
from nasmw.profiler import Combination, Profiler
from nasmw.space import Space

__all__ = ["Compute", "Context", "Funnel", "MemoryRecorder", "Recorded", "Recorder", "finite", "recorded"]

Compute = Callable[[Candidates], npt.ArrayLike]
Scorer = Callable[[Architecture], float]


class Recorder(Protocol):
    """Keeps what is not a pure function of codes and told outcomes."""

    def recorded(self, name: str, candidates: Candidates, compute: Compute) -> Floats:
        """Return the recorded values, after computing and writing those that are missing."""

    def note(self, data: Mapping[str, Any]) -> None:
        """Write what came of an epoch of training; it outlives the process once this returns."""

    def notes(self) -> list[dict[str, Any]]:
        """Return what was noted, in order."""


class MemoryRecorder:
    """A recorder without a log: each value is computed once for as long as this object lives."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, bytes], float] = {}
        self._notes: list[dict[str, Any]] = []

    def note(self, data: Mapping[str, Any]) -> None:
        """Keep what came of an epoch of training."""
        self._notes.append(dict(data))

    def notes(self) -> list[dict[str, Any]]:
        """Return what was noted, in order."""
        return list(self._notes)

    def recorded(self, name: str, candidates: Candidates, compute: Compute) -> Floats:
        """Return the recorded values, after computing those that are missing, one architecture at a time."""
        keys = [(name, key) for key in candidates.row_keys()]
        for row, key in enumerate(keys):
            if key not in self._values:
                self._values[key] = finite(name, candidates[row], compute)
        return np.array([self._values[key] for key in keys], dtype=np.float64)


def finite(name: str, candidate: Candidates, compute: Compute) -> float:
    """Return what `compute` gives for one candidate.

    Raises:
        ProfilerError: If it is not one finite number.
    """
    values = np.asarray(compute(candidate), dtype=np.float64).ravel()
    if values.shape != (1,) or not np.isfinite(values[0]):
        raise ProfilerError(
            f"{name!r} gave {values.tolist()} for {next(iter(candidate))!r}; one finite number was wanted"
        )
    return float(values[0])


@attrs.frozen(eq=False)
class Recorded:
    """A callable whose values runs record, since they are not a pure function of the architecture; see `recorded`."""

    function: Callable[[Architecture], Any]
    name: str

    def __call__(self, architecture: Architecture) -> Any:
        """Call the function."""
        return self.function(architecture)


def recorded(function: Callable[[Architecture], Any], name: str | None = None) -> Recorded:
    """Mark a callable as impure: each value is written to the log before it is used, and read back on replay.

    Args:
        function: Takes an architecture, returns a number or a bool (a score on random weights, a measurement).
        name: The name under which values are kept; the function's own by default.

    Raises:
        ValueError: If there is no name to be had, as for a lambda.
    """
    own = name or getattr(function, "__name__", "")
    if not own or own == "<lambda>":
        raise ValueError("a recorded callable needs a name: recorded(function, name='...')")
    return Recorded(function, own)


class Funnel:
    """Counts, per stage, who came in and who was turned away for which cause."""

    def __init__(self) -> None:
        self.counts: collections.Counter[tuple[str, str, str]] = collections.Counter()

    def add(self, stage: str, status: str, cause: str, number: int = 1) -> None:
        """Count `number` candidates of one stage, status and cause."""
        self.counts[stage, status, cause] += number


@attrs.frozen(eq=False)
class Context:
    """What a stage is given at its setup.

    Attributes:
        space: The space that is searched.
        objectives: What the scores that this stage is told are, one per column.
        seed: The seed of the run.
        position: The place of the stage in the flattened chain, 0 for the strategy.
        stage: The name of the stage, unique in the chain.
        adopted: The number of trials that the run held before this chain; another number gives other random numbers,
            so that a warm restart does not ask again what the first start asked.
        folder: Where the run keeps files, beside its log; None where it has no log. It need not exist yet.
        progress: Whether training shows a progress bar; None shows it on a terminal.
        limits: The limits that the chain honours, known once it is set up; what an `Evaluator` is prepared for.
        begun: The number of trials that the log holds of this chain.
        rng: The stage's own generator, spawned from the seed by position.
    """

    space: Space
    objectives: tuple[Objective, ...] = (Objective("accuracy"),)
    seed: int = 0
    position: int = 0
    stage: str = "strategy"
    adopted: int = 0
    funnel: Funnel = attrs.field(factory=Funnel)
    recorder: Recorder = attrs.field(factory=MemoryRecorder)
    folder: str | None = None
    progress: bool | None = False
    limits: tuple[Constraint, ...] = ()
    begun: int = 0
    _sources: dict[str, object] = attrs.field(factory=dict)  # what gives the recorded values of each name
    rng: np.random.Generator = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        key = (self.position, self.adopted) if self.adopted else (self.position,)
        entropy = np.random.SeedSequence(self.seed, spawn_key=key)
        object.__setattr__(self, "rng", np.random.default_rng(entropy))

    def at(self, position: int, stage: str) -> Context:
        """Return the context of the stage at a position of the chain."""
        return attrs.evolve(self, position=position, stage=stage)

    def recorded(self, name: str, candidates: Candidates, compute: Compute) -> Floats:
        """Return values that are not a pure function of codes and told outcomes, through the log.

        Values that the log has are read back; for each other one `compute` is called with that one candidate, and
        the value is written before this returns.

        Args:
            name: What the values are, unique in the run.
            candidates: The candidates, ``n`` of them.
            compute: Takes candidates, returns one finite number each.

        Returns:
            ``(n,)`` float64.
        """
        return self.recorder.recorded(name, candidates, compute)

    def profile(self, profiler: Profiler, candidates: Candidates) -> Floats:
        """Return a profiler's values, ``(n,)``, through the log where it measures."""
        about = profiler.space
        if about is not None and about is not self.space and about.fingerprint != self.space.fingerprint:
            raise ProfilerError(f"{profiler!r} is about {about!r}; this search is on {self.space!r}")
        if profiler.pure:
            return _asked(profiler, candidates)
        if isinstance(profiler, Combination):
            return profiler.combine([self.profile(part, candidates) for _, part in profiler.terms])
        self._claim(profiler.name, profiler)
        return self.recorded(profiler.name, candidates, lambda batch: _asked(profiler, batch))

    def apply(self, function: Scorer | Recorded, candidates: Candidates) -> Floats:
        """Return what a callable says of each candidate, ``(n,)``, through the log where it is marked `recorded`."""

        def compute(batch: Candidates) -> list[float]:
            return [float(function(architecture)) for architecture in batch]

        if isinstance(function, Recorded):
            self._claim(function.name, function.function)
            return self.recorded(function.name, candidates, compute)
        return np.array(compute(candidates), dtype=np.float64)

    def _claim(self, name: str, source: object) -> None:
        """Refuse a second source of recorded values under one name: it would read the values of the first."""
        known = self._sources.setdefault(name, source)
        if known is not source and known != source:
            raise ProfilerError(
                f"two sources of recorded values are named {name!r}: {known!r} and {source!r}; give one of them "
                "another name, as in recorded(function, name='...')"
            )


def _asked(profiler: Profiler, candidates: Candidates) -> Floats:
    """Return a profiler's values; what it raises tells which profiler it was."""
    try:
        return profiler.profile_batch(candidates)
    except NasmwError:
        raise
    except Exception as error:
        which = repr(next(iter(candidates))) if len(candidates) == 1 else f"one of {len(candidates)} architectures"
        raise ProfilerError(f"{profiler!r} failed on {which}: {type(error).__name__}: {error}") from error
