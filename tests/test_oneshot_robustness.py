"""Trainings that meet bad data, folders and losses, and searches that collapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from supernets import CLASSES, FEATURES, QUICK, Tiny, cost_of, points

from nasmw import Chain, Filter, Penalize, Search, nn
from nasmw.errors import ConstraintError, EvaluationError, LogError
from nasmw.oneshot import DatasetData, Hook, Recipe, SupernetEvaluator, TensorData, Training
from nasmw.profilers import ParamsProfiler
from nasmw.strategies import Random
from nasmw.strategies.oneshot import DARTS, Differentiable, GumbelDARTS, ProxylessNAS
from nasmw.strategies.oneshot.collapse import Skips

ALL: tuple[type[Differentiable], ...] = (DARTS, GumbelDARTS, ProxylessNAS)


def one(trial: Any) -> float:
    return 1.0


def quiet(space: Any, chain: Any, evaluate: Any = one, **more: Any) -> Any:
    return Search(space, chain, evaluate, progress=False, **more)


# -- losses ------------------------------------------------------------------------------------------------------------


class Spoil(Hook):
    """Makes a weight no number after the first epoch."""

    def step(self, training: Training, loss: float) -> None:
        if training.epochs == 1:
            training.supernet.get_parameter("neck.weight").data.fill_(float("nan"))


@pytest.mark.parametrize("kind", [*ALL, SupernetEvaluator])
def test_a_loss_that_is_no_number_breaks_off_and_the_last_epoch_is_gone_on_with(kind: Any, tmp_path: Path) -> None:
    def search(log: str, hooks: tuple[Hook, ...]) -> Any:
        space = Tiny()
        recipe = Recipe(epochs=3, rate=0.1)
        if kind is SupernetEvaluator:
            return quiet(space, Random(), SupernetEvaluator(space, points(), recipe, hooks=hooks), log=tmp_path / log)
        return quiet(space, kind(points(), recipe, hooks=hooks), log=tmp_path / log)

    with pytest.raises(EvaluationError, match="diverged in epoch 2: its loss.* is nan; lower the rate"):
        search("run.db", (Spoil(),)).run(trials=2)
    rows = [
        [(t.codes, dict(t.metrics)) for t in search(log, ()).run(trials=2).trials] for log in ("run.db", "whole.db")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("kind", [DARTS, ProxylessNAS])
def test_validation_data_that_are_no_numbers_teach_nothing_in_silence(kind: Any) -> None:
    inputs, targets = points()._splits["train"]
    data = TensorData((inputs, targets), (torch.full_like(inputs, torch.nan), targets), batch=8)
    with pytest.raises(EvaluationError, match="its loss on the validation data is nan"):
        quiet(Tiny(), kind(data, QUICK)).run(trials=1)


# -- data --------------------------------------------------------------------------------------------------------------


class Batches:
    """Data of a user's own that say one number of batches and give another one."""

    def __init__(self, train: int, validation: int, said: int) -> None:
        self.given = {"train": train, "validation": validation}
        self.said = said

    def batches(self, split: str, generator: Any = None) -> Any:
        for _ in range(self.given[split]):
            yield torch.randn(4, FEATURES), torch.arange(4) % CLASSES

    def steps(self, split: str) -> int:
        return self.said if split == "train" else self.given[split]

    def __repr__(self) -> str:
        return "Batches()"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Batches(0, 2, 0), r"Batches\(\) has no batch for training"),
        (Batches(0, 2, 3), "gives no batches of the split 'train', and its steps.* is 3"),
        (Batches(2, 2, 3), "gives 2 batches of the split 'train', and its steps.* is 3"),
        (Batches(4, 2, 3), "gives more than 3 batches of the split 'train'"),
    ],
)
def test_data_give_the_batches_that_they_say(data: Any, message: str) -> None:
    space = Tiny()
    for evaluate, chain in ((one, GumbelDARTS(data, QUICK)), (SupernetEvaluator(space, data, QUICK), Random())):
        with pytest.raises(ValueError, match=message):
            quiet(space, chain, evaluate).run(trials=1)


def test_validation_without_batches_is_no_endless_loop() -> None:
    with pytest.raises(ValueError, match="gives no batches of the split 'validation'"):
        quiet(Tiny(), DARTS(Batches(2, 0, 2), QUICK)).run(trials=1)


def test_datasets_for_validation_are_not_empty() -> None:
    dataset = torch.utils.data.TensorDataset(*points()._splits["train"])
    with pytest.raises(ValueError, match="no examples for validation"):
        DatasetData(dataset, [], 8, name="points")


def test_a_last_batch_of_one_is_left_out_of_training() -> None:
    inputs, targets = points()._splits["train"]
    data = TensorData((inputs[:9], targets[:9]), (inputs[:9], targets[:9]), batch=4)
    space = Tiny()
    assert data.steps("train") == 2
    assert quiet(space, Random(), SupernetEvaluator(space, data, QUICK)).run(trials=2).trials
    assert quiet(space, DARTS(data, QUICK)).run(trials=2).trials


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_known_before_training(tmp_path: Path) -> None:
    (tmp_path / "run.db.weights").write_text("a file of that name")

    class Never(Hook):
        def step(self, training: Training, loss: float) -> None:
            raise AssertionError("trained")

    with pytest.raises(LogError, match="weights of darts are to be kept in .*run.db.weights.*nothing can be written"):
        quiet(Tiny(), DARTS(points(), QUICK, hooks=[Never()]), log=tmp_path / "run.db").run(trials=1)


