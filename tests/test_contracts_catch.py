"""The contract suites fail on what they are there to catch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nasmw.candidates import Candidates, Outcomes
from nasmw.profiler import Profiler
from nasmw.space import Space
from nasmw.strategy import Context, Strategy
from nasmw.testing import ProfilerContract, StrategyContract, TableProfiler


class Sound(Strategy):
    def _setup(self, context: Context) -> None:
        self._state = 0

    def _ask(self, n: int) -> Candidates:
        return self.context.space.sample(n, self.context.rng)

    def _tell(self, outcomes: Outcomes) -> None:
        pass


class UsesGlobalState(Sound):
    def _ask(self, n: int) -> Candidates:
        return self.context.space.sample(n, np.random.default_rng(np.random.randint(1000)))


class IsNotCanonical(Sound):
    def _ask(self, n: int) -> Candidates:
        space = self.context.space
        sizes = [len(choice.options) for choice in space.choices]
        return Candidates.of(space, self.context.rng.integers(0, sizes, (n, len(space))).astype(space.dtype))


class ChokesOnNan(Sound):
    def _tell(self, outcomes: Outcomes) -> None:
        for score in outcomes.scores[:, 0]:
            self._state += int(score)


class IgnoresTheSeed(Sound):
    def _ask(self, n: int) -> Candidates:
        self._state += 1
        return self.context.space.sample(n, np.random.default_rng(self._state))


class KeepsItsState(Sound):
    def __init__(self) -> None:
        self._kept = 0

    def _ask(self, n: int) -> Candidates:
        self._kept += 1
        return self.context.space.sample(n, np.random.default_rng([self._kept, self.context.seed]))


class ShowsItsState(Sound):
    def _ask(self, n: int) -> Candidates:
        self.asked = n
        return super()._ask(n)


class DependsOnHashes(Sound):
    def _ask(self, n: int) -> Candidates:
        return self.context.space.sample(n, np.random.default_rng(abs(hash(f"{self.context.seed}"))))


class CannotBePickled(Sound):
    def __init__(self) -> None:
        self._function = lambda: None


class ReadsWhatRidesAlong(Sound):
    def _tell(self, outcomes: Outcomes) -> None:
        if outcomes.candidates.columns:
            self.context.rng.random()


class GivesNothing(Sound):
    def _ask(self, n: int) -> Candidates:
        return super()._ask(n)[:0]


@pytest.mark.parametrize(
    ("strategy", "test"),
    [
        (UsesGlobalState, "test_leaves_global_random_state_alone"),
        (IsNotCanonical, "test_candidates_belong_to_the_space"),
        (ChokesOnNan, "test_scores_may_be_nan"),
        (IgnoresTheSeed, "test_other_seed_other_candidates"),
        (KeepsItsState, "test_setup_starts_afresh"),
        (ShowsItsState, "test_repr_names_the_configuration"),
        (DependsOnHashes, "test_same_candidates_in_another_process"),
        (CannotBePickled, "test_pickles_before_setup"),
        (ReadsWhatRidesAlong, "test_accepts_what_rides_along"),
        (GivesNothing, "test_gives_any_number"),
    ],
)
def test_broken_strategies_are_caught(strategy: type[Strategy], test: str) -> None:
    def contract(cls: type[Strategy]) -> StrategyContract:
        suite = StrategyContract()
        suite.make = cls  # type: ignore[method-assign]
        return suite

    getattr(contract(Sound), test)()
    with pytest.raises(Exception):  # noqa: B017  an assertion, or what the broken strategy raises
        getattr(contract(strategy), test)()


class CountsInactive(TableProfiler):
    def _profile(self, architecture: Any) -> float:
        return super()._profile(architecture) + len(architecture)


class BatchDiffers(TableProfiler):
    def _profile_batch(self, candidates: Candidates) -> Any:
        return super()._profile_batch(candidates) + 1


class DependsOnTheRest(TableProfiler):
    def _profile_batch(self, candidates: Candidates) -> Any:
        return super()._profile_batch(candidates) + np.arange(len(candidates))


class BoundsTooTight(TableProfiler):
    def bounds(self) -> Any:
        architecture = {"width": 8, "depth": 1, "block0.op": "pool"}
        value = self.profile(architecture)
        return type(super().bounds())(value, value, architecture, architecture)


class AcceptsAnything(TableProfiler):
    def _profile(self, architecture: Any) -> float:
        return 1.0


class NegativeStd(TableProfiler):
    def std(self, candidates: Candidates) -> Any:
        return np.full(len(candidates), -1.0)


class Drifts(TableProfiler):
    def update(self, outcomes: Outcomes) -> None:
        self._costs = [costs + 1 for costs in self._costs]


@pytest.mark.parametrize(
    ("profiler", "test"),
    [
        (CountsInactive, "test_inactive_choices_do_not_matter"),
        (BatchDiffers, "test_scalar_and_batch_agree"),
        (DependsOnTheRest, "test_order_does_not_matter"),
        (BoundsTooTight, "test_bounds_hold_and_are_met"),
        (AcceptsAnything, "test_refuses_what_the_space_lacks"),
        (NegativeStd, "test_std_is_none_or_non_negative"),
        (Drifts, "test_update_accepts_outcomes"),
    ],
)
def test_broken_profilers_are_caught(profiler: type[Profiler], test: str) -> None:
    def contract(cls: type[Profiler]) -> ProfilerContract:
        class Suite(ProfilerContract):
            def make(self, space: Space) -> Profiler:
                return cls(space)

        return Suite()

    getattr(contract(TableProfiler), test)()
    with pytest.raises(AssertionError):
        getattr(contract(profiler), test)()
