from nasmw import Chain, Deduplicate, Filter, Rank, Search
from nasmw.strategies import Random
from nasmw.testing import TableProfiler, toy_space


def evaluate(trial):
    if trial.architecture["block0.op"] == "conv" and trial.architecture["block0.kernel"] == 5:
        raise MemoryError("the network is too large")
    return trial.architecture["depth"] / 3


space = toy_space()
cost, size = TableProfiler(space, "cost"), TableProfiler(space, "size", seed=1)
strategy = Chain(Random(), Deduplicate(), Filter(cost <= 60, size <= 80), Rank(cost, groups_of=4))
result = Search(space, strategy, evaluate).run(trials=20)
print(result.funnel)
