"""The code of docs/devices.md."""

from __future__ import annotations

import torch
from torch import nn

from nasmw import devices

# Part 1: what there is.
for known in devices.list():
    print(known)


def network(channels: int) -> nn.Module:
    """Return a small convolutional network."""
    layers = [nn.Conv2d(3, channels, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3), nn.Flatten()]
    return nn.Sequential(*layers)


# Part 2: networks are exported, then measured together.
example = torch.zeros(1, 3, 32, 32)
device = devices.get("onnxruntime")
artifacts = {}
for channels in (8, 16, 32):
    model = devices.sensible_weights(network(channels), example)
    artifacts[f"{channels} channels"] = device.export(model, example)
found = devices.measure(artifacts, [device], rounds=3, repeats=1, progress=False)
print(found.latency(device.name))  # milliseconds
print(devices.noise_report(found))
