"""Strategy and Middleware: what every stage of a search promises."""

from __future__ import annotations

import collections
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt

from nasmw.candidates import NO_ID, Candidates, Codes, Floats, Outcomes, Status
from nasmw.constraint import Constraint
from nasmw.context import Context, Recorded
from nasmw.errors import OrderError
from nasmw.penalty import Penalty
from nasmw.profiler import Profiler
from nasmw.space import Space

__all__ = ["Middleware", "Strategy", "Verdict", "batch_of_none", "describe"]


class Strategy(ABC):
    """Is asked for candidates and told outcomes; maximises the scores that it is told.

    The public methods are final: they check and count. A subclass implements `_setup` (make all state of a run; also
    called when the same object starts another run), `_ask` and `_tell`, and may override `_offer`, `_offer_penalty`,
    `exhausted`.
    Attributes without a leading underscore are the configuration: they show in `repr`, which names the stage in the
    log, and must not change once set.

    A strategy that has to learn before it can be asked, such as one that trains a supernet, implements `_train`; a
    Search calls it once, after `setup` and before the first `ask`.

    A strategy is a deterministic function of its configuration, its generator and what it was told: no clock, no
    global random state, no iteration over a set. It must accept outcomes with NaN scores, of any subset of what it
    asked and in any order, and outcomes of candidates that it never asked (`adopt`).
    """

    _context: Context | None = None
    # What the base class counts has mangled names, so that no subclass can have one of the same name.
    __first_given: int = 0

    @property
    def stages(self) -> tuple[Strategy, ...]:
        """The stages that this one consists of, the innermost first."""
        return (self,)

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profilers that this stage consults."""
        return ()

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={describe(value)}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({shown})"

    # -- what a subclass implements -----------------------------------------------------------------------------

    def _setup(self, context: Context) -> None:
        """Make all state of a run afresh."""

    def _train(self, context: Context) -> None:
        """Do what must be done before the first ask; limits and penalties have been offered by then."""

    @abstractmethod
    def _ask(self, n: int) -> Candidates:
        """Return up to `n` candidates, without ids (`Candidates.of`) or with the ids of the stage that issued them."""

    @abstractmethod
    def _tell(self, outcomes: Outcomes) -> None:
        """Take note of outcomes; each was asked once, or comes from an earlier run."""

    def _offer(self, term: Constraint) -> bool:
        """Return whether every candidate asked from now on will satisfy the term."""
        return False

    def _offer_penalty(self, penalty: Penalty) -> bool:
        """Return whether the penalty is part of what this stage learns, besides the scores that it is told."""
        return False

    # -- what others call ---------------------------------------------------------------------------------------

    @property
    def context(self) -> Context:
        """What `setup` was given.

        Raises:
            OrderError: Before `setup`.
        """
        if self._context is None:
            raise OrderError(f"{type(self).__name__} was asked or told before setup(context); a Search does that")
        return self._context

    @property
    def exhausted(self) -> bool:
        """Whether no outcome could ever make this stage give another candidate."""
        return False

    @property
    def message(self) -> str:
        """Why this stage ended the run; empty where it did not."""
        return ""

    @property
    def given(self) -> int:
        """The number of candidates given in this run."""
        return self.__given

    @property
    def pending(self) -> int:
        """The number of candidates given and not yet told of."""
        return len(self.__pending)

    def take_first(self) -> int:
        """Return a checksum of the first candidate given since the last call; 0 where none was."""
        checksum: int = self.__first_given
        self.__first_given = 0
        return checksum

    @property
    def honoured(self) -> tuple[Constraint, ...]:
        """The limits that the stages below promised this one to keep, as numbers."""
        return ()

    def setup(self, context: Context) -> None:
        """Start a run: forget the last one's state."""
        self._context = context
        self.__next_id = 0
        self.__pending: set[int] = set()
        self.__given = 0
        self.__first_given = 0
        self._setup(context)

    def train(self, context: Context) -> None:
        """Do what must be done once before the first ask, such as training a supernet; a Search calls it.

        Args:
            context: What `setup` was given.

        Raises:
            OrderError: Before `setup`.
        """
        self.context  # noqa: B018  raises before setup
        self._train(context)

    def ask(self, n: int) -> Candidates:
        """Return up to `n` candidates with ids; fewer, or none, means "not before I am told more".

        Raises:
            OrderError: Before `setup`, or if the subclass gives more than `n` or issues an id twice.
        """
        context = self.context
        if n < 1:
            raise ValueError(f"ask takes a number of candidates of at least 1, got {n!r}")
        batch = self._ask(n)
        size = batch.codes.shape[0]
        if size > n:
            raise OrderError(f"{type(self).__name__} was asked for {n} candidates and gave {size}")
        if size and batch.space is not context.space:
            raise OrderError(
                f"{type(self).__name__} gave candidates of {batch.space!r}; the run is on {context.space!r}"
            )
        if size and batch.ids[0] == NO_ID:
            batch = batch.with_ids(np.arange(self.__next_id, self.__next_id + size, dtype=np.int64))
            self.__next_id += size
        ids = batch.ids.tolist()
        before = len(self.__pending)
        self.__pending.update(ids)
        if size and not self.__first_given:
            self.__first_given = zlib.crc32(batch.codes[0].tobytes()) + 1
        self.__given += size
        if len(self.__pending) != before + size:
            raise OrderError(f"{type(self).__name__} issued an id that is pending already, among {ids}")
        return batch

    def tell(self, outcomes: Outcomes) -> None:
        """Take note of outcomes of candidates that were asked, matched by id, each once.

        Raises:
            OrderError: If an id is not pending, or scores do not fit the objectives.
        """
        if not len(outcomes):
            return
        context = self.context
        ids = outcomes.ids.tolist()
        pending = self.__pending
        if not pending.issuperset(ids):
            unknown = [i for i in ids if i not in pending]
            raise OrderError(f"{type(self).__name__} was told of ids {unknown}, which are not pending")
        if len(ids) > 1 and len(set(ids)) < len(ids):
            raise OrderError(f"{type(self).__name__} was told twice of one id, among {ids}")
        if outcomes.scores.shape[1] != len(context.objectives):
            raise OrderError(
                f"{type(self).__name__} was told {outcomes.scores.shape[1]} scores a candidate; "
                f"its objectives are {[str(objective) for objective in context.objectives]}"
            )
        pending.difference_update(ids)
        self._tell(outcomes)

    def adopt(self, outcomes: Outcomes) -> None:
        """Take note of outcomes that this stage never asked, such as those of an earlier run; ids are issued anew."""
        self.context  # noqa: B018  raises before setup
        ids = np.arange(self.__next_id, self.__next_id + len(outcomes), dtype=np.int64)
        self.__next_id += len(outcomes)
        self._adopt(outcomes.evolve(candidates=outcomes.candidates.with_ids(ids)))

    def _adopt(self, outcomes: Outcomes) -> None:
        self._tell(outcomes)

    def offer(self, term: Constraint | Penalty) -> bool:
        """Offer a limit or a penalty downward; True means honoured. Terms accumulate.

        Every candidate asked from now on satisfies a limit that is honoured; a penalty that is honoured is part of what
        the strategy learns by itself, besides the scores that it is told.
        """
        if self._context is None:
            raise OrderError(f"{type(self).__name__} was offered {term!r} before setup(context)")
        return self._offer_penalty(term) if isinstance(term, Penalty) else self._offer(term)


