"""The sources that travel to a device's process need nothing of nasmw, and the runtimes compute what PyTorch does."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import nasmw.devices.far

FOLDER = Path(nasmw.devices.far.__file__).parent
SOURCES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")
RUNTIMES = {"ncnn", "numpy", "onnxruntime", "openvino", "torch"}


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a source imports anywhere; a relative import counts as ``"."``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module).partition(".")[0])
    return names


def test_imports_are_found_wherever_they_stand() -> None:
    code = "import nasmw.space\ndef f():\n    from attrs import x\n    from . import y"
    assert imported(ast.parse(code)) == {"nasmw", "attrs", "."}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_far_side_imports_the_standard_library_numpy_and_its_runtime_alone(path: Path) -> None:
    packages = imported(ast.parse(path.read_text())) - set(sys.stdlib_module_names)
    assert packages <= RUNTIMES
    assert len(packages - {"numpy"}) <= 1, "one runtime for each module"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_far_side_is_understood_by_older_pythons(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_runtime_and_numpy_are_all_that_the_far_side_has(tmp_path: Path) -> None:
    """Measures with an interpreter that sees these two packages and no other."""
    pytest.importorskip("onnxruntime")
    from nasmw.devices import OnnxRuntime

    site = tmp_path / "site"
    site.mkdir()
    for package in ("numpy", "onnxruntime"):
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations is not None
        found = Path(spec.submodule_search_locations[0])
        for path in (found, found.parent / f"{package}.libs"):
            if path.exists():
                (site / path.name).symlink_to(path)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    assert subprocess.run([python, "-c", "import attrs"], capture_output=True).returncode, "it sees other packages"

    import torch
    from torch import nn

    device = OnnxRuntime(python=str(python))
    network, example = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    with device.open() as session:
        session.prepare("a", device.export(network, example))
        (output,) = session.infer("a", example.numpy())
        assert session.measure("a", runs=3).wall_ms.shape == (3,)
    assert torch.allclose(torch.from_numpy(output), network(example), atol=1e-5)
    assert os.access(python, os.X_OK)
