"""Middleware: the stages around a strategy, one file each."""

from __future__ import annotations

from nasmw.middleware.cache import Cache
from nasmw.middleware.chain import Chain
from nasmw.middleware.deduplicate import Deduplicate
from nasmw.middleware.early_stop import EarlyStop
from nasmw.middleware.filter import Filter
from nasmw.middleware.penalize import Penalize
from nasmw.middleware.rank import Rank
from nasmw.middleware.refit import Refit
from nasmw.middleware.repeat import Repeat
from nasmw.middleware.retry import Retry
from nasmw.middleware.reward import Reward
from nasmw.middleware.tap import Tap
from nasmw.middleware.time_limit import TimeLimit
from nasmw.middleware.verify import Verify

__all__ = [
    "Cache",
    "Chain",
    "Deduplicate",
    "EarlyStop",
    "Filter",
    "Penalize",
    "Rank",
    "Refit",
    "Repeat",
    "Retry",
    "Reward",
    "Tap",
    "TimeLimit",
    "Verify",
]
