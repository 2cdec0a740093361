"""StrategyContract: the tests that every strategy has to pass."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.context import Context
from nasmw.errors import DeadlockError, OrderError
from nasmw.objective import Objective
from nasmw.space import Space
from nasmw.strategy import Strategy, batch_of_none
from nasmw.testing.toy import TableProfiler, toy_space

__all__ = ["StrategyContract", "context_for", "drive", "scored"]

_IN_ANOTHER_PROCESS = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from nasmw.testing.strategies import drive
strategy, space, settings = pickle.load(sys.stdin.buffer)
print(drive(strategy, space, **settings).codes.tobytes().hex())
"""


def context_for(space: Space, *, seed: int = 0, objectives: int = 1) -> Context:
    """Return what a strategy is set up with: maximised metrics ``"score0"``, ``"score1"``, and a generator."""
    return Context(space, tuple(Objective(f"score{number}") for number in range(objectives)), seed)


def scored(candidates: Candidates, objectives: int = 1) -> Outcomes:
    """Return completed outcomes with scores that depend on the architecture alone; small networks score high.

    Args:
        candidates: The candidates, with the ids under which they were asked; made by a `Space`.
        objectives: The number of scores of each.
    """
    space = candidates.space
    assert isinstance(space, Space)
    columns = {
        f"score{number}": -TableProfiler(space, seed=number).profile_batch(candidates) for number in range(objectives)
    }
    scores = np.stack(list(columns.values()), axis=1)
    return Outcomes(candidates, [Status.COMPLETED] * len(candidates), scores, columns)


def drive(
    strategy: Strategy,
    space: Space,
    trials: int = 100,
    *,
    n: int = 1,
    seed: int = 0,
    objectives: int = 1,
    outcomes: Callable[[Candidates], Outcomes] | None = None,
) -> Candidates:
    """Set a strategy up, ask and tell it by turns, and return what it asked for, in order.

    Args:
        strategy: A strategy, or a chain.
        space: The space to search.
        trials: After how many candidates to stop; it stops earlier where the strategy is exhausted.
        n: How many to ask for at a time.
        seed: The seed of the run.
        objectives: The number of objectives.
        outcomes: Gives the outcomes of asked candidates; `scored` by default.

    Raises:
        DeadlockError: If the strategy gives nothing although it has been told everything, and is not exhausted.
    """
    strategy.setup(context_for(space, seed=seed, objectives=objectives))
    asked: list[Candidates] = []
    left = trials
    idle = False
    while left and not strategy.exhausted:
        if idle:
            raise DeadlockError(f"{strategy!r} gave nothing, has been told everything, and is not exhausted")
        batch = strategy.ask(min(n, left))
        left -= len(batch)
        idle = not len(batch)
        if not idle:
            asked.append(batch)
            strategy.tell(scored(batch, objectives) if outcomes is None else outcomes(batch))
    return Candidates.join(asked) if asked else batch_of_none(space)


