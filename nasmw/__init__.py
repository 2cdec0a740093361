"""nasmw: hardware-aware neural architecture search.

Strategies propose architectures; chainable middleware consults profilers and decides what reaches training.
"""

from nasmw.candidates import Candidates, Outcomes, Status
from nasmw.choice import Choice
from nasmw.constraint import Constraint
from nasmw.context import Context, recorded
from nasmw.cost import CostTable, MaxTable
from nasmw.errors import NasmwError
from nasmw.evaluator import Evaluator
from nasmw.feasible import FeasibleSet
from nasmw.middleware import (
    Cache,
    Chain,
    Deduplicate,
    EarlyStop,
    Filter,
    Penalize,
    Rank,
    Refit,
    Repeat,
    Retry,
    Reward,
    Tap,
    TimeLimit,
    Verify,
)
from nasmw.objective import Objective
from nasmw.profiler import MultiProfiler, Profiler, profile
from nasmw.result import Result, load
from nasmw.search import Search
from nasmw.space import Space
from nasmw.strategy import Middleware, Strategy, Verdict
from nasmw.tabled import TabledProfiler
from nasmw.trial import Trial

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "Candidates",
    "Chain",
    "Choice",
    "Constraint",
    "Context",
    "CostTable",
    "Deduplicate",
    "EarlyStop",
    "Evaluator",
    "FeasibleSet",
    "Filter",
    "MaxTable",
    "Middleware",
    "MultiProfiler",
    "NasmwError",
    "Objective",
    "Outcomes",
    "Penalize",
    "Profiler",
    "Rank",
    "Refit",
    "Repeat",
    "Result",
    "Retry",
    "Reward",
    "Search",
    "Space",
    "Status",
    "Strategy",
    "TabledProfiler",
    "Tap",
    "TimeLimit",
    "Trial",
    "Verdict",
    "Verify",
    "load",
    "profile",
    "recorded",
]
