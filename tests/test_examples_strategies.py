"""The examples of strategies of other libraries, and of the policy gradient, run with and without published data."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
DATA = os.environ.get("NASMW_DATA")
with_and_without_data = pytest.mark.parametrize(
    "data",
    [
        None,
        pytest.param(DATA, marks=pytest.mark.skipif(not DATA, reason="NASMW_DATA names no folder of published data")),
    ],
    ids=["formula", "published"],
)


def printed_by(
    example: str, data: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *given: str
) -> str:
    monkeypatch.delenv("NASMW_DATA", raising=False)
    arguments = [example, *given, *(["--data", data] if data else [])]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(EXAMPLES / example), run_name="__main__")
    printed = capsys.readouterr().out
    assert ("no --data, and no NASMW_DATA" in printed) == (data is None)
    return printed


@with_and_without_data
def test_optuna_with_a_chain(
    data: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
    before = optuna.logging.get_verbosity()
    printed = printed_by("optuna_with_a_chain.py", data, monkeypatch, capsys, "--trials", "60")
    optuna.logging.set_verbosity(before)
    most = re.search(r"60 trials, all of at most ([\d.]+) million", printed)
    best = re.search(r"best: ([\d.]+) % with ([\d.]+) million", printed)
    assert most and float(most[1]) <= 60.0
    assert best and float(best[1]) > 80.0 and float(best[2]) <= 60.0


@with_and_without_data
def test_nevergrad_under_a_limit(
    data: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nevergrad", reason="the extra `nevergrad` is not installed")
    printed = printed_by("nevergrad_under_a_limit.py", data, monkeypatch, capsys, "--trials", "12")
    found = re.search(r"best: ([\d.]+) with (\d+) million", printed)
    assert found and float(found[2]) <= 250
    assert "infeasible" in printed  # Nevergrad knows nothing of the limit, and is turned away


@with_and_without_data
def test_policy_gradient_reward(
    data: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = printed_by("policy_gradient_reward.py", data, monkeypatch, capsys, "--trials", "160")
    means = [float(mean) for mean in re.findall(r"mean reward ([\d.]+)", printed)]
    assert len(means) == 4 and means[3] > means[0]
    memory = re.search(r"([\d.]+) MiB of weights", printed)
    assert memory and float(memory[1]) <= 32.0
