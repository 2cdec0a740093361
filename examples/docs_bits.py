import torch

from nasmw import Choice, Filter
from nasmw.profilers import BitOpsProfiler, ModelSizeProfiler
from nasmw.spaces import extended, nats_size

# Part 1: a choice of bits for each cell of a ready space; its networks are built as before.
cells = [Choice(f"cells.{cell}.bits", (2, 4, 8)) for cell in range(3)]
space = extended(nats_size(10), cells, name="mixed precision")

# Part 2: sizes and bit operations of networks whose cells have these bits, and all else 8.
rules = {"cells.*": "{layer}.bits", "*": 8}
size = ModelSizeProfiler(space, bits=rules, progress=False)
operations = BitOpsProfiler(space, torch.zeros(1, 3, 16, 16), bits=rules, activation_bits=8, progress=False)
print(size.bounds().low, operations.bounds().high)
print(Filter(size <= 100e3, operations <= 2e9))
