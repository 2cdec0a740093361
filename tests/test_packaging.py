"""What the wheel holds, and what importing it asks for."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKS = {"nasmw/strategies": "../strategies", "nasmw/profilers": "../profilers"}
OPTIONAL = (
    "onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "matplotlib",
    "mlxtend",
    "lightgbm",
    "lightning",
    "nn_meter",
    "optuna",
    "nevergrad",
    "pymoo",
    "pytest",
    "hypothesis",
)

# An old build/ or egg-info beside the sources would slip into a wheel, so each build starts from a bare copy.
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "nasmw", "strategies", "profilers")


def files_on_disk() -> set[str]:
    """Every file of the package, the linked sub-packages included, as a path from the root."""
    return {
        (Path(folder) / name).relative_to(ROOT).as_posix()
        for folder, _, names in os.walk(ROOT / "nasmw", followlinks=True)
        for name in names
        if "__pycache__" not in folder and not name.startswith(".")
    }


def modules_on_disk() -> list[str]:
    paths = sorted(Path(name) for name in files_on_disk() if name.endswith(".py"))
    parts = [path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts for path in paths]
    return [".".join(names) for names in parts if names[-1] != "__main__"]


def files_in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a `wheel` or an `sdist` with the setuptools at hand, which needs no network."""
    target.mkdir(exist_ok=True)
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.iterdir()
    return built


def python(code: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def test_wheel_holds_what_stands_on_disk(wheel: Path) -> None:
    on_disk, in_wheel = files_on_disk(), files_in_wheel(wheel)
    missing, extra = sorted(on_disk - in_wheel), sorted(in_wheel - on_disk)
    assert not missing, f"not in the wheel; name the package (or the kind of data) in setup.cfg: {missing}"
    assert not extra, f"in the wheel, but not on disk: {extra}"


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {Path(name).parent for name in files_on_disk() if name.endswith(".py")}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(("link", "target"), LINKS.items())
def test_links_are_relative(link: str, target: str) -> None:
    assert os.readlink(ROOT / link) == target


def test_installed_wheel_is_what_gets_imported(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    out = python(
        "import nasmw.profilers, nasmw.strategies; print(nasmw.profilers.__file__); print(nasmw.strategies.__file__)",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "site"),
    )
    expected = [tmp_path / "site/nasmw" / name / "__init__.py" for name in ("profilers", "strategies")]
    assert [Path(line) for line in out.splitlines()] == expected


def test_imports_need_no_extra(tmp_path: Path) -> None:
    # nasmw.testing serves test suites, which have pytest and hypothesis.
    modules = [name for name in modules_on_disk() if not name.startswith("nasmw.testing")]
    code = f"import importlib, sys; sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"
    code += f"for name in {modules!r}: importlib.import_module(name)"
    python(code, cwd=tmp_path)


@pytest.mark.slow
def test_sdist_builds_the_same_wheel(source: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", source, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = build("wheel", unpacked, tmp_path / "wheel")
    assert files_in_wheel(again) == files_in_wheel(wheel)
