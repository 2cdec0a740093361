"""Search strategies: what is asked for next, given what was told."""

from __future__ import annotations

from nasmw.strategies.asha import ASHA
from nasmw.strategies.evolution import Evolution
from nasmw.strategies.grid import Grid
from nasmw.strategies.halving import Hyperband, SuccessiveHalving
from nasmw.strategies.islands import Islands
from nasmw.strategies.local_search import LocalSearch
from nasmw.strategies.nsga2 import NSGA2
from nasmw.strategies.policy_gradient import PolicyGradient
from nasmw.strategies.predictor_guided import PredictorGuided
from nasmw.strategies.random import Random
from nasmw.strategies.rungs import rungs
from nasmw.strategies.tpe import TPE

__all__ = [
    "ASHA",
    "NSGA2",
    "TPE",
    "Evolution",
    "Grid",
    "Hyperband",
    "Islands",
    "LocalSearch",
    "PolicyGradient",
    "PredictorGuided",
    "Random",
    "SuccessiveHalving",
    "rungs",
]
