from collections import Counter

import numpy as np

from nasmw import Chain, Middleware, Search, Verdict
from nasmw.strategies import Random
from nasmw.testing import toy_space


# Part 1: who passes.
class Quota(Middleware):
    """Passes at most `most` candidates with each option of one choice."""

    def __init__(self, choice, most):
        self.choice = choice
        self.most = most

    def _setup(self, context):
        context.space.column(self.choice)  # an error that names the near ones, if there is no such choice
        self._passed = Counter()

    def _screen(self, candidates):
        passes = np.ones(len(candidates), dtype=bool)
        causes = [""] * len(candidates)
        for row, architecture in enumerate(candidates):
            option = architecture.get(self.choice)
            self._passed[option] += 1
            if self._passed[option] > self.most:
                passes[row] = False
                causes[row] = f"enough with {self.choice} = {option}"
        return Verdict(passes, causes)


# Part 2: what the strategy is told.
class Logarithm(Middleware):
    """Tells the strategy the logarithm of each score."""

    def _amend(self, outcomes):
        return outcomes.evolve(scores=np.log(outcomes.scores))


# Part 3: in a chain.
strategy = Chain(Random(), Quota("depth", most=5), Logarithm())
result = Search(toy_space(), strategy, lambda trial: trial.architecture["width"]).run(trials=12)
print(result.funnel)
