"""The examples of learned latency run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the extra `plot` is not installed")
def test_the_notebook_runs(capsys: pytest.CaptureFixture[str]) -> None:
    import matplotlib

    notebook = json.loads((EXAMPLES / "latency_prediction.ipynb").read_text(encoding="utf-8"))
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    finally:
        matplotlib.use(before)
    printed = capsys.readouterr().out
    assert "transferred:" in printed and printed.rstrip().endswith("True")


def test_the_notebook_holds_no_outputs() -> None:
    notebook = json.loads((EXAMPLES / "latency_prediction.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.parametrize("data", [False, True])
def test_search_under_learned_latency_runs(data: bool, tmp_path: Path) -> None:
    if data and not (Path(os.environ.get("NASMW_DATA", "")) / "ofa/acc_predictor.npz").is_file():
        pytest.skip("NASMW_DATA names no folder with ofa/acc_predictor.npz")
    environment = {**os.environ} if data else {k: v for k, v in os.environ.items() if k != "NASMW_DATA"}
    command = [sys.executable, str(EXAMPLES / "ofa_learned_latency.py"), "--networks", "5", "--trials", "30"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=800, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "learned from 5 networks" in done.stdout and done.stdout.count("ms measured") == 3
