from __future__ import annotations

import importlib
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nasmw.candidates import Status
from nasmw.choice import Choice
from nasmw.errors import BuildError, EvaluationError, LogError, MissingExtraError
from nasmw.lightning import metrics_callback
from nasmw.space import Space
from nasmw.trial import Task, TaskResult, Trial, run_task


def build(architecture: dict[str, Any]) -> nn.Module:
    return nn.Linear(2, architecture["width"])


SPACE = Space([Choice("width", (2, 4))], build)


def trial(seed: int = 7, folder: str | None = None, number: int = 3) -> Trial:
    return Trial(Task(number, {"width": 4}, seed, folder), SPACE)


def outcome(value: Any) -> TaskResult:
    return run_task(Task(0, {"width": 4}, 0), SPACE, lambda _: value)


# -- the trial ------------------------------------------------------------------------------------------------------


def test_a_model_is_a_function_of_the_seed() -> None:
    first, again, other = trial(1).model(), trial(1).model(), trial(2).model()
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.shape == (4, 2)


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    trial().model()
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(BuildError, match="without `build`"):
        Trial(Task(0, {"width": 4}, 0), Space([Choice("width", (2, 4))])).model()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_largest_seed_is_accepted() -> None:
    trial(2**63 - 1).model()


def test_changing_the_architecture_changes_nothing_but_the_trials_own_dict() -> None:
    task = Task(0, {"width": 4}, 0)
    mine = Trial(task, SPACE)
    mine.architecture["width"] = 2
    assert task.architecture == {"width": 4}
    assert mine.model().weight.shape == (4, 2)


def test_the_device_is_passed_on() -> None:
    assert run_task(Task(0, {"width": 4}, 0), SPACE, lambda trial: float(trial.device == "cpu:1"), "cpu:1").metrics == {
        "": 1.0
    }


def test_a_trial_shows_its_number_and_architecture() -> None:
    assert repr(trial()) == "Trial(3, {'width': 4})"


@pytest.mark.parametrize("step", [1.0, "1", True, None])
def test_a_step_is_an_integer(step: Any) -> None:
    with pytest.raises(EvaluationError, match="an integer step, got"):
        trial().report(step, 0.0)


def test_a_reported_value_is_a_number() -> None:
    mine = trial()
    mine.report(np.int64(1), torch.tensor(0.5))  # type: ignore[arg-type]
    mine.report(2, float("inf"))
    assert mine.reports == ((1, 0.5), (2, float("inf")))
    assert [type(item) for item in mine.reports[0]] == [int, float]
    with pytest.raises(EvaluationError, match=r"trial.report: the value the str 'high'"):
        mine.report(3, "high")  # type: ignore[arg-type]


def test_reports_of_a_failed_evaluation_are_kept() -> None:
    def evaluate(trial: Trial) -> float:
        trial.report(0, 0.25)
        raise RuntimeError("diverged")

    result = run_task(Task(0, {"width": 4}, 0), SPACE, evaluate)
    assert (result.reports, result.reason) == (((0, 0.25),), "RuntimeError: diverged")


# -- weights --------------------------------------------------------------------------------------------------------


def test_saved_weights_read_back(tmp_path: Path) -> None:
    mine = trial(folder=str(tmp_path / "weights"))
    mine.save(trial(1).model())
    model = mine.model()
    mine.save(model)
    saved = torch.load(tmp_path / "weights" / "3.pt", weights_only=True)
    assert torch.equal(saved["weight"], model.weight)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["3.pt"]


def test_a_write_that_fails_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = trial(folder=str(tmp_path))
    mine.save(mine.model())
    before = (tmp_path / "3.pt").read_bytes()

    def full_disk(state: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        mine.save(mine.model())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("3.pt", before)]


def test_saving_needs_a_log_and_a_module(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"needs a run with a log: pass Search\(\.\.\., log='run.db'\)"):
        trial().save(nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"takes a torch\.nn\.Module, got dict"):
        trial(folder=str(tmp_path)).save({})  # type: ignore[arg-type]


