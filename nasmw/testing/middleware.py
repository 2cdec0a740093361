"""MiddlewareContract: the tests that every middleware has to pass."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.context import Context
from nasmw.errors import OrderError
from nasmw.middleware.chain import Chain
from nasmw.objective import Objective
from nasmw.space import Space
from nasmw.strategy import Middleware, Strategy, batch_of_none
from nasmw.testing.toy import TableProfiler, toy_space

__all__ = ["FiniteStrategy", "MiddlewareContract"]

RIDER = "contract_rider"
ENOUGH_ASKS = 5000
UNSCORED = (Status.FAILED, Status.INFEASIBLE, Status.SKIPPED)
TRIED = (Status.COMPLETED, Status.COMPLETED, Status.STOPPED)


class FiniteStrategy(Strategy):
    """Gives a limited number of random candidates with a column that rides along, and keeps all that went on.

    Args:
        number: After how many candidates it is exhausted.
        honours: What `offer` answers.
        distinct: Of how many draws the candidates are; None for a draw each.
    """

    def __init__(self, number: int, honours: bool = False, distinct: int | None = None) -> None:
        self.number = number
        self.honours = honours
        self.distinct = distinct

    def _setup(self, context: Context) -> None:
        self._rows: dict[int, bytes] = {}
        self._drawn = context.space.sample(self.distinct or self.number, context.rng)
        self._told: list[Outcomes] = []
        self._adopted: list[Outcomes] = []
        self._offered: list[object] = []
        self._batches: list[tuple[Candidates, Candidates]] = []

    @property
    def rows(self) -> dict[int, bytes]:
        """The row of codes of every candidate that was asked for, by id."""
        return self._rows

    @property
    def told(self) -> list[Outcomes]:
        """What it was told, in order."""
        return self._told

    @property
    def adopted(self) -> list[Outcomes]:
        """What it adopted, in order."""
        return self._adopted

    @property
    def offered(self) -> list[object]:
        """The limits that it was offered."""
        return self._offered

    @property
    def exhausted(self) -> bool:
        """Whether all candidates were given."""
        return len(self._rows) >= self.number

    def unchanged(self) -> bool:
        """Return whether every batch is still what it was when it was given."""
        return all(
            np.array_equal(batch.codes, copy.codes)
            and np.array_equal(batch.ids, copy.ids)
            and list(batch.columns) == [RIDER]
            and np.array_equal(batch.columns[RIDER], copy.columns[RIDER])
            for batch, copy in self._batches
        )

    def _ask(self, n: int) -> Candidates:
        n = min(n, self.number - len(self._rows))
        if not n:
            return batch_of_none(self.context.space)
        first = len(self._rows)
        ids = np.arange(first, first + n, dtype=np.int64)
        batch = self._drawn[ids % len(self._drawn)].with_ids(ids).with_columns({RIDER: ids * 0.5})
        copy = Candidates(batch.space, batch.codes.copy(), ids.copy(), {RIDER: ids * 0.5})
        self._batches.append((batch, copy))
        self._rows.update(zip(ids.tolist(), batch.row_keys(), strict=True))
        return batch

    def _tell(self, outcomes: Outcomes) -> None:
        self._told.append(outcomes)

    def _adopt(self, outcomes: Outcomes) -> None:
        self._adopted.append(outcomes)

    def _offer(self, term: object) -> bool:
        self._offered.append(term)
        return self.honours


class MiddlewareContract:
    """About twenty tests of what `Middleware` promises, for pytest; subclass it and make a middleware.

    Attributes:
        objectives: What the stage is set up with; scores are between 0 and 1.
        keeps_ids: Whether a candidate leaves under the id under which it came. False for a stage that makes several
            of one.
        pushes: Whether the stage offers limits of its own at its setup.

    Example:
        >>> from nasmw import Deduplicate
        >>> class TestMine(MiddlewareContract):
        ...     def make(self):
        ...         return Deduplicate()
        >>> TestMine().test_repr_is_stable()
    """

    objectives: ClassVar[tuple[Objective, ...]] = (Objective("accuracy"),)
    keeps_ids: ClassVar[bool] = True
    pushes: ClassVar[bool] = False

    def make(self) -> Middleware:
        """Return a new middleware, configured alike each time, not bound; it passes part of the space at least."""
        raise NotImplementedError(f"{type(self).__name__} must implement make(self), which returns a new middleware")

    def make_space(self) -> Space:
        """Return the space to search in; the toy space by default."""
        return toy_space()

    # -- driving ------------------------------------------------------------------------------------------------

    def _context(self, seed: int = 0) -> Context:
        return Context(self.make_space(), self.objectives, seed)

    def _started(self, number: int = 120, seed: int = 0, honours: bool = False) -> tuple[Strategy, FiniteStrategy]:
        inner = FiniteStrategy(number, honours)
        chain = Chain(inner, self.make())
        chain.setup(self._context(seed))
        return chain, inner

    def _outcomes(self, candidates: Candidates, status: list[Status], rng: np.random.Generator) -> Outcomes:
        values = rng.random((len(candidates), len(self.objectives)))
        tried = np.array([one in TRIED for one in status])
        values[~tried] = np.nan
        metrics = {objective.name: values[:, column] for column, objective in enumerate(self.objectives)}
        signs = np.array([-1.0 if objective.minimized else 1.0 for objective in self.objectives])
        return Outcomes(candidates, status, values * signs, metrics, [""] * len(candidates))

    def _run(
        self,
        chain: Strategy,
        *,
        seed: int = 0,
        most: int = 4,
        statuses: tuple[Status, ...] = (*TRIED, *TRIED, *UNSCORED),
    ) -> list[Outcomes]:
        """Ask and tell at random until the chain is exhausted and nothing is pending; return what it was told."""
        rng = np.random.default_rng(seed)
        pending: list[Candidates] = []
        told: list[Outcomes] = []
        for _ in range(ENOUGH_ASKS):
            batch = chain.ask(n) if (n := int(rng.integers(1, most + 1))) and not chain.exhausted else None
            if batch is not None:
                assert len(batch) <= n, f"{n} were asked for, {len(batch)} came"
                pending += [batch[row] for row in range(len(batch))]
            if not pending:
                if chain.exhausted:
                    return told
                assert batch is None or len(batch), f"deadlock: {chain!r} gives nothing, and nothing is pending"
                continue
            number = int(rng.integers(0 if batch is not None and len(batch) else 1, len(pending) + 1))
            rows = rng.permutation(len(pending))[:number]
            if number:
                status = [statuses[int(rng.integers(len(statuses)))] for _ in rows]
                outcomes = self._outcomes(Candidates.join([pending[row] for row in rows]), status, rng)
                told.append(outcomes)
                chain.tell(outcomes)
                pending = [one for row, one in enumerate(pending) if row not in set(rows.tolist())]
        raise AssertionError(f"{chain!r} is not exhausted after {ENOUGH_ASKS} asks, although the inner strategy is")

    # -- order --------------------------------------------------------------------------------------------------

    def test_is_out_of_order_before_it_is_bound(self) -> None:
        """Without a strategy inside, and before `setup`, it is an OrderError to use it."""
        _must_be_out_of_order(lambda: self.make().ask(1))
        _must_be_out_of_order(lambda: self.make().setup(self._context()))
        _must_be_out_of_order(lambda: Chain(FiniteStrategy(5), self.make()).ask(1))

    def test_refuses_ids_that_are_not_pending(self) -> None:
        """Telling what was not asked, or twice, is an OrderError."""
        chain, _ = self._started()
        batch = chain.ask(1)
        outcomes = self._outcomes(batch, [Status.COMPLETED], np.random.default_rng(0))
        strange = outcomes.evolve(candidates=batch.with_ids(batch.ids + 10**6))
        _must_be_out_of_order(lambda: chain.tell(strange))
        chain.tell(outcomes)
        _must_be_out_of_order(lambda: chain.tell(outcomes))

    # -- on the way to training ---------------------------------------------------------------------------------

    def test_candidates_are_those_of_the_inner_strategy(self) -> None:
        """What passes is what the inner strategy gave: the same codes, under the same id, with the same columns."""
        chain, inner = self._started()
        told = self._run(chain)
        assert told, f"{chain!r} let nothing pass"
        for outcomes in told:
            candidates = outcomes.candidates
            assert RIDER in candidates.columns, "a column that rode along is lost"
            if self.keeps_ids:
                assert candidates.row_keys() == [inner.rows[i] for i in candidates.ids.tolist()]
                assert np.array_equal(candidates.columns[RIDER], candidates.ids * 0.5)
            else:
                assert set(candidates.row_keys()) <= set(inner.rows.values())

    def test_leaves_candidates_alone(self) -> None:
        """The batches of the inner strategy are not changed in place."""
        chain, inner = self._started()
        self._run(chain)
        assert inner.unchanged()

    def test_any_number_may_be_asked_for(self) -> None:
        """Single candidates and many: never more than asked for, and something comes."""
        for most in (1, 2, 17):
            chain, _ = self._started()
            assert self._run(chain, most=most), f"{chain!r} let nothing pass"

    def test_each_candidate_is_told_once(self) -> None:
        """Everything that the inner strategy gave is told to it exactly once, turned away or tried."""
        chain, inner = self._started()
        self._run(chain)
        ids = [i for outcomes in inner.told for i in outcomes.ids.tolist()]
        assert len(set(ids)) == len(ids), "an id was told twice"
        assert set(ids) == set(inner.rows), "an id was never told"

    def test_counts_who_is_turned_away(self) -> None:
        """The funnel counts as many as were told without having been tried."""
        inner = FiniteStrategy(120)
        chain = Chain(inner, self.make())
        context = self._context()
        chain.setup(context)
        tried = {i for outcomes in self._run(chain) for i in outcomes.ids.tolist()}
        if self.keeps_ids:
            assert sum(context.funnel.counts.values()) == len(set(inner.rows) - tried)
        assert all(cause for _, _, cause in context.funnel.counts), "a cause is empty"

    def test_ends_with_the_inner_strategy(self) -> None:
        """Where the inner strategy gives one candidate, or two, the chain ends, without a deadlock."""
        for number in (1, 2):
            chain, inner = self._started(number)
            self._run(chain)
            assert chain.exhausted
            assert len(inner.rows) == number

    def test_may_be_given_the_same_again_and_again(self) -> None:
        """A strategy that has two architectures only is asked until the chain ends."""
        inner = FiniteStrategy(40, distinct=2)
        chain = Chain(inner, self.make())
        chain.setup(self._context())
        self._run(chain)
        assert chain.exhausted

    # -- on the way back ----------------------------------------------------------------------------------------

    def test_metrics_are_never_changed(self) -> None:
        """The inner strategy sees the metrics of a trial as the evaluation returned them."""
        chain, inner = self._started()
        told = self._run(chain)
        if not self.keeps_ids:
            return
        seen = {
            i: (outcomes.status[row], {name: column[row] for name, column in outcomes.metrics.items()})
            for outcomes in inner.told
            for row, i in enumerate(outcomes.ids.tolist())
        }
        for outcomes in told:
            for row, i in enumerate(outcomes.ids.tolist()):
                assert seen[i][0] == outcomes.status[row], "the status of a trial was changed"
                for name, column in outcomes.metrics.items():
                    assert np.array_equal(seen[i][1][name], column[row], equal_nan=True), f"metric {name!r} was changed"

    def test_leaves_outcomes_alone(self) -> None:
        """The outcomes that it is told are not changed in place."""
        chain, _ = self._started()
        batch = chain.ask(3)
        outcomes = self._outcomes(batch, [Status.COMPLETED] * len(batch), np.random.default_rng(0))
        before = outcomes.scores.copy(), batch.codes.copy(), sorted(batch.columns)
        chain.tell(outcomes)
        assert np.array_equal(outcomes.scores, before[0])
        assert np.array_equal(outcomes.codes, before[1])
        assert sorted(outcomes.candidates.columns) == before[2]

    def test_scores_fit_the_inner_strategy(self) -> None:
        """The inner strategy is told one score for each of its objectives; infinite ones never."""
        chain, inner = self._started()
        self._run(chain)
        for outcomes in inner.told:
            assert outcomes.scores.shape == (len(outcomes), len(inner.context.objectives))
            assert not np.isinf(outcomes.scores).any()

    def test_scores_may_be_missing(self) -> None:
        """Trials without a score are told without one; the run goes on."""
        chain, inner = self._started()
        told = self._run(chain, statuses=(Status.FAILED,))
        tried = {i for outcomes in told for i in outcomes.ids.tolist()}
        for outcomes in inner.told:
            for row, i in enumerate(outcomes.ids.tolist()):
                assert np.isnan(outcomes.scores[row]).all() or i not in tried, "a failed trial was told a score"

    def test_adopts_foreign_outcomes(self) -> None:
        """Outcomes of an earlier run reach the inner strategy, before and between those of its own."""
        chain, inner = self._started()
        rng = np.random.default_rng(3)
        foreign = chain.context.space.sample(8, rng).with_ids(np.arange(8))
        status = [Status.COMPLETED, Status.FAILED, Status.INFEASIBLE, Status.STOPPED] * 2
        chain.adopt(self._outcomes(foreign, status, rng))
        assert sum(len(outcomes) for outcomes in inner.adopted) == 8
        self._run(chain)
        chain.adopt(self._outcomes(foreign, status, rng))
        assert sum(len(outcomes) for outcomes in inner.adopted) == 16

    # -- offers -------------------------------------------------------------------------------------------------

    def test_hands_offers_down_if_transparent(self) -> None:
        """A limit offered from above reaches the inner strategy where candidates pass unchanged, and nowhere else."""
        for honours in (False, True):
            chain, inner = self._started(honours=honours)
            own = len(inner.offered)
            assert bool(own) == self.pushes, "`pushes` says whether the stage offers limits of its own"
            limit = TableProfiler(chain.context.space, name="offered") <= 10**6
            transparent = chain.stages[-1].transparent  # type: ignore[attr-defined]
            assert chain.offer(limit) == (honours and transparent)
            assert inner.offered[own:] == ([limit] if transparent else [])

    # -- determinism --------------------------------------------------------------------------------------------

    def _trace(self, chain: Strategy, inner: FiniteStrategy) -> list[object]:
        told = self._run(chain)
        return [
            *((outcomes.ids.tolist(), outcomes.candidates.row_keys()) for outcomes in told),
            *((outcomes.ids.tolist(), outcomes.scores.tobytes(), outcomes.reasons) for outcomes in inner.told),
        ]

    def test_same_seed_same_course(self) -> None:
        """Two objects configured alike take the same course, whatever the global random state."""
        random.seed(1)
        first = self._trace(*self._started(seed=5))
        random.seed(2)
        assert self._trace(*self._started(seed=5)) == first

    def test_setup_starts_afresh(self) -> None:
        """A second `setup` forgets the first run, finished or not."""
        chain, inner = self._started(seed=5)
        first = self._trace(chain, inner)
        chain.setup(self._context(5))
        chain.ask(3)
        chain.setup(self._context(5))
        assert not inner.rows
        assert self._trace(chain, inner) == first

    def test_pickles_before_setup(self) -> None:
        """An object that is not set up can be pickled; the copy takes the same course."""
        copy = pickle.loads(pickle.dumps(Chain(FiniteStrategy(120), self.make())))
        assert repr(copy) == repr(Chain(FiniteStrategy(120), self.make()))
        copy.setup(self._context(5))
        assert self._trace(copy, copy.stages[0]) == self._trace(*self._started(seed=5))

    def test_repr_is_stable(self) -> None:
        """The repr names the class, has no addresses, is the same for objects configured alike, before and after."""
        stage = self.make()
        before = repr(stage)
        assert before.startswith(type(stage).__name__)
        assert " at 0x" not in before, f"an address in {before}"
        assert repr(self.make()) == before
        chain = Chain(FiniteStrategy(20), stage)
        chain.setup(self._context())
        self._run(chain)
        assert repr(stage) == before, "configuration lives in public attributes, state in those with an underscore"

    def test_leaves_global_random_state_alone(self) -> None:
        """The generators of `random` and NumPy are not touched."""
        before = random.getstate(), repr(np.random.get_state(legacy=False))
        chain, _ = self._started()
        self._run(chain)
        assert (random.getstate(), repr(np.random.get_state(legacy=False))) == before


def _must_be_out_of_order(call: Callable[[], object]) -> None:
    try:
        call()
    except OrderError:
        return
    raise AssertionError("OrderError was to be raised, and was not")