def test_two_runs_in_one_folder_keep_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        quiet(Tiny(), DARTS(points(), QUICK), log=tmp_path / f"{seed}.db", seed=seed).run(trials=1)
    files = [tmp_path / f"{seed}.db.weights" / "darts-2.pt" for seed in (0, 1)]
    assert files[0].read_bytes() != files[1].read_bytes()


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_limits_at_the_ends_several_and_with_penalties(kind: type[Differentiable]) -> None:
    space = Tiny()
    cost = cost_of(space)
    bounds = cost.bounds()
    with pytest.raises(ConstraintError, match="the least cost is 4"):
        quiet(space, Chain(kind(points(), QUICK), Filter(cost <= bounds.low - 1))).run(trials=1)
    chains = [
        ([Filter(cost <= bounds.low)], bounds.low, bounds.low),
        ([Filter(cost >= bounds.high)], bounds.high, bounds.high),
        ([Filter(cost <= bounds.high)], bounds.low, bounds.high),
        ([Filter(cost <= 12, cost >= 6)], 6, 12),
        ([Filter(cost <= 12), Filter(cost >= 6)], 6, 12),
        ([Filter((cost >= 7) & (cost <= 7))], 7, 7),
        ([Penalize(cost, target=5.0, weight=0.3), Filter(cost <= 9)], 4, 9),
        ([Filter(cost <= 9), Penalize(cost, target=5.0, weight=0.3, form="power")], 4, 9),
    ]
    for stages, low, high in chains:
        strategy = kind(points(), Recipe(epochs=1))
        found = quiet(space, Chain(strategy, *stages)).run(trials=3).trials
        assert found
        assert all(low <= cost.profile(trial.architecture) <= high for trial in found), stages


# -- collapse ----------------------------------------------------------------------------------------------------------


class Skipping(nn.ModelSpace):
    """Four layers that only do harm, in a list and in a cell, and one without a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *[
                nn.LayerChoice({"lin": Harmful(), "skip": skip()}, label=f"op{at}")
                for at, skip in enumerate((nn.Identity, lambda: nn.Sequential(nn.Identity()), nn.Identity))
            ]
        )
        self.cell = nn.Cell({"lin": Harmful(), "skip": nn.Identity()}, 1, label="cell")
        self.act = nn.LayerChoice([nn.ReLU(), nn.Tanh()], label="act")
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.cell(self.blocks(x))))


class Plain(nn.ModelSpace):
    """No layer can be skipped."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.LayerChoice([nn.ReLU(), nn.Tanh()], label="act")
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(x))


class Harmful(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(FEATURES, FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.0 * self.layer(x)


def test_skips_are_told_from_other_options() -> None:
    skips = Skips(Skipping())
    assert set(skips.options) == {"op0", "op1", "op2", "cell/op_1_0"}
    assert skips.options["op1"] == {"skip"}
    assert skips.count({"op0": "skip", "op1": "lin", "act": 0}) == (1, 2)
    assert not Skips(Tiny()).count({"hidden": 2})[1]


def test_collapse_is_reported_without_and_with_a_cost(caplog: Any) -> None:
    space = Skipping()
    params = ParamsProfiler(space, progress=False)
    recipe = Recipe(epochs=15, rate=0.1)
    for stages, reason in (
        ([], "no cost was paid for, so their price is not the reason"),
        ([Penalize(params, target=100.0, weight=0.5)], "the loss has cost terms (<Penalty absolute on params"),
    ):
        caplog.clear()
        strategy = DARTS(points(96), recipe, architecture_rate=0.3)
        quiet(space, Chain(strategy, *stages)).run(trials=1)
        assert strategy.history[-1]["skips"] == strategy.history[-1]["skippable"] == 4
        (message,) = [record.getMessage() for record in caplog.records if "collapse" in record.getMessage()]
        assert "the likeliest network of DARTS skips 4 of the 4 layers" in message
        assert "of 15" in message and reason in message


@pytest.mark.parametrize("kind", ALL)
def test_history_counts_skips_where_there_are_some(kind: type[Differentiable]) -> None:
    for space, told in ((Skipping(), True), (Tiny(), True), (Plain(), False)):
        strategy = kind(points(), QUICK)
        quiet(space, strategy).run(trials=1)
        assert all(("skips" in record) == ("skippable" in record) == told for record in strategy.history)
        if told:
            last = strategy.history[-1]
            assert last["skips"] == sum(option == "skip" for option in last["likeliest"].values())


def test_no_collapse_is_reported_where_there_is_none(caplog: Any) -> None:
    skips = Skips(Skipping())
    history = [{"skips": 4, "skippable": 4}, {"skips": 2, "skippable": 4}]
    assert skips.report("DARTS", history, ()) is None
    assert skips.report("DARTS", [], ()) is None
    assert skips.report("DARTS", [{"loss": 1.0}], ()) is None
    text = skips.report("DARTS", [*history, *[{"skips": 3, "skippable": 4}] * 2], ("macs <= 5",))
    assert text is not None and "since epoch 3 of 4" in text and "cost terms (macs <= 5)" in text
    assert len(caplog.records) == 1


def test_a_limit_that_was_never_felt_is_no_reason() -> None:
    space = Skipping()
    params = ParamsProfiler(space, progress=False)
    strategy = DARTS(points(), QUICK)
    quiet(space, Chain(strategy, Filter(params <= params.bounds().high))).run(trials=1)
    assert strategy._costs.dear(strategy.history) == ()
    text = f"params <= {params.bounds().high:.0f}"
    assert strategy._costs.dear([{f"multiplier of {text}": 0.1}]) == (text,)