class StrategyContract:
    """About twenty tests of what `Strategy` promises, for pytest; subclass it and make a strategy.

    Attributes:
        objectives: The number of objectives that the strategy is set up with.
        random: Whether different seeds are to give different candidates.

    Example:
        >>> from nasmw.testing import RecordingStrategy, StrategyContract
        >>> class TestMine(StrategyContract):
        ...     def make(self):
        ...         return RecordingStrategy()
        >>> TestMine().test_pickles_before_setup()
    """

    objectives: ClassVar[int] = 1
    random: ClassVar[bool] = True

    def make(self) -> Strategy:
        """Return a new strategy, configured alike each time, not set up."""
        raise NotImplementedError(f"{type(self).__name__} must implement make(self), which returns a new strategy")

    def make_space(self) -> Space:
        """Return the space to search in; the toy space by default."""
        return toy_space()

    def _started(self, space: Space | None = None, seed: int = 0) -> Strategy:
        strategy = self.make()
        space = self.make_space() if space is None else space
        strategy.setup(context_for(space, seed=seed, objectives=self.objectives))
        return strategy

    def _drive(self, strategy: Strategy, space: Space | None = None, **settings: Any) -> npt.NDArray[Any]:
        space = self.make_space() if space is None else space
        return drive(strategy, space, **{"objectives": self.objectives, **settings}).codes

    def _scored(self, candidates: Candidates) -> Outcomes:
        return scored(candidates, self.objectives)

    def _without_scores(self, candidates: Candidates, status: Status) -> Outcomes:
        return Outcomes.turned_away(candidates, status, ["because"] * len(candidates), self.objectives)

    def test_is_out_of_order_before_setup(self) -> None:
        """Asking, telling, adopting and offering before `setup` raise OrderError."""
        space = self.make_space()
        cost = TableProfiler(space)
        outcomes = self._scored(space.sample(2, np.random.default_rng(0)))
        for call in (
            lambda strategy: strategy.ask(1),
            lambda strategy: strategy.tell(outcomes),
            lambda strategy: strategy.adopt(outcomes),
            lambda strategy: strategy.offer(cost <= 1e9),
        ):
            _must_raise(OrderError, call, self.make())

    def test_is_told_once_what_it_asked(self) -> None:
        """An id that was not asked, or was told before, raises OrderError, and so does a score too many."""
        strategy = self._started()
        batch = strategy.ask(4)
        assert len(batch), f"{strategy!r} gave nothing at the first ask"
        outcomes = self._scored(batch)
        strange = outcomes.evolve(candidates=batch.with_ids(batch.ids + 1_000_000))
        _must_raise(OrderError, strategy.tell, strange)
        _must_raise(OrderError, strategy.tell, scored(batch, self.objectives + 1))
        _must_raise(OrderError, strategy.tell, Outcomes.join([outcomes, outcomes]))
        strategy.tell(outcomes)
        _must_raise(OrderError, strategy.tell, outcomes)

    def test_refuses_to_be_asked_for_none(self) -> None:
        """At least one candidate is asked for."""
        _must_raise(ValueError, self._started().ask, 0)

    def test_same_seed_same_candidates(self) -> None:
        """Two objects configured alike ask for the same, whatever the global random state."""
        random.seed(1)
        first = self._drive(self.make(), n=3, seed=5)
        random.seed(2)
        second = self._drive(self.make(), n=3, seed=5)
        assert np.array_equal(first, second), "the same seed gave other candidates"

    def test_same_candidates_in_another_process(self) -> None:
        """Another process, with another hash seed, asks for the same."""
        space = self.make_space()
        settings = {"trials": 60, "n": 3, "seed": 5, "objectives": self.objectives}
        payload = pickle.dumps(sys.path) + pickle.dumps((self.make(), space, settings))
        done = subprocess.run(
            [sys.executable, "-c", _IN_ANOTHER_PROCESS],
            input=payload,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": "12345"},
            timeout=300,
        )
        assert not done.returncode, f"the other process failed:\n{done.stderr.decode()}"
        own = self._drive(self.make(), space, **settings)
        assert done.stdout.decode().strip() == own.tobytes().hex(), "another process asked for other candidates"

    def test_other_seed_other_candidates(self) -> None:
        """Another seed asks for others, unless the strategy is declared not random."""
        first, second = (self._drive(self.make(), n=3, seed=seed) for seed in (5, 6))
        assert np.array_equal(first, second) != self.random, f"random is {self.random}; two seeds say otherwise"

    def test_setup_starts_afresh(self) -> None:
        """A second `setup` forgets the first run, whether it was finished or not."""
        strategy = self.make()
        first = self._drive(strategy, n=3, seed=5)
        strategy.ask(3) if not strategy.exhausted else None
        assert np.array_equal(first, self._drive(strategy, n=3, seed=5)), "setup left state of the last run"

    def test_leaves_inputs_alone(self) -> None:
        """What was told and what was given stays as it was."""
        strategy = self._started()
        kept = []
        for _ in range(20):
            if strategy.exhausted or not len(batch := strategy.ask(3)):
                break
            outcomes = self._scored(batch)
            kept.append((batch, batch.codes.copy(), batch.ids.copy(), outcomes, outcomes.scores.copy()))
            strategy.tell(outcomes)
        for batch, codes, ids, outcomes, scores in kept:
            assert np.array_equal(batch.codes, codes) and np.array_equal(batch.ids, ids), "candidates were changed"
            assert np.array_equal(outcomes.scores, scores), "scores were changed"
            assert all(np.array_equal(outcomes.metrics[f"score{m}"], scores[:, m]) for m in range(self.objectives))

    def test_is_told_in_any_order(self) -> None:
        """Outcomes come in any subset and order, some of them never."""
        strategy = self._started()
        rng = np.random.default_rng(7)
        pending: list[Outcomes] = []
        given = 0
        for _ in range(60):
            if not strategy.exhausted:
                batch = strategy.ask(5)
                given += len(batch)
                pending += [self._scored(batch[row]) for row in range(len(batch))]
            rng.shuffle(pending)
            told, pending = pending[:3], pending[3:]
            if told:
                strategy.tell(Outcomes.join(told))
        assert given, f"{strategy!r} gave nothing"

    def test_never_told(self) -> None:
        """Without being told it gives candidates or nothing, and does not fail."""
        strategy = self._started()
        for _ in range(30):
            if strategy.exhausted:
                break
            strategy.ask(8)

    def test_scores_may_be_nan(self) -> None:
        """A run in which nothing ever gets a score goes on."""
        for status in (Status.FAILED, Status.INFEASIBLE):
            codes = self._drive(self.make(), n=4, outcomes=lambda batch, s=status: self._without_scores(batch, s))
            assert len(codes), "nothing was asked"

    def test_accepts_every_status(self) -> None:
        """Outcomes of every status are accepted, side by side, with and without scores."""
        statuses = list(Status)

        def mixed(batch: Candidates) -> Outcomes:
            outcomes = self._scored(batch)
            status = [statuses[i % len(statuses)] for i in batch.ids.tolist()]
            bare = [s in (Status.INFEASIBLE, Status.SKIPPED, Status.FAILED) for s in status]
            bad = np.array([s is Status.INFEASIBLE and i % 5 == 0 for s, i in zip(status, batch.ids, strict=True)])
            scores = np.where(np.array(bare)[:, None], np.nan, outcomes.scores)
            return outcomes.evolve(status=status, scores=np.where(bad[:, None], -1e9, scores))

        assert len(self._drive(self.make(), n=4, outcomes=mixed))

    def test_accepts_what_rides_along(self) -> None:
        """Further columns and metrics in the outcomes change nothing."""

        def loaded(batch: Candidates) -> Outcomes:
            plain = self._scored(batch.with_columns({"latency": np.full(len(batch), np.nan)}))
            metrics = {**plain.metrics, "seconds": np.ones(len(batch))}
            return Outcomes(plain.candidates, plain.status, plain.scores, metrics, ["fine"] * len(batch))

        plain = self._drive(self.make(), n=3)
        assert np.array_equal(plain, self._drive(self.make(), n=3, outcomes=loaded)), "riders changed the search"

    def test_adopts_foreign_outcomes(self) -> None:
        """Outcomes that it never asked for are accepted, before and between its own, those without scores too."""
        space = self.make_space()
        strategy = self._started(space)
        foreign = space.sample(40, np.random.default_rng(3)).with_ids(np.arange(40))
        strategy.adopt(self._scored(foreign[:20]))
        batch = strategy.ask(4)
        strategy.adopt(self._without_scores(foreign[20:30], Status.FAILED))
        strategy.adopt(self._scored(foreign[30:]))
        if len(batch):
            strategy.tell(self._scored(batch))
        assert strategy.exhausted or len(strategy.ask(4)), "gives nothing after adopting"

    def test_pickles_before_setup(self) -> None:
        """An object that is not set up can be pickled, and is configured alike afterwards."""
        strategy = self.make()
        copy = pickle.loads(pickle.dumps(strategy))
        assert type(copy) is type(strategy)
        assert repr(copy) == repr(strategy)

    def test_repr_names_the_configuration(self) -> None:
        """The repr has no addresses, is the same for objects configured alike, and does not change in a run."""
        strategy = self.make()
        before = repr(strategy)
        assert type(strategy).__name__ in before
        assert " at 0x" not in before, f"an address in {before}"
        assert repr(self.make()) == before
        self._drive(strategy, trials=20)
        assert repr(strategy) == before, "configuration lives in public attributes, state in those with an underscore"

    def test_gives_any_number(self) -> None:
        """At most as many as asked for, with ids of their own."""
        strategy = self._started()
        ids: list[int] = []
        for n in (1, 7, 64, 1, 64):
            if strategy.exhausted:
                break
            batch = strategy.ask(n)
            assert len(batch) <= n
            ids += batch.ids.tolist()
            if len(batch):
                strategy.tell(self._scored(batch))
        assert ids, f"{strategy!r} gave nothing"
        assert len(set(ids)) == len(ids), "an id was issued twice"

    def test_candidates_belong_to_the_space(self) -> None:
        """Candidates are canonical rows of the space."""
        space = self.make_space()
        codes = self._drive(self.make(), space, n=7, trials=200)
        assert np.array_equal(codes, space.canonical(codes)), "a candidate is not canonical: inactive choices are 0"
        assert codes.dtype == space.dtype

    def test_leaves_global_random_state_alone(self) -> None:
        """The generators of `random`, NumPy and torch are not touched."""
        import torch

        before = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
        self._drive(self.make(), trials=40, n=4)
        assert random.getstate() == before[0], "random's global state was touched"
        assert repr(np.random.get_state(legacy=False)) == repr(before[1]), "NumPy's global state was touched"
        assert torch.equal(torch.get_rng_state(), before[2]), "torch's global state was touched"

    def test_ends_or_goes_on_in_a_tiny_space(self) -> None:
        """Where there are few architectures it is exhausted at some time, or goes on with those that there are."""
        space = Space([Choice("a", (0, 1)), Choice("b", (0, 1), when={"a": 1})], name="tiny")
        strategy = self.make()
        codes = self._drive(strategy, space, trials=50, n=4)
        assert len(codes), "nothing was asked"
        assert len(codes) == 50 or strategy.exhausted
        if strategy.exhausted:
            assert not len(strategy.ask(1)), "it is exhausted and gives candidates all the same"

    def test_accepts_a_space_of_one(self) -> None:
        """A space with a single architecture is searched too."""
        space = Space([Choice("only", (3,)), Choice("other", ("x",), when={"only": 3})], name="one")
        codes = self._drive(self.make(), space, trials=10, n=2)
        assert len(codes) and not codes.any()


def _must_raise(error: type[Exception], call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except error:
        return
    raise AssertionError(f"{error.__name__} was to be raised, and was not")