# -- what evaluate returns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(1, 1.0, np.float32(1), np.int64(1), np.array(1.0)),
        *(torch.tensor(1.0), torch.tensor(1), torch.ones((), dtype=torch.bfloat16)),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'dtype', '')}",
)
def test_numbers_of_all_kinds(value: Any) -> None:
    result = outcome(value)
    assert (result.status, result.metrics, result.reason) == (Status.COMPLETED, {"": 1.0}, "")
    assert result.metrics is not None
    assert type(result.metrics[""]) is float
    assert outcome({"accuracy": value, "loss": 2}).metrics == {"accuracy": 1.0, "loss": 2.0}
    assert outcome(OrderedDict(accuracy=value)).metrics == {"accuracy": 1.0}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_arrive_unchanged(value: float) -> None:
    assert outcome({"loss": value}).metrics == {"loss": value}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, r"evaluate returned None \(is the `return` missing\?\)"),
        (True, r"evaluate returned the bool True \(write float\(True\)"),
        (np.bool_(True), "evaluate returned"),
        ("0.5", "evaluate returned the str '0.5'; wanted is a number, or a mapping"),
        (1 + 2j, "the complex"),
        ([0.5], r"the list \[0.5\]"),
        ((0.5, 1.0), r"the tuple \(0.5, 1.0\)"),
        (torch.ones(2), r"a Tensor of shape \(2,\)"),
        (np.ones((1, 1)), r"a ndarray of shape \(1, 1\)"),
        (float("nan"), "evaluate returned nan, which is not finite"),
        (torch.tensor(float("inf")), "evaluate returned inf, which is not finite"),
        (10**400, "too large for a float"),
        ({}, "an empty mapping"),
        ({"loss": float("nan"), "accuracy": 1.0}, "as metric 'loss', nan, which is not finite"),
        ({"accuracy": None}, "as metric 'accuracy', None"),
        ({"accuracy": False}, "as metric 'accuracy', the bool False"),
        ({1: 0.5}, "a metric named 1; names are non-empty strings"),
        ({"": 0.5}, "a metric named ''"),
    ],
    ids=repr,
)
def test_what_cannot_be_metrics_is_a_failure(value: Any, reason: str) -> None:
    result = outcome(value)
    assert (result.status, result.metrics) == (Status.FAILED, None)
    assert re.search(reason, result.reason)
    assert "\n" not in result.reason


# -- failures -------------------------------------------------------------------------------------------------------


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (KeyError("accuracy"), "KeyError: 'accuracy'"),
        (MemoryError(), "MemoryError"),
        (EvaluationError("said so"), "said so"),
        (SystemExit(2), "SystemExit: 2"),
        (OSError("name \udcff"), r"OSError: name \udcff"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_reason_is_one_line_and_the_traceback_whole(error: BaseException, reason: str) -> None:
    def evaluate(trial: Trial) -> float:
        raise error

    result = run_task(Task(9, {"width": 4}, 0), SPACE, evaluate)
    assert (result.number, result.status, result.reason) == (9, Status.FAILED, reason)
    assert "in evaluate" in result.traceback
    assert "run_task" not in result.traceback
    result.traceback.encode()


def test_an_exception_without_text_is_a_failed_trial() -> None:
    def evaluate(trial: Trial) -> float:
        raise UnprintableError

    assert run_task(Task(0, {"width": 4}, 0), SPACE, evaluate).reason.startswith("UnprintableError: <")


def test_ctrl_c_is_no_failure_of_a_trial() -> None:
    def evaluate(trial: Trial) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_task(Task(0, {"width": 4}, 0), SPACE, evaluate)


# -- Lightning ------------------------------------------------------------------------------------------------------


def test_without_lightning_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str) -> Any:
        if name.partition(".")[0] in ("lightning", "pytorch_lightning"):
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'nasmw\[lightning\]'"):
        metrics_callback(trial())


@pytest.mark.filterwarnings("ignore")
def test_what_lightning_logs_are_the_metrics() -> None:
    pl = pytest.importorskip("lightning.pytorch")

    class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss: torch.Tensor = self.layer(batch).square().mean()
            self.log("loss", loss, on_epoch=True, on_step=False)
            return loss

        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.log("accuracy", 0.25 * (self.current_epoch + 1))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def fit(callback: Any) -> None:
        data = torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(max_epochs=3, callbacks=[callback], accelerator="cpu", enable_model_summary=False, **quiet)
        trainer.fit(Module(), data, data)

    mine = trial()
    callback = metrics_callback(mine, monitor="accuracy")
    assert isinstance(callback, pl.Callback)
    with pytest.raises(EvaluationError, match=r"logged no metric; call self\.log"):
        callback.metrics()
    fit(callback)
    assert callback.metrics()["accuracy"] == 0.75
    assert set(callback.metrics()) == {"accuracy", "loss"}
    assert mine.reports == ((0, 0.25), (1, 0.5), (2, 0.75))
    with pytest.raises(EvaluationError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        fit(metrics_callback(trial(), monitor="acuracy"))
