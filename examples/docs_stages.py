import random

from nasmw import Cache, Chain, Deduplicate, EarlyStop, Filter, Rank, Repeat, Retry, Search, Tap, TimeLimit, Verify
from nasmw.strategies import Evolution
from nasmw.testing import TableProfiler, toy_space


def evaluate(trial):
    """A formula with noise, in place of a training; now and then it fails."""
    draw = random.Random(trial.seed)
    if draw.random() < 0.1:
        raise ConnectionError("the data could not be read")
    best = trial.architecture["width"] / 20 + draw.gauss(0, 0.02)
    for epoch in range(3):
        trial.report(epoch, best * (epoch + 1) / 3)  # ends the trial here if it has fallen behind
    return best


if __name__ == "__main__":
    space = toy_space()
    strategy = Chain(Evolution(population=10), Deduplicate(), Retry(times=2))
    first = Search(space, strategy, evaluate, log="first.db").run(trials=30)

    told = []
    strategy = Chain(
        Evolution(population=10),
        Cache("first.db"),  # what first.db knows is told at once
        Deduplicate(),
        Tap(told=lambda outcomes: told.extend(outcomes.scores[:, 0])),
        Repeat(3, by="median"),  # what passes from here on is evaluated three times
        EarlyStop(min_trials=5),
        TimeLimit(3600),
    )
    result = Search(space, strategy, evaluate).run(trials=60)
    print(len(told) < len(result.trials) <= 60)

    predicted, measured = TableProfiler(space, "predicted_ms", std=3.0), TableProfiler(space, "measured_ms", seed=0)
    strict = Chain(Evolution(population=10), Filter(predicted <= 80, margin=2.0))
    near = Chain(
        Evolution(population=10), Rank(predicted, groups_of=2, maximize=False), Verify(predicted <= 80, measured)
    )
    for strategy in (strict, near):
        result = Search(space, strategy, evaluate).run(trials=20)
        print(max(trial.columns["predicted_ms"] for trial in result.trials) <= 80)
