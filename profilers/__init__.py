"""Profilers: what gives numbers about architectures without training them."""

from nasmw.profilers.activations import ActivationsProfiler, PeakMemoryProfiler
from nasmw.profilers.counting import Count, count, count_parameters
from nasmw.profilers.flops import FlopsProfiler
from nasmw.profilers.lookup import LookupTableProfiler, missing_layers, required_layers
from nasmw.profilers.lookup_file import ChoiceLatencies, LatencyTable
from nasmw.profilers.lookup_import import read_latency_table
from nasmw.profilers.measured import TorchLatencyProfiler
from nasmw.profilers.network import NetworkProfiler
from nasmw.profilers.params import ModelSizeProfiler, ParamsProfiler

__all__ = [
    "ActivationsProfiler",
    "ChoiceLatencies",
    "Count",
    "FlopsProfiler",
    "LatencyTable",
    "LookupTableProfiler",
    "ModelSizeProfiler",
    "NetworkProfiler",
    "ParamsProfiler",
    "PeakMemoryProfiler",
    "TorchLatencyProfiler",
    "count",
    "count_parameters",
    "missing_layers",
    "read_latency_table",
    "required_layers",
]
