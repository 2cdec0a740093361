"""NNI's hardware-aware search over a space that is written as a model, with its imports changed.

The model space, the profiler, the strategy and the filter read as they do in NNI's documentation. What NNI calls FLOPs
are multiply-adds here, each counted once.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

import nasmw.nn as nni
from nasmw import Search, Trial
from nasmw.middleware import Chain, Filter
from nasmw.nn import LayerChoice, ModelSpace, MutableDropout, MutableLinear
from nasmw.profilers import FlopsProfiler
from nasmw.strategies import Random


class DepthwiseSeparableConv(nn.Module):
    def __init__(self, in_ch, out_ch):
        super().__init__()
        self.depthwise = nn.Conv2d(in_ch, in_ch, kernel_size=3, groups=in_ch)
        self.pointwise = nn.Conv2d(in_ch, out_ch, kernel_size=1)

    def forward(self, x):
        return self.pointwise(self.depthwise(x))


class MyModelSpace(ModelSpace):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        # One of two layers, by the label that architectures have.
        self.layer1 = LayerChoice({
            "conv": nn.Conv2d(32, 64, 3, 1),
            "dwconv": DepthwiseSeparableConv(32, 64)
        }, label="layer1")  # fmt: skip
        # A value that is chosen stands where a module takes a number.
        self.dropout1 = MutableDropout(nni.choice("dropout", [0.25, 0.5, 0.75]))
        self.dropout2 = nn.Dropout(0.5)
        feature = nni.choice("feature", [64, 128, 256])
        self.fc1 = MutableLinear(9216, feature)
        self.fc2 = MutableLinear(feature, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(self.layer1(x), 2)
        x = torch.flatten(self.dropout1(x), 1)
        x = self.fc2(self.dropout2(F.relu(self.fc1(x))))
        return F.log_softmax(x, dim=1)


def evaluate(trial: Trial) -> float:
    """Train a network to tell horizontal from vertical stripes in noise, and return its accuracy on new images."""
    generator = torch.Generator().manual_seed(trial.seed)

    def stripes(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (n,), generator=generator)
        rows = torch.randn(n, 1, 28, 1, generator=generator).expand(-1, -1, -1, 28)
        images = torch.where(labels.bool()[:, None, None, None], rows, rows.mT)
        return images + torch.randn(images.shape, generator=generator), labels

    model = trial.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for _ in range(5):
        images, labels = stripes(16)
        optimizer.zero_grad()
        F.nll_loss(model(images), labels).backward()
        optimizer.step()
    images, labels = stripes(100)
    with torch.inference_mode():
        return (model.eval()(images).argmax(dim=1) == labels).float().mean().item()


if __name__ == "__main__":
    model_space = MyModelSpace()
    dummy_input = torch.randn(1, 1, 28, 28)

    # initialization
    profiler = FlopsProfiler(model_space, dummy_input)
    # compute flops for a sample
    flops = profiler.profile({"layer1": "conv", "dropout": 0.25, "feature": 64})
    print(f"FLOPs of layer1=conv, feature=64: {flops:,.0f}")

    strategy = Chain(
        Random(),
        Filter(lambda sample: profiler.profile(sample) < 12e6)
    )  # fmt: skip

    result = Search(model_space, strategy, evaluate, profilers=[profiler]).run(trials=4)
    print(result.funnel)
    print(result.best)
