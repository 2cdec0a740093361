import contextlib
from pathlib import Path

import torch
from torch import nn

from nasmw import Chain, Choice, Deduplicate, Filter, Search, Space
from nasmw.errors import NasmwError
from nasmw.log import Log
from nasmw.profilers import FlopsProfiler
from nasmw.strategies import Evolution, Random
from nasmw.testing import TableProfiler, toy_space


@contextlib.contextmanager
def message():
    """Print the message of the error that what follows raises."""
    try:
        yield
    except (NasmwError, TypeError) as error:
        print(f"{type(error).__name__}: {str(error).replace(str(Path.cwd()), '/runs')}\n")
    else:
        raise AssertionError("an error was to be raised")


def evaluate(trial):
    return trial.architecture["width"] / 16


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).abs()


if __name__ == "__main__":
    space = toy_space()
    cost = TableProfiler(space)

    with message():
        Filter(5 <= cost <= 25)
    with message():
        space.encode({"widht": 8, "depth": 1})
    with message():
        space.encode({"width": 10, "depth": 1})
    with message():
        Search(space, Chain(Random(), Filter(cost <= 3)), evaluate).run(trials=5)
    with message():
        Search(space, Chain(Random(), Filter(lambda sample: False, patience=100)), evaluate).run(trials=5)
    with message():
        Search(space, Random(), lambda trial: {"loss": 1.0}).run(trials=5)
    with message():
        Search(space, Random(), lambda trial: 1.0, executor=2).run(trials=5)
    with message():
        FlopsProfiler(Space([Choice("width", (8, 16))]), torch.zeros(1, 3, 8, 8))
    with message():
        FlopsProfiler(None, torch.zeros(1, 3, 8, 8), uncounted="error").profile_model(Spectrum())
    with message():
        Search(space, Random(), evaluate, profilers=[cost, TableProfiler(space, seed=1)])
    Search(space, Evolution(population=5), evaluate, log="trouble.db").run(trials=5)
    with message():
        Search(space, Chain(Evolution(population=5), Deduplicate()), evaluate, log="trouble.db").run(trials=10)
    with message(), Log("trouble.db"):
        Search(space, Evolution(population=5), evaluate, log="trouble.db").run(trials=10)
