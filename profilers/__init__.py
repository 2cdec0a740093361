"""Profilers: what gives numbers about architectures without training them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nasmw.profilers.activations import ActivationsProfiler, PeakMemoryProfiler
from nasmw.profilers.bit_operations import BitOpsProfiler
from nasmw.profilers.counting import Count, count, count_parameters
from nasmw.profilers.device import DeviceProfiler
from nasmw.profilers.device_dataset import MeasuredDataset, create_dataset
from nasmw.profilers.device_store import Measured, MeasurementStore
from nasmw.profilers.flops import FlopsProfiler
from nasmw.profilers.lookup import LookupTableProfiler, missing_layers, required_layers
from nasmw.profilers.lookup_build import build_latency_table
from nasmw.profilers.lookup_file import ChoiceLatencies, LatencyTable
from nasmw.profilers.lookup_import import read_latency_table
from nasmw.profilers.measured import TorchLatencyProfiler
from nasmw.profilers.mlonmcu import MlonmcuProfiler
from nasmw.profilers.network import NetworkProfiler
from nasmw.profilers.nn_meter import NnMeterProfiler
from nasmw.profilers.nn_meter_build import build_nn_meter
from nasmw.profilers.nn_meter_predictor import NnMeterPredictor
from nasmw.profilers.params import ModelSizeProfiler, ParamsProfiler

if TYPE_CHECKING:
    from nasmw.profilers.config import from_config
    from nasmw.profilers.learned.base import LearnedProfiler
    from nasmw.profilers.learned.store import PredictorStore

_LATER = {
    "LearnedProfiler": "nasmw.profilers.learned.base",
    "PredictorStore": "nasmw.profilers.learned.store",
    "from_config": "nasmw.profilers.config",
}
"""What is imported at its first use only: names, and the modules that have them."""

__all__ = [
    "ActivationsProfiler",
    "BitOpsProfiler",
    "ChoiceLatencies",
    "Count",
    "DeviceProfiler",
    "FlopsProfiler",
    "LatencyTable",
    "LearnedProfiler",
    "LookupTableProfiler",
    "Measured",
    "MeasuredDataset",
    "MeasurementStore",
    "MlonmcuProfiler",
    "ModelSizeProfiler",
    "NetworkProfiler",
    "NnMeterPredictor",
    "NnMeterProfiler",
    "ParamsProfiler",
    "PeakMemoryProfiler",
    "PredictorStore",
    "TorchLatencyProfiler",
    "build_latency_table",
    "build_nn_meter",
    "count",
    "count_parameters",
    "create_dataset",
    "from_config",
    "missing_layers",
    "read_latency_table",
    "required_layers",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
