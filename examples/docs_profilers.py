import torch
from torch import nn

from nasmw import Choice, Filter, Profiler, Space, profile
from nasmw.profilers import FlopsProfiler, ParamsProfiler, TorchLatencyProfiler


def build(architecture):
    width, kernel = architecture["width"], architecture["kernel"]
    return nn.Sequential(nn.Conv2d(3, width, kernel), nn.ReLU(), nn.Conv2d(width, 10, 1))


space = Space([Choice("width", (8, 16, 32)), Choice("kernel", (3, 5))], build)

# Part 1: a profiler is made of a space and, where networks have to run, of an example input.
example_input = torch.zeros(1, 3, 32, 32)
macs = FlopsProfiler(space, example_input)
params = ParamsProfiler(space)
latency = TorchLatencyProfiler(space, example_input)

# Part 2: what it says of an architecture, or of any network.
architecture = {"width": 16, "kernel": 3}
print(macs.profile(architecture), params.profile(architecture))
print(profile(nn.Linear(8, 4), [ParamsProfiler(None)]))
assert latency.profile(architecture) > 0

# Part 3: limits, shares and sums.
cost = (macs * 1e-6 + params * 1e-3).named("cost")
small = Filter(macs <= 1e6, (params >= 100) & (params <= 2000), cost.at_most("60%"))
print(small)


# Part 4: one of your own.
class Widest(Profiler):
    """The number of channels of the widest layer."""

    def __init__(self, space):
        super().__init__("widest", "channels", space=space)

    def _profile(self, architecture):
        return max(architecture["width"], 10)


print(Widest(space).profile(architecture))
