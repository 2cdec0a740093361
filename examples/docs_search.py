import torch
from torch import nn

from nasmw import Chain, Choice, Deduplicate, Filter, Search, Space
from nasmw.profilers import ParamsProfiler
from nasmw.strategies import Evolution


def build(architecture):
    width, activation = architecture["width"], getattr(nn, architecture["activation"])
    inner = [layer for _ in range(architecture["depth"] - 1) for layer in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(2, width), activation(), *inner, nn.Linear(width, 2))


def evaluate(trial):
    points = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0))
    labels = (points.norm(dim=1) < 0.8).long()
    model = trial.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(points[:800]), labels[:800]).backward()
        optimizer.step()
    return (model(points[800:]).argmax(dim=1) == labels[800:]).float().mean()


if __name__ == "__main__":
    options = {"depth": (1, 2, 3, 4), "width": (4, 8, 16, 32), "activation": ("ReLU", "Tanh", "GELU")}
    space = Space([Choice(name, values) for name, values in options.items()], build)
    params = ParamsProfiler(space)
    strategy = Chain(Evolution(population=8), Deduplicate(), Filter(params <= 1000))
    result = Search(space, strategy, evaluate, log="own.db").run(trials=12)
    print(result.funnel, result.best, *result.pareto("accuracy", params), sep="\n")
