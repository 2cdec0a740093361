"""Writing a found network to a folder: architecture, weights, ONNX."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasmw.errors import ExportError, MissingExtraError
from nasmw.log import TrialRecord
from nasmw.space import Space

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["export_onnx", "export_trial"]

TOLERANCE = 1e-3


def export_trial(
    space: Space,
    trial: TrialRecord,
    folder: str | os.PathLike[str],
    *,
    weights: str | None = None,
    model: nn.Module | None = None,
    example_input: Any = None,
) -> dict[str, Path]:
    """Write a trial's architecture, weights and ONNX file; see `nasmw.Result.export`."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = {"architecture": target / "architecture.json"}
    description = {"space": space.name, "architecture": trial.architecture, "trial": trial.number, **_metrics(trial)}
    written["architecture"].write_text(json.dumps(description, indent=2, default=repr) + "\n")
    kept = None if weights is None else Path(weights) / f"{trial.number}.pt"
    has_weights = model is not None or (kept is not None and kept.is_file())
    if not has_weights and example_input is None:
        return written

    import torch

    if model is None:
        model = space.build(trial.architecture)
        if kept is not None and kept.is_file():
            model.load_state_dict(torch.load(kept, map_location="cpu", weights_only=True))
    if has_weights:
        written["weights"] = target / "weights.pt"
        torch.save(model.state_dict(), written["weights"])
    if example_input is not None:
        written["onnx"] = target / "model.onnx"
        export_onnx(model, example_input, written["onnx"])
    return written


def _metrics(trial: TrialRecord) -> Mapping[str, Any]:
    return {"metrics": dict(trial.metrics), "profiled": dict(trial.columns)}


def export_onnx(model: nn.Module, example_input: Tensor | tuple[Tensor, ...], path: str | os.PathLike[str]) -> float:
    """Write a network as ONNX, and compare what ONNX Runtime computes with what PyTorch does.

    Args:
        model: The network; it is exported in evaluation mode and left in the mode it was in.
        example_input: What it takes: a tensor, or a tuple of them. The batch size may differ later, unless the network
            has an operator (a channel shuffle, say) that PyTorch's exporter lacks and nasmw's own writes.
        path: The file to write.

    Returns:
        The largest absolute difference of the first output, divided by the largest absolute output.

    Raises:
        MissingExtraError: If `onnx` or `onnxruntime` is not installed.
        ExportError: If the difference exceeds 1e-3.
        DeviceError: If neither exporter can write the network.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "onnx")
    import onnxruntime
    import torch

    from nasmw.devices import onnx_export as direct

    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    names = [f"input{number}" for number in range(len(inputs))] if len(inputs) > 1 else ["input"]
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the TorchScript exporter announces its successor, which takes a minute
            expected = model(*inputs)
            try:
                torch.onnx.export(
                    model,
                    inputs,
                    str(path),
                    input_names=names,
                    output_names=["output"],
                    dynamic_axes={name: {0: "batch"} for name in [*names, "output"]},
                    dynamo=False,
                )
            except torch.onnx.errors.UnsupportedOperatorError:
                Path(path).write_bytes(direct.export_onnx(model, inputs))
    finally:
        for module, mode in training.items():
            module.training = mode
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    got = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})[0]
    first = expected[0] if isinstance(expected, (tuple, list)) else expected
    wanted = first.numpy()
    scale = float(np.abs(wanted).max()) or 1.0
    difference = float(np.abs(got - wanted).max()) / scale
    if not difference <= TOLERANCE:
        raise ExportError(f"{path}: ONNX Runtime's output differs from PyTorch's by {difference:.2e} of its range")
    return difference
