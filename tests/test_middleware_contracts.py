"""Every middleware keeps the contract, in several configurations."""

from __future__ import annotations

import pytest

from nasmw.middleware import Deduplicate, Filter, Penalize, Rank, Reward
from nasmw.objective import Objective
from nasmw.strategy import Middleware, recorded
from nasmw.testing import MiddlewareContract, TableProfiler, toy_space

SPACE = toy_space()
COST = TableProfiler(SPACE)
OTHER = TableProfiler(SPACE, name="other", seed=1)


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


def test_make_is_to_be_implemented():
    with pytest.raises(NotImplementedError, match="must implement make"):
        MiddlewareContract().make()
