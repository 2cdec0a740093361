"""The examples run, and the demo goes on where it was."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import runpy
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nasmw import load

EXAMPLES = Path(__file__).parent.parent / "examples"
DEMO_NEEDS = ("mlxtend", "matplotlib", "onnx", "onnxruntime")
MISSING = [package for package in DEMO_NEEDS if importlib.util.find_spec(package) is None]
needs_demo = pytest.mark.skipif(bool(MISSING), reason=f"the extra `demo` is not installed: {', '.join(MISSING)}")


def command(example: str, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / example), *map(str, arguments)]


def run(example: str, *arguments: object, folder: Path) -> str:
    done = subprocess.run(command(example, *arguments), cwd=folder, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def demo_module() -> Any:
    spec = importlib.util.spec_from_file_location("mnist_cpu", EXAMPLES / "mnist_cpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nni_port_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "nni_port.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "FLOPs of layer1=conv: 276,369,504" in printed
    assert "Filter    infeasible  -2  <lambda>" in printed


def test_nni_port_reads_as_documented() -> None:
    code = (EXAMPLES / "nni_port.py").read_text()
    for line in (
        "profiler = FlopsProfiler(model_space, dummy_input)",
        "Chain(\n        Random(),\n        Filter(lambda sample: profiler.profile(sample) < 300e6)\n    )",
    ):
        assert line in code


def test_demo_space_is_large_and_its_networks_run() -> None:
    import numpy as np
    import torch

    demo = demo_module()
    assert demo.SPACE.size >= 10**6
    for architecture in demo.SPACE.sample(20, np.random.default_rng(0)):
        size = architecture["resolution"]
        assert demo.SPACE.build(architecture)(torch.randn(2, 1, size, size)).shape == (2, 10)


@needs_demo
def test_demo_splits_are_stratified_and_disjoint() -> None:
    demo = demo_module()
    for name, each in (("train", 300), ("validation", 100), ("test", 100)):
        pixels, labels = demo.split(name, 28)
        assert pixels.shape == (10 * each, 1, 28, 28)
        assert labels.bincount().tolist() == [each] * 10
    places = [range(500)[part] for part in demo.SPLITS.values()]
    assert sorted(place for part in places for place in part) == list(range(500))


@pytest.mark.slow
@needs_demo
def test_demo_writes_what_it_promises_and_starts_again(tmp_path: Path) -> None:
    first = run("mnist_cpu.py", "--trials", 4, "--folder", "out", "--log", "out/run.db", folder=tmp_path)
    for words in (
        "The funnel",
        "validation accuracy",
        "test accuracy",
        "MACs",
        "parameters",
        "measured latency",
        "Pareto",
    ):
        assert words in first
    for name in ("run.db", "pareto.png", "best/model.onnx", "best/weights.pt", "best/architecture.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0, name
    again = run("mnist_cpu.py", "--trials", 4, "--folder", "out", "--log", "out/run.db", folder=tmp_path)
    assert again == first
    assert json.loads((tmp_path / "out/best/architecture.json").read_text())["metrics"]["accuracy"] > 0.5


def finished(log: Path) -> int:
    try:
        with sqlite3.connect(f"{log.as_uri()}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM trials WHERE status IS NOT NULL").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.mark.slow
@needs_demo
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_demo_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "out/run.db"
    arguments = command("mnist_cpu.py", "--trials", 6, "--folder", "out", "--log", "out/run.db")
    process = subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while finished(log) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(random.Random(0).random())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = [trial for trial in load(log).trials if trial.status is not None]
    assert 2 <= len(before) < 6
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "the search goes on from trial" in done.stderr
    after = load(log).trials
    assert len(after) == len(load(log).completed) == 6
    for trial in before:  # nothing that had finished was evaluated or measured again
        kept = after[trial.number]
        assert (kept.codes, kept.columns, kept.metrics, kept.started) == (
            trial.codes,
            trial.columns,
            trial.metrics,
            trial.started,
        )


def test_nni_model_space_runs_with_its_imports_changed(capsys: pytest.CaptureFixture[str]) -> None:
    code = (EXAMPLES / "nni_model_space.py").read_text()
    assert "Chain(\n        Random(),\n        Filter(lambda sample: profiler.profile(sample) < 12e6)\n    )" in code
    runpy.run_path(str(EXAMPLES / "nni_model_space.py"), run_name="__main__")
    printed = capsys.readouterr().out
    macs = 26 * 26 * 9 * 32 + 24 * 24 * 9 * 32 * 64 + 9216 * 64 + 64 * 10
    assert f"FLOPs of layer1=conv, feature=64: {macs:,.0f}" in printed
