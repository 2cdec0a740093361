"""Executors: where evaluations run."""

from __future__ import annotations

from nasmw.executors.base import Executor
from nasmw.executors.processes import Processes
from nasmw.executors.serial import Serial

__all__ = ["Executor", "Processes", "Serial"]
