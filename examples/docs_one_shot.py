import torch
from torch import nn

from nasmw import Chain, Filter, Penalize, Search
from nasmw.nn import Conv2d, LayerChoice, ModelSpace, choice
from nasmw.oneshot import Recipe, SupernetEvaluator, TensorData
from nasmw.profilers import FlopsProfiler
from nasmw.strategies import Evolution
from nasmw.strategies.oneshot import DARTS


class Net(ModelSpace):
    def __init__(self):
        super().__init__()
        width = choice("width", (8, 16, 24))
        self.stem = Conv2d(1, width, 3, stride=2, padding=1)
        self.block1 = LayerChoice({"conv": Conv2d(width, width, 3, padding=1), "skip": nn.Identity()}, label="block1")
        self.block2 = LayerChoice({"conv": Conv2d(width, width, 3, padding=1), "skip": nn.Identity()}, label="block2")
        self.last = Conv2d(width, 4, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.block2(self.block1(x).relu()).relu()
        return self.last(x).mean(dim=(2, 3))


def squares(n):
    """Images with a bright square in one of four corners."""
    labels = torch.arange(n) % 4
    images = 0.3 * torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 1.0
    return images, labels


if __name__ == "__main__":
    space = Net()
    data = TensorData(train=squares(256), validation=squares(128), batch=32)
    recipe = Recipe(epochs=3, rate=0.05)
    macs = FlopsProfiler(space, torch.zeros(1, 1, 8, 8), progress=False)

    # Weight sharing is a property of the evaluation: any strategy may search a supernet.
    chain = Chain(Evolution(population=8, tournament=3), Filter(macs <= 40_000))
    evaluate = SupernetEvaluator(space, data, recipe)
    result = Search(space, chain, evaluate, log="shared.db").run(trials=12)
    print(result.best.metrics["accuracy"] >= max(trial.metrics["accuracy"] for trial in result.trials))

    # Or the strategy trains it, and asks for the likeliest networks; evaluate trains them from scratch.
    def train(trial):
        model = trial.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for images, labels in data.batches("train", torch.Generator().manual_seed(trial.seed)):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return -loss.item()

    darts = DARTS(data, recipe, architecture_rate=0.05)
    chain = Chain(darts, Filter(macs <= 40_000), Penalize(macs, target=30_000, weight=0.1))
    result = Search(space, chain, train, log="darts.db").run(trials=2)
    print(all(trial.columns["macs"] <= 40_000 for trial in result.trials))
    print(sorted(darts.history[-1]))
