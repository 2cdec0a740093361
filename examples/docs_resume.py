from nasmw import Chain, Deduplicate, Search, load
from nasmw.strategies import Evolution
from nasmw.testing import toy_space


def evaluate(trial):
    return trial.architecture["width"] / trial.architecture["depth"]


def search(log, trials):
    strategy = Chain(Evolution(population=5), Deduplicate())
    return Search(toy_space(), strategy, evaluate, seed=3, log=log).run(trials=trials)


if __name__ == "__main__":
    search("stopped.db", trials=12)
    resumed = search("stopped.db", trials=40)
    straight = search("straight.db", trials=40)
    print(resumed.table() == straight.table())
    print(load("stopped.db", toy_space()).best.architecture)
