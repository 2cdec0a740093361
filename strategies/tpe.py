"""TPE: what the good architectures have more often than the others."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nasmw.candidates import Candidates, Codes, Floats, Outcomes, Status
from nasmw.context import Context
from nasmw.strategies.arguments import one_objective, positive, share, whole
from nasmw.strategies.encoding import Options, Rows
from nasmw.strategies.pool import Pooled
from nasmw.strategy import batch_of_none

__all__ = ["TPE"]

BAD = (Status.FAILED, Status.INFEASIBLE)


class TPE(Pooled):
    """Tree-structured Parzen estimator: draws what good architectures have often, and asks for what the others lack.

    Of the architectures that were told with a score, the best share `gamma` is good. For each choice, `l` says how
    often good ones have each option, and `g` how often all others do, those that failed, were infeasible or are not
    told yet among them; architectures count only for choices that are active in them. Of `candidates` architectures
    drawn from `l`, choice by choice, it asks for the one with the greatest `l` / `g`. No architecture is asked for
    twice; once nothing new is left, the strategy is exhausted.

    Args:
        startup: The number of random architectures to begin with.
        gamma: The share of good ones.
        most: The greatest number of good ones.
        candidates: How many are drawn from `l` for each that is asked for.
        prior: What is added to the count of each option; the greater, the more random.

    Limits on profilers with a table that are offered to it are met by construction: random architectures are uniform
    over those within them, drawn ones beyond them do not compete, and where all are beyond, the first one is changed
    in as few choices as bring it within them.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range; at `setup` if there are several objectives.

    Reference: Bergstra, Bardenet, Bengio, Kégl, Algorithms for Hyper-Parameter Optimization, NeurIPS 2011, section 4.
    Deviations: choices are categorical throughout; there is a greatest number of good ones; what is not told yet counts
    among the others, so that open candidates differ; nothing is asked for twice.

    Example:
        >>> from nasmw.strategies import TPE
        >>> TPE(startup=20)
        TPE(startup=20, gamma=0.15, most=25, candidates=24, prior=1.0)
    """

    def __init__(
        self, startup: int = 10, gamma: float = 0.15, most: int = 25, candidates: int = 24, prior: float = 1.0
    ) -> None:
        self.startup = whole("TPE", "startup", startup)
        self.gamma = share("TPE", "gamma", gamma)
        self.most = whole("TPE", "most", most)
        self.candidates = whole("TPE", "candidates", candidates)
        self.prior = positive("TPE", "prior", prior)

    def _setup(self, context: Context) -> None:
        one_objective("TPE", context)
        super()._setup(context)
        self._options = Options(context.space)
        self._told = Rows(len(context.space))
        self._open: set[bytes] = set()
        self._counts = np.zeros(self._options.total + 1)
        self._good: Floats | None = None

    def _ask(self, n: int) -> Candidates:
        rows: list[Codes] = []
        while len(rows) < n:
            row = self._pool.random() if len(self._told) < self.startup else self._best_drawn()
            if row is None:
                break
            self._pool.note(row)
            self._open.add(row.tobytes())
            self._counts[self._options.numbers(row)] += 1.0
            rows.append(row)
        space = self.context.space
        return Candidates.of(space, np.concatenate(rows)) if rows else batch_of_none(space)

    def _best_drawn(self) -> Codes | None:
        """Return the drawn architecture, ``(1, d)``, with the greatest l / g that was not asked for yet."""
        good = self._good_counts()
        likely = np.log(good[:-1] + self.prior)
        gain = likely - np.log(np.maximum(self._counts - good, 0.0)[:-1] + self.prior)
        # The normalisations of l and g by choice; they matter as architectures differ in which choices are active.
        likely, gain = np.exp(likely), gain - self._log_totals(good) + self._log_totals(self._counts - good)
        drawn = self._options.draw(likely, self.candidates, self._rng)
        values = np.append(gain, 0.0)[self._options.numbers(drawn)].sum(axis=1)
        drawn = drawn[np.argsort(-np.round(values, 8), kind="stable")]
        within = self._pool.holds(drawn).tolist()
        for place, holds in enumerate(within):
            if holds and self._pool.is_new(drawn[place]):
                return drawn[place : place + 1]
        space = self.context.space
        best = self._pool.repaired(drawn[:1])
        return best if self._pool.is_new(best) else self._pool.child(best, lambda row: space.mutate(row, self._rng))

    def _log_totals(self, counts: Floats) -> Floats:
        """Return for each option the logarithm of the sum over all options of its choice."""
        return np.log(self._options.sums(counts[:-1] + self.prior))

    def _good_counts(self) -> Floats:
        """Return how many good architectures have each option, ``(options + 1,)``; the last entry counts nothing."""
        if self._good is None:
            n = len(self._told)
            number = min(max(math.ceil(self.gamma * n), 1), self.most, n)
            scores = self._told.scores
            least = np.partition(scores, n - number)[n - number]
            above = np.flatnonzero(scores > least)
            best = np.append(above, np.flatnonzero(scores == least)[: number - len(above)])
            found: npt.NDArray[np.intp] = self._told.numbers[best]
            self._good = np.bincount(found.ravel(), minlength=self._options.total + 1).astype(np.float64)
        return self._good

    def _tell(self, outcomes: Outcomes) -> None:
        self._good = None
        self._pool.note(outcomes.codes)
        for number, score in enumerate(outcomes.scores[:, 0].tolist()):
            row = outcomes.codes[number : number + 1]
            options = self._options.numbers(row)
            asked = row.tobytes() in self._open
            self._open.discard(row.tobytes())
            scored = score == score
            if scored:
                self._told.add(options[0], score)
            # Counted when it was asked for; what says nothing of the architecture itself does not count.
            counts = scored or outcomes.status[number] in BAD
            self._counts[options] += float(counts) - float(asked)