@attrs.frozen(eq=False)
class Verdict:
    """What a middleware says of candidates on their way to training.

    Attributes:
        passes: ``(n,)`` which of them pass.
        causes: For each of them, one short text that the funnel counts by; read where it does not pass.
        reasons: For each of them, one sentence with the numbers; the causes by default.
        status: What those who do not pass are told.
        score: The score that they are told, one number or ``(m,)``, one per objective; NaN for none.
        columns: Named ``(n,)`` columns that ride along with them all.
        held: ``(n,)`` which of them are neither passed nor turned away: the stage tells them itself, now or later.
    """

    passes: npt.NDArray[np.bool_]
    causes: Sequence[str] = ()
    reasons: Sequence[str] | None = None
    status: Status = Status.INFEASIBLE
    score: float | Floats = np.nan
    columns: dict[str, Floats] = attrs.field(factory=dict)
    held: npt.NDArray[np.bool_] | None = None


class Middleware(Strategy):
    """A strategy around a strategy: decides which candidates pass, or what the strategy is told.

    An author overrides one hook. `_screen` is called with candidates on their way to training and says which pass;
    the rest are told to the inner strategy at once, which is asked again, until enough have passed or `patience`
    candidates in a row were turned away. `_amend` is called with outcomes on their way back and gives what the inner
    strategy is told in their place; metrics stay as they are. Whoever needs more overrides `_ask` and `_tell`.

    A middleware is bound to its inner strategy by a `Chain`.
    """

    transparent: ClassVar[bool] = True
    """Whether candidates that pass are passed on unchanged, so that limits may be offered to the stages below."""
    patience: int | None = 100_000
    """How many candidates in a row may be kept from passing before the run ends; None for any number."""
    _inner: Strategy | None = None
    _message: str = ""

    # -- what a subclass implements -----------------------------------------------------------------------------

    def _screen(self, candidates: Candidates) -> Verdict:
        """Say which candidates pass; all of them by default."""
        return Verdict(np.ones(len(candidates), dtype=np.bool_))

    def _amend(self, outcomes: Outcomes) -> Outcomes:
        """Return what the inner strategy is told; the outcomes themselves by default."""
        return outcomes

    def _must_wait(self) -> bool:
        """Return whether to ask the inner strategy for no more before this stage is told something."""
        return False

    def _out_of_patience(self) -> str:
        """Return the message that ends the run once too many in a row were turned away."""
        return f"{self.context.stage} turned away {self._in_a_row} candidates in a row"

    def inner_context(self, context: Context) -> Context:
        """Return what the inner strategy is given; a stage that changes the objectives overrides this."""
        return context

    # -- the rest -----------------------------------------------------------------------------------------------

    @property
    def inner(self) -> Strategy:
        """The strategy that this stage wraps.

        Raises:
            OrderError: Before a chain has bound one.
        """
        if self._inner is None:
            name = type(self).__name__
            raise OrderError(f"{name} wraps no strategy; write Chain(strategy, {name}(...))")
        return self._inner

    def bind(self, inner: Strategy) -> None:
        """Wrap a strategy; a `Chain` does that at its setup."""
        self._inner = inner

    def setup(self, context: Context) -> None:
        """Start a run; the inner strategy has been set up before."""
        self._message = ""
        self._in_a_row = 0
        self.inner  # noqa: B018  raises where there is none
        super().setup(context)

    @property
    def exhausted(self) -> bool:
        """Whether this stage has ended the run, or the inner strategy is exhausted."""
        return bool(self._message) or self.inner.exhausted

    @property
    def message(self) -> str:
        """Why this stage, or one below it, ended the run."""
        return self._message or self.inner.message

    def _end(self, message: str) -> None:
        self._message = message

    def _ask(self, n: int) -> Candidates:
        if type(self)._screen is Middleware._screen:
            return self.inner.ask(n)
        passed: list[Candidates] = []
        wanted = n
        while wanted and not self._message and not self._must_wait():
            batch = self.inner.ask(wanted)
            if not len(batch):
                break
            batch = self.screen(batch)
            if len(batch):
                passed.append(batch)
                wanted -= len(batch)
            elif self.patience is not None and self._in_a_row >= self.patience:
                self._end(self._out_of_patience())
        return Candidates.join(passed) if passed else batch_of_none(self.context.space)

    def screen(self, candidates: Candidates) -> Candidates:
        """Apply `_screen`: tell the inner strategy of those turned away, count them, return those that pass."""
        verdict = self._screen(candidates)
        if verdict.columns:
            candidates = candidates.with_columns(verdict.columns)
        # Lists: most batches have one row, where NumPy's fixed cost per call is most of the time.
        passes: list[bool] = verdict.passes.tolist()
        n = len(passes)
        if all(passes):
            self._in_a_row = 0
            return candidates
        passing = [row for row in range(n) if passes[row]]
        self._in_a_row = n - 1 - passing[-1] if passing else self._in_a_row + n
        held: list[bool] = [False] * n if verdict.held is None else verdict.held.tolist()
        rows = [row for row in range(n) if not passes[row] and not held[row]]
        if rows:
            causes = [verdict.causes[row] for row in rows]
            reasons = None if verdict.reasons is None else [verdict.reasons[row] for row in rows]
            away = candidates if len(rows) == n else candidates[rows]
            self.turn_away(away, verdict.status, causes, reasons, verdict.score)
        return candidates[passing] if passing else candidates[:0]

    def turn_away(
        self,
        candidates: Candidates,
        status: Status,
        causes: Sequence[str],
        reasons: Sequence[str] | None = None,
        score: float | Floats = np.nan,
    ) -> None:
        """Count candidates that do not pass in the funnel, and tell the inner strategy of them.

        Args:
            candidates: Who does not pass, under the ids of the inner strategy.
            status: What they are told.
            causes: One short text each, which the funnel counts by.
            reasons: One sentence each; the causes by default.
            score: As in a `Verdict`.
        """
        context = self.context
        for cause, number in collections.Counter(causes).items():
            context.funnel.add(context.stage, str(status), cause, number)
        self.tell_inner(Outcomes.turned_away(candidates, status, reasons or causes, self._inner_scores, score))

    @property
    def _inner_scores(self) -> int:
        return len(self.inner.context.objectives)

    def tell_inner(self, outcomes: Outcomes) -> None:
        """Tell the inner strategy."""
        self.inner.tell(outcomes)

    def _tell(self, outcomes: Outcomes) -> None:
        self.inner.tell(self._amend(outcomes))

    def _adopt(self, outcomes: Outcomes) -> None:
        self.inner.adopt(self._amend(outcomes))

    def _offer(self, term: Constraint) -> bool:
        return self.transparent and self.inner.offer(term)

    def _offer_penalty(self, penalty: Penalty) -> bool:
        return self.transparent and self.inner.offer(penalty)


def batch_of_none(space: Space) -> Candidates:
    """Return a table of no candidates."""
    codes: Codes = np.zeros((0, len(space)), dtype=space.dtype)
    return Candidates.of(space, codes)


def describe(value: Any) -> str:
    """Return a text of a configuration value that is the same in every process: no addresses."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(describe(item) for item in value)}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(describe(item) for item in value))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {describe(item)}' for key, item in value.items())}}}"
    if isinstance(value, (Profiler, Constraint, Strategy)) or value is None:
        return repr(value)
    if isinstance(value, Recorded):
        return f"recorded {value.name}"
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text
