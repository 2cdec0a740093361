"""The settings of the benchmarks on NAS-Bench-201: data sets, devices, limits."""

from __future__ import annotations

import functools

import numpy as np
from table_search import Problem
from tables import NASBench201

__all__ = ["DEVICES", "SHARES", "UNLIMITED", "problem", "settings"]

DEVICES = ("pixel3", "titan_rtx_256", "fpga")
"""A phone, a GPU with large batches, an FPGA."""
SHARES = (25, 50, 75)
"""Limits are the latencies that so many percent of the networks keep."""
UNLIMITED = "no limit"


def settings(dataset: str = "cifar10") -> list[str]:
    """Return the names of the nine settings of a data set, and of the one without a limit."""
    limited = [f"{dataset}, {device}, {share} %" for device in DEVICES for share in SHARES]
    return [*limited, f"{dataset}, {UNLIMITED}"]


@functools.cache
def benchmark(dataset: str) -> NASBench201:
    """Return the tables of a data set, read once in each process."""
    return NASBench201(dataset)


@functools.cache
def problem(setting: str) -> Problem:
    """Return what a setting searches: the validation accuracy after 200 epochs is told, within the limit."""
    dataset, device, *share = setting.split(", ")
    table = benchmark(dataset)
    if device == UNLIMITED:
        return Problem(setting, table, ("val200",))
    latency = table.latency(device)
    values = latency.profile_batch(table.space.candidates(table.codes))
    limit = float(np.quantile(values, int(share[0].removesuffix(" %")) / 100, method="inverted_cdf"))
    return Problem(setting, table, ("val200",), (latency <= limit,))
