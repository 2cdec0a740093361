"""Meter: evaluates networks for a search, and keeps what was evaluated, when, and what it cost."""

from __future__ import annotations

import math
import time

import numpy as np
from tables import AccuracyPredictor

from nasmw import Candidates, Trial
from nasmw.candidates import Codes, Floats

__all__ = ["Meter"]


class Meter:
    """Predicts accuracies for a search; its clock runs from when it is made, in CPU seconds of this process.

    Args:
        predictor: What a network's accuracy is.
        seconds: After so many CPU seconds the search is to stop.
        evaluations: After so many evaluations it is to stop.
    """

    def __init__(self, predictor: AccuracyPredictor, *, seconds: float = math.inf, evaluations: float = math.inf):
        self.predictor = predictor
        self.seconds = seconds
        self.evaluations = evaluations
        self.evaluated = 0
        self.evaluation_s = 0.0
        self._codes: list[Codes] = []
        self._scores: list[Floats] = []
        self._ends: list[float] = []
        self._start = time.process_time()

    @property
    def elapsed(self) -> float:
        """The CPU seconds since the start, those of evaluations included."""
        return time.process_time() - self._start

    @property
    def left(self) -> float:
        """How many evaluations may follow; 0 once the time is up."""
        return 0 if self.elapsed >= self.seconds else self.evaluations - self.evaluated

    def __call__(self, candidates: Candidates) -> Floats:
        """Return the predicted accuracies in percent, ``(n,)``."""
        start = time.process_time()
        scores = self.predictor.predict_batch(candidates)
        self._take(candidates.codes, scores, start)
        return scores

    def trial(self, trial: Trial) -> float:
        """Return the predicted accuracy of a trial in percent: the `evaluate` of a `Search`."""
        start = time.process_time()
        score = self.predictor.predict(trial.architecture)
        space = self.predictor.space
        self._take(space.encode(trial.architecture)[None, :], np.array([score]), start)
        return score

    def _take(self, codes: Codes, scores: Floats, start: float) -> None:
        end = time.process_time()
        self.evaluation_s += end - start
        self.evaluated += len(scores)
        self._codes.append(codes)
        self._scores.append(scores)
        self._ends.append(end - self._start)

    @property
    def candidates(self) -> Candidates:
        """Everything that was evaluated, in order."""
        return Candidates.of(self.predictor.space, np.concatenate(self._codes))

    @property
    def scores(self) -> Floats:
        """The accuracies of everything that was evaluated, in order, ``(n,)``."""
        return np.concatenate(self._scores)

    def best_of_first(self, evaluations: int) -> float:
        """Return the best accuracy of the first so many evaluations; NaN where there were fewer."""
        return float(self.scores[:evaluations].max()) if self.evaluated >= evaluations else math.nan

    def best_within(self, seconds: float) -> float:
        """Return the best accuracy that was known after so many CPU seconds; NaN where none was."""
        known = [scores.max() for scores, end in zip(self._scores, self._ends, strict=True) if end <= seconds]
        return float(max(known, default=math.nan))

    def seconds_of_first(self, evaluations: int) -> float:
        """Return after how many CPU seconds so many evaluations were done; NaN where there were fewer."""
        done = 0
        for scores, end in zip(self._scores, self._ends, strict=True):
            done += len(scores)
            if done >= evaluations:
                return end
        return math.nan
