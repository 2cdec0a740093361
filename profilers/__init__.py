"""Profilers: what gives numbers about architectures without training them."""

from nasmw.profilers.counting import Count, count, count_parameters
from nasmw.profilers.flops import FlopsProfiler
from nasmw.profilers.measured import TorchLatencyProfiler
from nasmw.profilers.network import NetworkProfiler
from nasmw.profilers.params import ParamsProfiler

__all__ = ["Count", "FlopsProfiler", "NetworkProfiler", "ParamsProfiler", "TorchLatencyProfiler", "count", "count_parameters"]
