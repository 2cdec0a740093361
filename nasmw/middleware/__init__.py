"""Middleware: the stages around a strategy, one file each."""

from __future__ import annotations

from nasmw.middleware.chain import Chain
from nasmw.middleware.deduplicate import Deduplicate
from nasmw.middleware.filter import Filter
from nasmw.middleware.penalize import Penalize
from nasmw.middleware.rank import Rank
from nasmw.middleware.reward import Reward

__all__ = ["Chain", "Deduplicate", "Filter", "Penalize", "Rank", "Reward"]
