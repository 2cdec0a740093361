import torch

from nasmw import Chain, Rank, Search
from nasmw.profilers import LearnedProfiler, ParamsProfiler
from nasmw.profilers.zero_cost import NaswotProfiler, RankEnsembleProfiler, SynflowProfiler, proxy_encoding
from nasmw.spaces import nasbench201
from nasmw.strategies import Random

space = nasbench201(input_size=8, channels=4, cells=1)


def evaluate(trial):
    return float(sum(operation == "nor_conv_3x3" for operation in trial.architecture.values()))


# Part 1: zeros stand for noise of that shape; real images are given as they are.
mini_batch = torch.zeros(16, 3, 8, 8)
synflow, naswot = SynflowProfiler(space, mini_batch), NaswotProfiler(space, mini_batch)
params = ParamsProfiler(space, progress=False)

# Part 2: of every four candidates the one that several proxies rank best is trained.
votes = RankEnsembleProfiler([synflow, naswot, params], reference=16, progress=False)
result = Search(space, Chain(Random(), Rank(votes, groups_of=4)), evaluate, seed=0).run(trials=5)
print(len(result.trials))

# Part 3: the ranks as columns of what a learned profiler predicts from.
proxies = proxy_encoding([synflow, naswot], reference=16, progress=False)
accuracy = LearnedProfiler(space, "ridge", "one_hot + proxies", name="predicted_accuracy", given={"proxies": proxies})
