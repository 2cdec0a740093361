"""The pieces of the package nn-Meter that are used here, imported when they are needed.

Importing nn-Meter writes settings into ``~/.nn_meter``, and it logs to the standard output. Where that folder does not
exist, it is imported with a temporary home directory, and its log is limited to warnings; where a program has imported
it before, it stays as it is.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from nasmw.errors import MissingExtraError

__all__ = ["Package", "detector", "package", "package_predictor"]

EXTRA = "nn-meter"
BUILDER = "nn_meter.builder"
FORESTS = f"{BUILDER}.kernel_predictor_builder.predictor_builder.predictor_lib"


@attrs.frozen
class Package:
    """What is used of nn-Meter.

    Attributes:
        kernel_detector: Its `KernelDetector`: finds the kernels of a graph, by rules of what is fused.
        predictor: Its `nnMeterPredictor`: adds up what predictors say of the kernels of a graph.
        features: Its `get_predict_features`: the numbers that a predictor is asked about, for each kernel.
        kernel_name: The name of the predictor of a kernel, by the operators that it consists of.
        new_forest: Its `init_predictor`: a random forest of scikit-learn with the settings for a kind of kernel.
        blocks: Its networks of one kernel each, for PyTorch.
    """

    kernel_detector: Any
    predictor: Any
    features: Any
    kernel_name: Any
    new_forest: Any
    blocks: Any


@cache
def package() -> Package:
    """Return the pieces.

    Raises:
        MissingExtraError: If nn-Meter, or the setuptools that it needs, is not installed.
    """
    if sys.modules.get("nn_meter") is not None:
        return _import()
    with _isolated():
        found = _import()
    logging.getLogger("nn-Meter").setLevel(logging.WARNING)
    return found


def _import() -> Package:
    def piece(module: str, name: str) -> Any:
        return getattr(importlib.import_module(module), name)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources, which it imports, warns of its own end
            by_kernel = importlib.import_module("nn_meter.predictor.prediction.predict_by_kernel")
            return Package(
                kernel_detector=piece("nn_meter.kernel_detector", "KernelDetector"),
                predictor=piece("nn_meter.predictor", "nnMeterPredictor"),
                features=by_kernel.get_predict_features,
                kernel_name=lambda op: by_kernel.get_kernel_name(by_kernel.merge_conv_kernels(op)),
                new_forest=piece(FORESTS, "init_predictor"),
                blocks=importlib.import_module(f"{BUILDER}.nn_modules.torch_networks.blocks"),
            )
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        raise MissingExtraError(
            {"pkg_resources": "setuptools<81", "nn_meter": "nn-meter"}.get(name, name), EXTRA
        ) from error


@contextmanager
def _isolated() -> Iterator[None]:
    """Have the home directory elsewhere meanwhile, unless nn-Meter's settings are there already."""
    if Path("~/.nn_meter").expanduser().exists():
        yield
        return
    names = ("HOME", "USERPROFILE")
    before = {name: os.environ[name] for name in names if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(dict.fromkeys(names, folder))
        try:
            yield
        finally:
            for name in names:
                del os.environ[name]
            os.environ.update(before)


def detector(rules: Mapping[str, Any]) -> Any:
    """Return nn-Meter's kernel detector for rules of fusion, each rule's name with whether it is obeyed."""
    return _detector(tuple(sorted(rules.items())))


@cache
def _detector(rules: tuple[tuple[str, Any], ...]) -> Any:
    with _rules_file(rules) as path:
        return package().kernel_detector(path)


def package_predictor(predictors: Mapping[str, Any], rules: Mapping[str, Any]) -> Any:
    """Return nn-Meter's own predictor of networks from predictors of kernels, anything with its `predict`."""
    with _rules_file(rules.items()) as path:
        return package().predictor(dict(predictors), path)


@contextmanager
def _rules_file(rules: Iterable[tuple[str, Any]]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fusion_rules.json"
        path.write_text(json.dumps({name: {"obey": obey} for name, obey in rules}), encoding="utf-8")
        yield str(path)
