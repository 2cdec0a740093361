"""The code of docs/measured_latency.md."""

from __future__ import annotations

import torch

from nasmw import Chain, Filter, Rank, Search, Verify
from nasmw.profilers import DeviceProfiler, LookupTableProfiler, ParamsProfiler, build_latency_table, create_dataset
from nasmw.spaces import nasbench201
from nasmw.strategies import Random
from nasmw.testing import FakeDevice

# Part 1: whole networks, each measured once.
space = nasbench201(cells=1)
example_input = torch.zeros(1, 3, 32, 32)
device = FakeDevice(noise=0.02)  # in its place: nasmw.devices.get("onnxruntime")
measured = DeviceProfiler(space, device, example_input, name="measured_ms", store="measurements.db")
architecture = {f"edge_{edge}": "nor_conv_3x3" for edge in ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")}
assert measured.profile(architecture) > 0

# Part 2: a table of latencies, built once, saved and shared.
table = build_latency_table(space, device, example_input, networks=20, store="measurements.db", progress=False)
table.save("laptop.json")
latency = LookupTableProfiler(space, "laptop.json")
assert latency.relative_error is not None

# Part 3: a search within a limit that its networks keep.
limit = latency <= 20.0
chain = Chain(
    Random(),
    Filter(limit),  # the strategy draws within it
    Rank(ParamsProfiler(space), groups_of=10),  # of every ten the largest
    Verify(limit, measured, guard=2.0),  # measured where the table cannot tell
)


def evaluate(trial):
    return float(trial.number)


result = Search(space, chain, evaluate, progress=False).run(trials=5)
print(result.remeasure(device, top=3, example_input=example_input, limit=limit, progress=False))

# Part 4: the same with a margin in place of measurements.
Filter(latency <= 20.0, margin=2.0)

# Part 5: a data set to learn from.
data = create_dataset(
    space, device, 12, "stratified by MACs", "cells.npz", example_input=example_input, store="measurements.db"
)
print(data)
