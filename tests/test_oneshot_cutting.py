"""Whether mixtures scale channels where they are read alone: only where nothing but elastic layers reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from supernets import CLASSES, FEATURES, points
from torch import Tensor
from torch.nn import functional as F

from nasmw import Search, nn
from nasmw.context import Context
from nasmw.nn.rules import Rule
from nasmw.oneshot import Recipe, TensorData
from nasmw.oneshot.cutting import cut_where_read
from nasmw.oneshot.training import Training
from nasmw.strategies.oneshot import ProxylessNAS


class Net(nn.ModelSpace):
    """A hidden width, and what becomes of the outputs of the layer that reads it."""

    def __init__(self, between: Callable[[Any], Any] = lambda width: torch.nn.ReLU()) -> None:
        super().__init__()
        width = nn.choice("width", (2, 4, 8))
        self.inner, self.between, self.outer = nn.Linear(FEATURES, width), between(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.outer(self.between(self.inner(x)))


class Masked(nn.ModelSpace):
    """Queries and keys of a chosen width, whose product reads them; some outputs may be a constant."""

    def __init__(self, mask: float | None) -> None:
        super().__init__()
        width = nn.choice("width", (2, 8, 16))
        self.query, self.key = nn.Linear(FEATURES, width), nn.Linear(FEATURES, width)
        self.head = torch.nn.Linear(1, CLASSES + 1)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.head((self.query(x) * self.key(x)).sum(dim=1, keepdim=True))
        return outputs if self.mask is None else outputs.masked_fill(torch.arange(CLASSES + 1) == CLASSES, self.mask)


class Branch(nn.ModelSpace):
    """A branch that reads the width by other means, and adds nothing at first."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(FEATURES, nn.choice("width", (2, 8)))
        self.branch, self.head = torch.nn.Linear(1, CLASSES), torch.nn.Linear(FEATURES, CLASSES)
        torch.nn.init.zeros_(self.branch.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + self.branch(self.hidden(x).relu().mean(dim=1, keepdim=True))


class Own(torch.nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Sizes(Rule):
    sizes = frozenset({"size"})


class Written(Sizes):
    def written(self, name: str, arguments: dict[str, Any]) -> frozenset[int]:
        return frozenset({0})


def once(space: nn.ModelSpace, data: Any = None, **recipe: Any) -> bool:
    training = Training(Context(space), space, data or points(), Recipe(**recipe), name="x", identity="")
    noise, modes = torch.get_rng_state(), [module.training for module in training.supernet.modules()]
    before = {name: value.clone() for name, value in training.supernet.state_dict().items()}
    found = cut_where_read(training)
    assert torch.equal(torch.get_rng_state(), noise)
    assert [module.training for module in training.supernet.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in training.supernet.state_dict().items())
    assert not training.supernet._switch.mixing
    return found


@pytest.mark.parametrize(
    ("between", "seen"),
    [
        (lambda width: torch.nn.ReLU(), True),
        (lambda width: torch.nn.Sequential(nn.BatchNorm1d(width), nn.PReLU(width), torch.nn.Dropout(0.5)), True),
        (lambda width: nn.LayerNorm(width), True),
        (lambda width: nn.LayerChoice([nn.Linear(width, width), torch.nn.Identity()]), True),
        (lambda width: nn.elastic(Own, rule=Written())(width), True),
        (lambda width: nn.elastic(Own, rule=Sizes())(width), False),
        (lambda width: torch.nn.Softmax(dim=1), False),
        (lambda width: nn.LayerChoice([torch.nn.ReLU(), torch.nn.Softmax(dim=1)]), False),
        (lambda width: nn.LayerChoice([torch.nn.ReLU(), torch.nn.Softmax(dim=1), torch.nn.Tanh()]), False),
    ],
)
def test_channels_that_elastic_layers_alone_read(between: Callable[[Any], Any], seen: bool) -> None:
    assert once(Net(between)) == seen


@pytest.mark.parametrize("number", [0, 1])
def test_a_reader_in_any_block_is_seen(number: int) -> None:
    def block(at: int) -> torch.nn.Module:
        width = nn.choice(f"width{at}", (4, 8))
        between = torch.nn.Softmax(dim=1) if at == number else torch.nn.ReLU()
        return torch.nn.Sequential(nn.Linear(FEATURES, width), between, nn.Linear(width, FEATURES))

    class Blocks(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = nn.Repeat(block, nn.choice("depth", (1, 2))), torch.nn.Linear(FEATURES, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(x))

    assert not once(Blocks())


@pytest.mark.parametrize("mask", [None, -1e9, -torch.inf])
def test_a_large_constant_hides_no_reader(mask: float | None) -> None:
    assert not once(Masked(mask))


def test_a_branch_that_starts_at_zero_hides_no_reader() -> None:
    assert not once(Branch())


def test_networks_that_draw_in_every_mode_are_compared_for_the_same_draws() -> None:
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.outer(F.dropout(self.inner(x).relu(), 0.3))

    assert once(Noisy())


def test_outputs_may_be_what_the_loss_takes() -> None:
    class Named(Net):
        def forward(self, x: Tensor) -> Any:
            return {"scores": super().forward(x), "nothing": None}

    assert once(Named(), loss=lambda outputs, targets: F.cross_entropy(outputs["scores"], targets))


def test_inputs_of_half_precision_run_as_in_training() -> None:
    x, y = torch.randn(16, FEATURES).bfloat16(), torch.arange(16) % CLASSES
    data = TensorData((x, y), (x, y), batch=8)
    assert once(Net(), data, precision="bfloat16")


def test_what_runs_on_no_drawn_weights_is_scaled_everywhere() -> None:
    class Choosy(Net):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training or bool((self.outer.bias.abs() > 0.45).any()):
                raise ArithmeticError
            return super().forward(x)

    assert not once(Choosy())


def test_lazy_layers_are_trained_all_the_same() -> None:
    class Lazy(Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.LazyLinear(CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(super().forward(x))

    result = Search(Lazy(), ProxylessNAS(points(), Recipe(epochs=1)), lambda trial: 0.0, progress=False).run(trials=1)
    assert len(result.trials) == 1


def test_many_options_of_one_layer_are_tried_two_at_a_time() -> None:
    class Wide(nn.ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            first, second = (nn.choice(name, tuple(range(1, 66))) for name in ("first", "second"))
            self.layers = torch.nn.Sequential(
                nn.Linear(FEATURES, first), nn.Linear(first, second), nn.Linear(second, CLASSES)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    assert once(Wide())
    strategy = ProxylessNAS(points(8, 8), Recipe(epochs=1))
    assert len(Search(Wide(), strategy, lambda trial: 0.0, progress=False).run(trials=1).trials) == 1
