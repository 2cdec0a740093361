from nasmw import Chain, Filter, Search
from nasmw.profilers import ParamsProfiler
from nasmw.strategies import ASHA, NSGA2, PredictorGuided, rungs
from nasmw.testing import toy_space


def evaluate(trial):
    """A formula with a learning curve, in place of a training."""
    final = sum(value for value in trial.architecture.values() if isinstance(value, int)) / 40
    return final * (1 - 0.5 / (trial.budget or 9))


def train(trial):
    model = trial.model()
    resumed = trial.load(model)  # the weights that an earlier trial of this network saved, if there was one
    accuracy = (0.6 if resumed else 0.5) + trial.budget / 100  # train here, for trial.budget epochs in all
    trial.save(model)
    return accuracy


if __name__ == "__main__":
    space = toy_space()
    params = ParamsProfiler(space)

    strategy = Chain(PredictorGuided(features=params), Filter(params <= 2000))
    result = Search(space, strategy, evaluate).run(trials=40)
    print(result.best.columns["params"] <= 2000)

    strategy = NSGA2(population=20)
    result = Search(space, strategy, evaluate, objectives=["accuracy", params]).run(trials=60)
    print(len(result.pareto()) > 3)

    strategy = ASHA(budgets=rungs(1, 9))  # 1, 3 and 9 epochs
    result = Search(space, strategy, train, log="budgets.db").run(trials=20)
    print(result.best.columns["budget"])
