"""How long a network takes to be exported: directly, and by PyTorch's exporters to ONNX.

Processor seconds, the median over some networks of each ready space; the forward pass is part of each export. With
``--dynamo`` PyTorch's newer exporter is timed too, which takes a minute for a network. "-" is what cannot export them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nasmw import spaces
from nasmw.devices import sensible_weights
from nasmw.devices.ncnn_export import export_ncnn
from nasmw.devices.onnx_export import export_onnx
from nasmw.errors import DeviceError

SPACES = {
    "nasbench201": (spaces.nasbench201, 32),
    "nats_size": (spaces.nats_size, 32),
    "ofa_mobilenetv3": (spaces.ofa_mobilenetv3, 224),
    "mobilenetv3": (spaces.mobilenetv3, 224),
    "fbnet": (spaces.fbnet, 224),
    "proxylessnas": (spaces.proxylessnas, 224),
    "darts": (spaces.darts, 32),
    "autoformer": (spaces.autoformer, 224),
}


def by_pytorch(dynamo: bool) -> Callable[[nn.Module, torch.Tensor], None]:
    def export(model: nn.Module, example: torch.Tensor) -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(model, (example,), str(Path(folder) / "model.onnx"), dynamo=dynamo)

    return export


def seconds(export: Callable[[nn.Module, torch.Tensor], object], model: nn.Module, example: torch.Tensor) -> float:
    """Return the processor seconds of an export, NaN where it fails."""
    begin = time.process_time()
    try:
        export(model, example)
    except (DeviceError, torch.onnx.errors.OnnxExporterError):
        return float("nan")
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=5, help="of each space (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dynamo", action="store_true", help="time PyTorch's newer exporter too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ways: dict[str, Callable[[nn.Module, torch.Tensor], object]] = {
        "direct ONNX": export_onnx,
        "direct ncnn": export_ncnn,
        "TorchScript": by_pytorch(dynamo=False),
    }
    if arguments.dynamo:
        ways["dynamo"] = by_pytorch(dynamo=True)
    print("processor seconds".ljust(18) + "".join(way.rjust(14) for way in ways))
    for name, (make, size) in SPACES.items():
        space = make()
        example = torch.randn(1, 3, size, size)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for number, architecture in enumerate(
            space.sample(arguments.networks + 1, np.random.default_rng(arguments.seed))
        ):
            model = sensible_weights(space.build(architecture))
            for way, export in ways.items():
                spent = seconds(export, model, example)
                if number:  # the first one imports
                    taken[way].append(spent)
        medians = [statistics.median(values) for values in taken.values()]
        print(name.ljust(18) + "".join((f"{value:.3f}" if value == value else "-").rjust(14) for value in medians))


if __name__ == "__main__":
    main()
