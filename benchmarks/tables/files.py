"""Where the files of published benchmarks stand, and what to do where one is missing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DATASETS", "MissingDataError", "arrays", "dataset_number", "path_of"]

DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
"""The data sets of NAS-Bench-201 and NATS-Bench, in the order in which the files hold them."""

ORIGINS: Mapping[str, str] = {
    "nb201": "NAS-Bench-201 and NATS-Bench (D-X-Y/NATS-Bench; Dong, Yang, ICLR 2020)",
    "latency": "HELP (HayeonLee/HELP) and EAGLE (SamsungLabs/eagle)",
    "hwnasbench": "HW-NAS-Bench (RICE-EIC/HW-NAS-Bench; Li et al., ICLR 2021)",
    "nats_sss": "NATS-Bench (D-X-Y/NATS-Bench; Dong et al., TPAMI 2021)",
    "nb_macro": "NAS-Bench-Macro and Channel-Bench-Macro (xiusu/NAS-Bench-Macro, xiusu/Channel-Bench-Macro)",
    "ofa": "once-for-all's tutorial (mit-han-lab/once-for-all; Cai et al., ICLR 2020)",
}


class MissingDataError(FileNotFoundError):
    """A file of published measurements is not there; the message says what it holds and where it is to be had."""


def path_of(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a data file.

    Args:
        name: The file below the data folder, such as ``"nb201/nb201_accuracy.npz"``.
        folder: The data folder; by default what the environment variable ``NASMW_DATA`` names.

    Raises:
        MissingDataError: If no folder is named, or the file is not in it.
    """
    origin = ORIGINS[name.split("/", 1)[0]]
    remedy = (
        f"It holds numbers published by {origin}, as arrays whose names and shapes stand in "
        "benchmarks/tables/README.md; name the folder by an argument or by the environment variable NASMW_DATA"
    )
    root = folder if folder is not None else os.environ.get("NASMW_DATA")
    if not root:
        raise MissingDataError(f"no data folder is named, and {name} is to be read from it. {remedy}")
    path = Path(root) / name
    if not path.is_file():
        raise MissingDataError(f"there is no {name} in {root}. {remedy}")
    return path


def arrays(name: str, folder: str | os.PathLike[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a data file by name.

    Raises:
        MissingDataError: If the file is missing.
    """
    with np.load(path_of(name, folder), allow_pickle=False) as file:
        return {key: file[key] for key in file}


def dataset_number(dataset: str) -> int:
    """Return the place of a data set in the files.

    Raises:
        ValueError: If it is none of `DATASETS`.
    """
    if dataset not in DATASETS:
        raise ValueError(f"the data set is one of {DATASETS}, got {dataset!r}")
    return DATASETS.index(dataset)
