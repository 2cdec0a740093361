"""NAS-Bench-201: accuracies, training times, and latencies on 41 devices; energies of HW-NAS-Bench."""

from __future__ import annotations

import os
from functools import cached_property

import numpy as np

from nasmw.candidates import Floats
from nasmw.spaces import nasbench201
from tables.files import DATASETS, arrays, dataset_number
from tables.table import Benchmark, ColumnProfiler, Evaluate

__all__ = ["NASBench201"]

EPOCHS = (12, 200)
CLASSES = (10, 100, 120)
SIZES = (32, 32, 16)
TRAINED_ON = ("cifar10-valid", "cifar100", "ImageNet16-120")


class NASBench201(Benchmark):
    """NAS-Bench-201 on one of its data sets; rows are in the official order.

    Columns: ``val12``, ``test12`` (a schedule of 12 epochs of its own), ``val200``, ``test200`` (accuracies in
    percent), ``epoch_seconds`` (of one epoch of training), ``params``, ``mflops``. ``val200`` is the mean over seeds of
    release 1.1, on CIFAR-10 after training on half of the training images; ``test200`` is that of NATS-Bench.

    Args:
        dataset: ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``.
        folder: The data folder; by default what ``NASMW_DATA`` names.

    Raises:
        MissingDataError: If a file is missing.
        ValueError: If the data set is another one.

    Source: Dong, Yang, NAS-Bench-201, ICLR 2020; Dong et al., NATS-Bench, TPAMI 2021. Latencies: Lee et al., HELP,
    NeurIPS 2021; Dudziak et al., BRP-NAS, NeurIPS 2020; Li et al., HW-NAS-Bench, ICLR 2021.
    """

    def __init__(self, dataset: str = "cifar10", folder: str | os.PathLike[str] | None = None) -> None:
        place = dataset_number(dataset)
        self.dataset = dataset
        self._folder = folder
        space = nasbench201(CLASSES[place], SIZES[place])
        accuracy = arrays("nb201/nb201_accuracy.npz", folder)
        cost = arrays("nb201/nb201_cost.npz", folder)
        if list(accuracy["datasets"]) != list(DATASETS):
            raise ValueError(f"nb201_accuracy.npz holds the data sets {list(accuracy['datasets'])}, not {DATASETS}")
        trained = cost["epoch_train_columns"].tolist().index(TRAINED_ON[place])
        # The options of the space by the names in the file: codes may have another order.
        options = list(space.choices[0].options)
        code_of = np.array([options.index(name) for name in accuracy["op_names"].tolist()], dtype=space.dtype)
        super().__init__(
            space,
            code_of[accuracy["ops"]],
            {
                "val12": accuracy["val12"][:, place],
                "test12": accuracy["test12"][:, place],
                "val200": accuracy["val200_v11"][:, place],
                "test200": accuracy["test200"][:, place],
                "epoch_seconds": cost["epoch_train_s"][:, trained],
                "params": cost["params"][:, place],
                "mflops": cost["mflops"][:, place],
            },
        )

    @property
    def evaluate(self) -> Evaluate:
        """Returns ``accuracy`` (validation), ``test_accuracy`` and ``seconds`` of 12 or 200 epochs, the budget."""
        return Evaluate(
            self.index,
            {
                epochs: {
                    "accuracy": self.columns[f"val{epochs}"],
                    "test_accuracy": self.columns[f"test{epochs}"],
                    "seconds": self.columns["epoch_seconds"] * epochs,
                }
                for epochs in EPOCHS
            },
        )

    @cached_property
    def _latencies(self) -> dict[str, Floats]:
        file = arrays("latency/nb201_latency.npz", self._folder)
        return dict(zip(file["devices"].tolist(), file["latency_ms"].astype(np.float64).T, strict=True))

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices with a table of latencies."""
        return tuple(self._latencies)

    def latency(self, device: str) -> ColumnProfiler:
        """Return the latency on a device in milliseconds, named ``latency_<device>``.

        Raises:
            ValueError: If there is no table of the device.
        """
        if device not in self._latencies:
            raise ValueError(f"there is no table of {device!r}; there are {', '.join(self.devices)}")
        return ColumnProfiler(self.index, self.space, self._latencies[device], f"latency_{device}", "ms", device)

    @cached_property
    def _hardware(self) -> dict[str, tuple[str, Floats]]:
        file = arrays("hwnasbench/hwnasbench_nb201_cifar10.npz", self._folder)
        values = np.full((len(self.codes), len(file["metrics"])), np.nan)
        values[file["arch_index"]] = file["values"]
        names, units = file["metrics"].tolist(), file["units"].tolist()
        return {name: (unit.split("(")[0], column) for name, unit, column in zip(names, units, values.T, strict=True)}

    @property
    def hardware_metrics(self) -> tuple[str, ...]:
        """The metrics of HW-NAS-Bench, such as ``"edgegpu_energy"``; they are about CIFAR-10."""
        return tuple(self._hardware)

    def hardware(self, metric: str) -> ColumnProfiler:
        """Return a latency or energy of HW-NAS-Bench; it knows 12,555 of the architectures.

        Raises:
            ValueError: If the metric is unknown, or the data set is not CIFAR-10.
        """
        if self.dataset != "cifar10":
            raise ValueError(f"the numbers of HW-NAS-Bench are about cifar10, and this is {self.dataset}")
        if metric not in self._hardware:
            raise ValueError(f"HW-NAS-Bench has no {metric!r} here; it has {', '.join(self._hardware)}")
        unit, values = self._hardware[metric]
        return ColumnProfiler(self.index, self.space, values, metric, unit, metric.split("_")[0])
