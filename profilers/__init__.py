"""Profilers: what gives numbers about architectures without training them."""

from nasmw.profilers.activations import ActivationsProfiler, PeakMemoryProfiler
from nasmw.profilers.counting import Count, count, count_parameters
from nasmw.profilers.flops import FlopsProfiler
from nasmw.profilers.measured import TorchLatencyProfiler
from nasmw.profilers.network import NetworkProfiler
from nasmw.profilers.params import ModelSizeProfiler, ParamsProfiler

__all__ = [
    "ActivationsProfiler",
    "Count",
    "FlopsProfiler",
    "ModelSizeProfiler",
    "NetworkProfiler",
    "ParamsProfiler",
    "PeakMemoryProfiler",
    "TorchLatencyProfiler",
    "count",
    "count_parameters",
]
