from nasmw import Chain, Deduplicate, Search, load
from nasmw.errors import SearchInterrupted
from nasmw.strategies import Evolution
from nasmw.testing import toy_space

interrupt_at = {12}


def evaluate(trial):
    if trial.number in interrupt_at:
        interrupt_at.remove(trial.number)
        raise KeyboardInterrupt  # what Ctrl-C does
    return trial.architecture["width"] / trial.architecture["depth"]


def search(log):
    strategy = Chain(Evolution(population=5), Deduplicate())
    return Search(toy_space(), strategy, evaluate, seed=3, log=log).run(trials=40)


if __name__ == "__main__":
    try:
        search("stopped.db")
    except SearchInterrupted:
        print(load("stopped.db").funnel)
    resumed = search("stopped.db")
    straight = search("straight.db")
    print(resumed.table() == straight.table())
