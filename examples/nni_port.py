"""NNI's documented hardware-aware search, with its imports changed: random networks under a limit on their FLOPs.

The profiler, the strategy and the filter read as they do in NNI's documentation. The space is declared: choices, and a
function that builds the network. What NNI calls FLOPs are multiply-adds here, each counted once.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nasmw import Chain, Choice, Filter, Search, Space, Trial
from nasmw.profilers import FlopsProfiler
from nasmw.strategies import Random


def build(sample: dict) -> nn.Module:
    width = 48
    if sample["layer1"] == "conv":
        layer1 = nn.Conv2d(width, width, 3, padding=1)
    elif sample["layer1"] == "pool":
        layer1 = nn.MaxPool2d(3, stride=1, padding=1)
    else:
        hidden = width * sample["expansion"]
        layer1 = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1),
        )
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.ReLU(),
        layer1,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 2),
    )


model_space = Space(
    [
        Choice("layer1", ("conv", "pool", "mobile")),
        Choice("expansion", (1, 2, 4, 6), when={"layer1": "mobile"}),
    ],
    build,
)


def evaluate(trial: Trial) -> float:
    """Train a network to tell horizontal from vertical stripes in noise, and return its accuracy on new images."""
    generator = torch.Generator().manual_seed(trial.seed)

    def stripes(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(2, (n,), generator=generator)
        rows = torch.randn(n, 1, 16, 1, generator=generator).expand(-1, 3, -1, 16)
        images = torch.where(labels.bool()[:, None, None, None], rows, rows.mT)
        return images + torch.randn(images.shape, generator=generator), labels

    model = trial.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        images, labels = stripes(32)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, labels = stripes(500)
    with torch.inference_mode():
        return (model(images).argmax(dim=1) == labels).float().mean().item()


if __name__ == "__main__":
    dummy_input = torch.randn(1, 3, 224, 224)

    profiler = FlopsProfiler(model_space, dummy_input)
    flops = profiler.profile({"layer1": "conv"})
    print(f"FLOPs of layer1=conv: {flops:,.0f}")

    strategy = Chain(
        Random(),
        Filter(lambda sample: profiler.profile(sample) < 300e6)
    )  # fmt: skip

    result = Search(model_space, strategy, evaluate, profilers=[profiler]).run(trials=16)
    print(result.funnel)
    print(result.best)
