"""PredictorGuided: a Gaussian process says which children of the best are worth a trial."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import Literal

import numpy as np

from nasmw.candidates import Candidates, Codes, Floats, Outcomes
from nasmw.context import Context
from nasmw.profiler import Profiler, check_names
from nasmw.strategies.arguments import one_objective, whole
from nasmw.strategies.drawing import Independent
from nasmw.strategies.encoding import Options
from nasmw.strategies.gaussian import GaussianProcess
from nasmw.strategies.pool import Pooled
from nasmw.strategy import batch_of_none

__all__ = ["PredictorGuided"]

RANDOM_SHARE = 0.1
SCALED_ON = 256
FAR_BELOW = -15.0
"""So many standard deviations below the best, the expected improvement is taken from a series."""
REPAIRED = 2
"""How many children beyond the limits are brought within them for each ask, which takes long beside the rest."""


class PredictorGuided(Pooled):
    """Asks for the child of the best architectures that a Gaussian process promises most of.

    After `startup` random architectures, each one that is asked for is chosen from `candidates` ones: children of the
    `parents` best architectures told so far, three of four with one change and the rest with more, and a tenth of
    random ones. A Gaussian process on one-hot encodings, and on `features` where there are any, learned from what was
    told with a score, predicts each of them. No architecture is asked for twice, and of those that are one function
    (`Space.function_keys`) a second one only where it finds nothing else; once nothing new is left, the strategy is
    exhausted.

    Args:
        startup: The number of random architectures to begin with.
        candidates: How many are predicted for each that is asked for.
        parents: How many of the best have children.
        acquisition: How predictions choose: ``"improvement"`` (the expected improvement over the best so far) or
            ``"thompson"`` (one draw from each prediction, so that what is open at the same time differs).
        observations: How many observations predictions are made from; beyond, the best half and the latest others.
        features: Profilers whose values help to predict scores, such as the number of parameters: two networks are
            near each other where their values are, too. How much that tells is learned, apart from the choices.

    An ask costs O(observations² · candidates); it does not grow with the number of trials beyond that.

    Limits on profilers with a table that are offered to it are met by construction: random architectures are uniform
    over those within them, and of the children beyond them two are changed in as few choices as bring them within; the
    others are left out.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range, `acquisition` is another word, or a feature is measured on a device
            or learned in the run; at `setup` if there are several objectives.

    Reference: White, Neiswanger, Savani, BANANAS: Bayesian Optimization with Neural Architectures for Neural
    Architecture Search, AAAI 2021, section 5 and algorithm 1. Deviations: a Gaussian process on normal scores of ranks
    stands for the ensemble of neural networks, one-hot choices for the encoding of paths; one candidate is chosen at a
    time, with the outcomes told by then; features of profilers are an addition.

    Example:
        >>> from nasmw.strategies import PredictorGuided
        >>> PredictorGuided(startup=20).acquisition
        'improvement'
    """

    def __init__(
        self,
        startup: int = 10,
        candidates: int = 100,
        parents: int = 5,
        acquisition: Literal["improvement", "thompson"] = "improvement",
        observations: int = 256,
        features: Profiler | Iterable[Profiler] = (),
    ) -> None:
        self.startup = whole("PredictorGuided", "startup", startup)
        self.candidates = whole("PredictorGuided", "candidates", candidates)
        self.parents = whole("PredictorGuided", "parents", parents)
        if acquisition not in ("improvement", "thompson"):
            raise ValueError(f"PredictorGuided: acquisition is 'improvement' or 'thompson', got {acquisition!r}")
        self.acquisition = acquisition
        self.observations = whole("PredictorGuided", "observations", observations, least=2)
        self.features = (features,) if isinstance(features, Profiler) else tuple(features)
        for profiler in check_names(self.features).values():
            if not profiler.fixed:
                raise ValueError(
                    f"PredictorGuided asks features of many architectures that are never tried, and {profiler!r} is "
                    f"{profiler.kind}, not fixed; take a profiler that computes, or rank by this one with Rank"
                )

    @property
    def profilers(self) -> tuple[Profiler, ...]:
        """The profilers of the features."""
        return self.features

    def _setup(self, context: Context) -> None:
        one_objective("PredictorGuided", context)
        super()._setup(context)
        self._options = Options(context.space)
        others = len(self.features)
        self._process = GaussianProcess(self.observations, self._options.total + others, others)
        self._scales: list[tuple[float, float]] = []
        for profiler in self.features:
            values = context.profile(profiler, context.space.sample(SCALED_ON, np.random.default_rng(0)))
            self._scales.append((float(values.mean()), float(values.std()) or 1.0))
        self._functions: set[Hashable] = set()
        self._told: list[Codes] = []
        self._drawn: Independent | None = None

    def _ask(self, n: int) -> Candidates:
        rows: list[Codes] = []
        while len(rows) < n:
            row = self._pool.random() if len(self._told) < self.startup else self._promising()
            if row is None:
                break
            self._note(row)
            rows.append(row)
        space = self.context.space
        return Candidates.of(space, np.concatenate(rows)) if rows else batch_of_none(space)

    def _promising(self) -> Codes | None:
        """Return the candidate, ``(1, d)``, that is promised most of; None where nothing is left."""
        space, rng = self.context.space, self._rng
        self._process.update()
        best = np.concatenate([self._told[place] for place in self._process.top(self.parents)])
        children = self._children(best)
        first: dict[bytes, int] = {}
        for place, row in enumerate(children):
            first.setdefault(row.tobytes(), place)
        new = [place for place in first.values() if self._pool.is_new(children[place])]
        if not new:
            return self._pool.child(best[:1], lambda row: space.mutate(row, rng))
        children = children[new]
        mean, spread = self._process.predict(self._encoded(children))
        if self.acquisition == "thompson":
            promise = mean + spread * rng.standard_normal(len(mean))
        else:
            promise = _improvement(mean, spread, self._process.best)
        # Rounded, so that the last digits, which depend on the number of threads, decide between no equal ones.
        order = np.argsort(-np.round(promise, 8), kind="stable").tolist()
        chosen = next((place for place in order if not self._is_known(children[place])), order[0])
        return children[chosen : chosen + 1]

    def _is_known(self, row: Codes) -> bool:
        """Return whether the function of a row, ``(d,)``, was asked for or told, as far as the space can tell."""
        return self.context.space.function_keys(Candidates.of(self.context.space, row[None]))[0] in self._functions

    def _note(self, codes: Codes) -> None:
        """Take note of rows, ``(n, d)``, that were asked for or told."""
        self._pool.note(codes)
        self._functions.update(self.context.space.function_keys(Candidates.of(self.context.space, codes)))

    def _encoded(self, codes: Codes) -> Floats:
        """Return what predictions are made from, ``(n, columns)``: the options, and the features in units of spread."""
        ones = self._options.ones(codes)
        if not self.features:
            return ones
        candidates = Candidates.of(self.context.space, codes)
        columns = [
            (self.context.profile(profiler, candidates) - mean) / spread
            for profiler, (mean, spread) in zip(self.features, self._scales, strict=True)
        ]
        return np.hstack([ones, np.stack(columns, axis=1)])

    @property
    def _random(self) -> Independent:
        """Random architectures within the limits; made at the first use, when all limits are known."""
        if self._drawn is None:
            self._drawn = Independent(self._pool.feasible or self.context.space, self._rng.spawn(1)[0])
        return self._drawn

    def _children(self, best: Codes) -> Codes:
        """Return changed copies of the best and some random architectures, within the limits."""
        space, rng = self.context.space, self._rng
        random = int(RANDOM_SHARE * self.candidates)
        bases = best[rng.integers(0, len(best), self.candidates - random)]
        children = space.mutate(bases, rng, 1.0 / len(space))
        if self._pool.feasible is not None:
            within = self._pool.holds(children)
            beyond = children[~within][:REPAIRED]
            children = np.concatenate([children[within], self._pool.repaired(beyond)])
        return np.concatenate([children, self._random.take(random)])

    def _tell(self, outcomes: Outcomes) -> None:
        self._note(outcomes.codes)
        scored = [place for place, score in enumerate(outcomes.scores[:, 0].tolist()) if score == score]
        if not scored:
            return
        features = self._encoded(outcomes.codes[scored])
        for row, place in enumerate(scored):
            self._told.append(outcomes.codes[place : place + 1])
            self._process.add(features[row], float(outcomes.scores[place, 0]))


def _improvement(mean: Floats, spread: Floats, best: float) -> Floats:
    """Return the logarithm of the expected improvement over the best, which orders those that hardly promise any, too.

    Far below the best it is an asymptotic series, where the difference of the exact formula's terms is lost.
    """
    gaps = (mean - best) / spread
    logarithms = []
    for gap in gaps.tolist():
        if gap > FAR_BELOW:
            density = math.exp(-0.5 * gap**2) / math.sqrt(2.0 * math.pi)
            logarithms.append(math.log(density + 0.5 * gap * math.erfc(-gap / math.sqrt(2.0))))
        else:
            series = math.log1p(-3.0 / gap**2) - 2.0 * math.log(-gap)
            logarithms.append(-0.5 * gap**2 - 0.5 * math.log(2.0 * math.pi) + series)
    improvement: Floats = np.log(spread) + np.array(logarithms)
    return improvement
