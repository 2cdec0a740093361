"""Every middleware keeps the contract, in several configurations."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.context import recorded
from nasmw.middleware import (
    Cache,
    Deduplicate,
    EarlyStop,
    Filter,
    Penalize,
    Rank,
    Repeat,
    Retry,
    Reward,
    Tap,
    TimeLimit,
    Verify,
)
from nasmw.objective import Objective
from nasmw.search import Search
from nasmw.strategies import Random
from nasmw.strategy import Middleware, Verdict
from nasmw.testing import MiddlewareContract, TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)
OTHER = TableProfiler(SPACE, name="other", seed=1)
UNSURE = TableProfiler(SPACE, name="unsure", std=4.0)


EARLIER = Search(SPACE, Random(), lambda trial: 0.5, seed=9, progress=False).run(trials=20)


def narrow(architecture):
    return architecture.get("width", 0) <= 8


def proxy(architecture):
    return float(len(architecture))


def combined(metrics):
    return metrics["accuracy"] - 0.01 * metrics["cost"]


class TestIdentity(MiddlewareContract):
    def make(self):
        return Middleware()


class TestFilter(MiddlewareContract):
    pushes = True

    def make(self):
        return Filter(COST.at_most("60%"), (OTHER >= 5) & (OTHER <= 60), narrow)


class TestFilterTellsBadScore(MiddlewareContract):
    objectives = (Objective("accuracy"), Objective("error", "minimize"))

    def make(self):
        return Filter(COST.at_most("50%"), recorded(narrow), tell="bad score")


class TestFilterWithMargin(MiddlewareContract):
    pushes = True

    def make(self):
        return Filter(UNSURE <= 60, OTHER <= 90, margin=2.0)


class TestVerify(MiddlewareContract):
    def make(self):
        return Verify(UNSURE <= 60, OTHER, margin=1.0, patience=500)


class TestVerifyFew(MiddlewareContract):
    def make(self):
        return Verify((UNSURE <= 60) & (UNSURE >= 10), OTHER, at_most=0.3, patience=500)


class TestFilterTellsNumber(MiddlewareContract):
    def make(self):
        return Filter(narrow, tell=-1.0, patience=500)


class TestPenalize(MiddlewareContract):
    def make(self):
        return Penalize(COST, target=30)


class TestPenalizePower(MiddlewareContract):
    objectives = (Objective("accuracy"), Objective("error", "minimize"))

    def make(self):
        return Penalize(COST, target=30, form="power", objective="accuracy")


class TestReward(MiddlewareContract):
    objectives = (Objective("accuracy"), Objective("error", "minimize"))

    def make(self):
        return Reward(combined, COST)


class TestRank(MiddlewareContract):
    def make(self):
        return Rank(COST, groups_of=4, maximize=False)


class TestRankSeveral(MiddlewareContract):
    def make(self):
        return Rank(COST, recorded(proxy), groups_of=5, keep=3, weights=(-1.0, 2.0), by="rank")


class TestDeduplicate(MiddlewareContract):
    def make(self):
        return Deduplicate()


class TestDeduplicateReplays(MiddlewareContract):
    def make(self):
        return Deduplicate("replay")


class TestRetry(MiddlewareContract):
    keeps_ids = False

    def make(self):
        return Retry(2, on=("failed", "stopped"))


class TestRepeat(MiddlewareContract):
    keeps_ids = False

    def make(self):
        return Repeat(3)


class TestRepeatMedian(MiddlewareContract):
    keeps_ids = False
    objectives = (Objective("accuracy"), Objective("error", "minimize"))

    def make(self):
        return Repeat(2, by="median")


class TestCache(MiddlewareContract):
    def make(self):
        return Cache(EARLIER)


class TestEarlyStop(MiddlewareContract):
    def make(self):
        return EarlyStop()


class TestTap(MiddlewareContract):
    def make(self):
        return Tap(asked=len, told=len)


class TestTimeLimit(MiddlewareContract):
    def make(self):
        return TimeLimit(1e6)


def test_make_is_to_be_implemented():
    with pytest.raises(NotImplementedError, match="must implement make"):
        MiddlewareContract().make()


class Loses(Middleware):
    """Keeps what it is told from the strategy."""

    def _tell(self, outcomes):
        pass


class ChangesStatus(Middleware):
    def _amend(self, outcomes):
        return outcomes.evolve(status=[Status.FAILED] * len(outcomes))


class ChangesMetrics(Middleware):
    def _amend(self, outcomes):
        metrics = {name: column + 1 for name, column in outcomes.metrics.items()}
        return Outcomes(outcomes.candidates, outcomes.status, outcomes.scores, metrics)


class DropsColumns(Middleware):
    def _ask(self, n):
        batch = self.inner.ask(n)
        return Candidates(batch.space, batch.codes, batch.ids)


class Swaps(Middleware):
    """Puts other codes under the same ids."""

    def _ask(self, n):
        batch = self.inner.ask(n)
        return Candidates(batch.space, batch.codes[::-1], batch.ids, batch.columns)


class Remembers(Middleware):
    """Carries state from one run to the next, and uses the global generator."""

    def __init__(self):
        self.seen = 0

    def _screen(self, candidates):
        self.seen += len(candidates)
        away = self.seen % 3 == 0 or random.random() < 0.1
        return Verdict(np.full(len(candidates), not away), ["third"] * len(candidates))


class Scores(Middleware):
    def _amend(self, outcomes):
        return outcomes.evolve(scores=np.ones((len(outcomes), 1)))


class Hides(Middleware):
    """Forwards no offers although it passes candidates on unchanged."""

    def _offer(self, term):
        return False


class Holds(Middleware):
    """Never tells those that it held back."""

    def _screen(self, candidates):
        held = candidates.ids % 5 == 0
        return Verdict(~held, held=held)


class Refuses(Middleware):
    """Takes no note of earlier runs."""

    def _adopt(self, outcomes):
        pass


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Loses, "test_each_candidate_is_told_once"),
        (Refuses, "test_adopts_foreign_outcomes"),
        (ChangesStatus, "test_metrics_are_never_changed"),
        (ChangesMetrics, "test_metrics_are_never_changed"),
        (DropsColumns, "test_candidates_are_those_of_the_inner_strategy"),
        (Swaps, "test_candidates_are_those_of_the_inner_strategy"),
        (Remembers, "test_setup_starts_afresh"),
        (Remembers, "test_same_seed_same_course"),
        (Remembers, "test_repr_is_stable"),
        (Remembers, "test_leaves_global_random_state_alone"),
        (Scores, "test_scores_may_be_missing"),
        (Hides, "test_hands_offers_down_if_transparent"),
        (Holds, "test_each_candidate_is_told_once"),
    ],
)
def test_the_contract_notices(broken, test):
    class Contract(MiddlewareContract):
        def make(self):
            return broken()

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()
