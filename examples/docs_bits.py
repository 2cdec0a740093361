import torch
from torch import nn

from nasmw import Choice, Filter, Space
from nasmw.profilers import BitOpsProfiler, ModelSizeProfiler
from nasmw.spaces import extended


def build(architecture):
    width, kernel = architecture["width"], architecture["kernel"]
    return nn.Sequential(nn.Conv2d(3, width, kernel), nn.ReLU(), nn.Conv2d(width, 10, 1))


space = Space([Choice("width", (8, 16, 32)), Choice("kernel", (3, 5))], build)

# Part 1: a choice of bits for each layer of a space; its networks are built as before.
layers = [Choice("0.bits", (2, 4, 8)), Choice("2.bits", (2, 4, 8))]
mixed = extended(space, layers, name="mixed precision")

# Part 2: sizes and bit operations of networks whose layers have these bits.
size = ModelSizeProfiler(mixed, bits="{layer}.bits", progress=False)
operations = BitOpsProfiler(
    mixed, torch.zeros(1, 3, 32, 32), bits={"0": "0.bits", "*": "{layer}.bits"}, activation_bits=8, progress=False
)
print(size.bounds().low, operations.bounds().high)
print(Filter(size <= 1000, operations <= 50e6))
