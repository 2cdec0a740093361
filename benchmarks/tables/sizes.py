"""Benchmarks over channels and blocks: the size space of NATS-Bench, NAS-Bench-Macro, Channel-Bench-Macro."""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable
from typing import Literal

import numpy as np

from nasmw import Choice, Space
from nasmw.candidates import Architecture
from nasmw.spaces import nats_size
from tables.files import DATASETS, arrays, dataset_number
from tables.table import Benchmark, Evaluate

__all__ = ["ChannelBenchMacro", "NASBenchMacro", "NATSSize"]

CLASSES = (10, 100, 120)
SIZES = (32, 32, 16)
STAGES = (0, 2, 5, 8)
BLOCKS = ("identity", "mb3_k3", "mb6_k5")
WIDTHS = (0.25, 0.5, 0.75, 1.0)


class NATSSize(Benchmark):
    """The size space of NATS-Bench on one of its data sets; rows are in the official order.

    Columns: ``test90`` (accuracy in percent after 90 epochs, one seed), ``params``.

    Args:
        dataset: ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``.
        folder: The data folder; by default what ``NASMW_DATA`` names.

    Raises:
        MissingDataError: If the file is missing.
        ValueError: If the data set is another one.

    Source: Dong et al., NATS-Bench, TPAMI 2021.
    """

    def __init__(self, dataset: str = "cifar10", folder: str | os.PathLike[str] | None = None) -> None:
        place = dataset_number(dataset)
        self.dataset = dataset
        file = arrays("nats_sss/nats_sss.npz", folder)
        if list(file["datasets"]) != list(DATASETS):
            raise ValueError(f"nats_sss.npz holds the data sets {list(file['datasets'])}, not {DATASETS}")
        space = nats_size(CLASSES[place], SIZES[place])
        codes = np.searchsorted(np.array(space.choices[0].options), file["channels"]).astype(space.dtype)
        super().__init__(space, codes, {"test90": file["test90"][:, place], "params": file["params"][:, place]})

    @property
    def evaluate(self) -> Evaluate:
        """Returns ``accuracy``, that on the test images: the files have no other."""
        return Evaluate(self.index, {90: {"accuracy": self.columns["test90"]}})


class _Macro(Benchmark):
    """Networks that were trained three times on CIFAR-10."""

    def __init__(self, space: Space, name: str, least: int, folder: str | os.PathLike[str] | None) -> None:
        file = arrays(f"nb_macro/{name}_cifar10.npz", folder)
        runs = file["test_acc"].astype(np.float64)
        columns = {"accuracy": runs.mean(axis=1), "params": file["params"], "flops": file["flops"]}
        super().__init__(space, file["arch"] - least, columns)
        self._runs = runs

    @property
    def evaluate(self) -> Evaluate:
        """Returns ``accuracy``, the mean of three runs on the test images, in percent."""
        return Evaluate(self.index, {1: {"accuracy": self.columns["accuracy"]}})

    @property
    def evaluate_once(self) -> Evaluate:
        """Returns ``accuracy`` of one of the three runs; the trial's seed says which."""
        return Evaluate(self.index, {1: {"accuracy": self._runs}})


def _macro_function(architecture: Architecture) -> Hashable:
    """Return what is computed: it does not matter where among the layers behind the first of a stage identities are."""
    layers = [architecture[f"layer{number}"] for number in range(8)]
    stages = [layers[start:end] for start, end in itertools.pairwise(STAGES)]
    return tuple((first, *(block for block in rest if block != "identity")) for first, *rest in stages)


class NASBenchMacro(_Macro):
    """NAS-Bench-Macro: eight layers, each an identity or one of two inverted residual blocks; 6,561 networks.

    3,969 of them are different functions, which `Space.function_keys` tells apart.

    Columns: ``accuracy`` (mean of three runs on the test images of CIFAR-10, in percent), ``params``, ``flops``.

    Args:
        folder: The data folder; by default what ``NASMW_DATA`` names.

    Raises:
        MissingDataError: If the file is missing.

    Source: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        layers = [Choice(f"layer{number}", BLOCKS) for number in range(8)]
        space = Space(layers, name="nasbench_macro", function_key=_macro_function)
        super().__init__(space, "nas_bench_macro", 0, folder)


class ChannelBenchMacro(_Macro):
    """Channel-Bench-Macro: the widths of seven layers, each one of four; 16,384 networks.

    Columns: as for `NASBenchMacro`.

    Args:
        family: ``"resnet"`` or ``"mobilenet"``.
        folder: The data folder; by default what ``NASMW_DATA`` names.

    Raises:
        MissingDataError: If the file is missing.
        ValueError: If the family is another one.

    Source: Su et al., BCNet, CVPR 2021, and its extension, which trained every network.
    """

    def __init__(
        self, family: Literal["resnet", "mobilenet"] = "resnet", folder: str | os.PathLike[str] | None = None
    ) -> None:
        if family not in ("resnet", "mobilenet"):
            raise ValueError(f"the family is 'resnet' or 'mobilenet', got {family!r}")
        space = Space([Choice(f"layer{number}.width", WIDTHS) for number in range(7)], name=f"channel_bench_{family}")
        super().__init__(space, f"channel_bench_{family}", 1, folder)
