"""A space that is written as a PyTorch model: the example of docs/spaces_as_modules.md."""

import torch

from nasmw import Chain, Deduplicate, Filter, Search, nn
from nasmw.profilers import FlopsProfiler
from nasmw.strategies import Evolution


class Block(nn.Module):
    def __init__(self, channels, kernel, expansion):
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        return x + self.project(self.depthwise(self.expand(x).relu()).relu())


class Net(nn.ModelSpace):
    def __init__(self, classes):
        super().__init__()
        width = nn.choice("width", (8, 16))
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.blocks = nn.Repeat(lambda at: self.block(at, width), (1, 3), label="depth")
        self.head = nn.Linear(width, classes)

    def block(self, at, width):
        block = Block(width, nn.choice(f"kernel{at}", (3, 5)), nn.choice(f"expansion{at}", (1, 2)))
        return nn.LayerChoice({"block": block, "pool": nn.MaxPool2d(3, 1, 1)}, label=f"op{at}")

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(channels))

    def forward(self, x):
        return x * self.factor


MutableScale = nn.elastic(Scale)


def evaluate(trial):
    torch.manual_seed(trial.seed)
    with torch.inference_mode():
        return float(trial.model()(torch.rand(8, 1, 16, 16)).std())


if __name__ == "__main__":
    space = Net(classes=4)
    print(repr(space))
    print(*space.choices[:4], sep="\n")

    macs = FlopsProfiler(space, torch.zeros(1, 1, 16, 16), progress=False)
    strategy = Chain(Evolution(population=4), Deduplicate(), Filter(macs <= 30_000))
    result = Search(space, strategy, evaluate, seed=0, progress=False).run(trials=6)

    best = result.best.architecture
    model = space.build(best, weights=True).eval()
    with space.eval().activate(best), torch.no_grad():
        images = torch.rand(8, 1, 16, 16)
        print("one function:", torch.equal(space(images), model(images)))

    weights = {choice.name: torch.full((len(choice.options),), 1 / len(choice.options)) for choice in space.choices}
    with space.mix(weights):
        print("a mixture of all:", tuple(space(images).shape))
