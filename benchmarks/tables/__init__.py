"""Benchmark spaces with known answers, from published measurements; scripts in the folder above import them."""

from __future__ import annotations

from tables.files import MissingDataError
from tables.nasbench201 import NASBench201
from tables.once_for_all import AccuracyPredictor, OnceForAll
from tables.sizes import ChannelBenchMacro, NASBenchMacro, NATSSize
from tables.table import Benchmark, Best, ColumnProfiler, Evaluate, Index

__all__ = [
    "AccuracyPredictor",
    "Benchmark",
    "Best",
    "ChannelBenchMacro",
    "ColumnProfiler",
    "Evaluate",
    "Index",
    "MissingDataError",
    "NASBench201",
    "NASBenchMacro",
    "NATSSize",
    "OnceForAll",
]
