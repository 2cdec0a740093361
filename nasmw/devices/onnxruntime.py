"""OnnxRuntime: the device that runs ONNX files on a CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nasmw.devices.base import Artifact, Device
from nasmw.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["OnnxRuntime"]

PRECISIONS = ("fp32", "int8")
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}  # shapes are inferred and convolutions merged already
KEPT = ("BatchNormalization",)  # has no 8-bit form; what stands behind a convolution is merged with it


class OnnxRuntime(Device):
    """ONNX Runtime on a CPU, in single precision or with 8-bit integers.

    Networks for ``"int8"`` are quantised statically: pairs of QuantizeLinear and DequantizeLinear around each operator,
    weights with a scale for each channel, signed throughout as ONNX Runtime advises, the ranges of activations from
    `calibration` inputs of standard normal numbers. That is enough for a latency; for accuracy, calibrate on data of
    the task. Whether 8 bits are faster depends on the processor's instructions for them.

    Args:
        precision: ``"fp32"`` or ``"int8"``.
        calibration: How many inputs the ranges of activations are taken from.
        seed: What those inputs are drawn from.
        **common: What every `Device` takes: threads, python, host, core, timeout, name.

    Raises:
        ValueError: If the precision is unknown, or a number is out of range.

    Example:
        >>> OnnxRuntime(precision="int8", threads=2)
        <OnnxRuntime 'onnxruntime-int8-2threads'>
    """

    runtime = "onnxruntime"
    extra = "onnx"
    far = "ort"
    packages = ("onnx", "onnxruntime")
    far_packages = ("onnxruntime",)

    def __init__(
        self, precision: Literal["fp32", "int8"] = "fp32", *, calibration: int = 4, seed: int = 0, **common: Any
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"OnnxRuntime(precision=...) is one of {PRECISIONS}, got {precision!r}")
        if isinstance(calibration, bool) or not isinstance(calibration, int) or calibration < 1:
            raise ValueError(f"OnnxRuntime(calibration=...) takes a whole number of at least 1, got {calibration!r}")
        super().__init__(**common)
        self.precision = precision
        self.calibration = calibration
        self.seed = seed

    @property
    def variant(self) -> str:
        """The precision."""
        return self.precision

    @property
    def options(self) -> dict[str, Any]:
        """The precision, for the record; the file decides."""
        return {"precision": self.precision}

    def export(self, model: nn.Module, example: Tensor) -> Artifact:
        """Return ``model.onnx``; see `Device.export`."""
        from nasmw.devices.networks import check_network
        from nasmw.devices.onnx_export import export_onnx

        self.require()
        check_network(model, example)
        content = export_onnx(model, example)
        if self.precision == "int8":
            try:
                content = quantised(content, tuple(example.shape), self.calibration, self.seed)
            except Exception as error:  # ONNX Runtime has exceptions of its own
                raise DeviceError(
                    f"{type(model).__name__} cannot be exported: ONNX Runtime does not quantise it: "
                    f"{type(error).__name__}: {error}"
                ) from error
        return Artifact({"model.onnx": content}, (tuple(example.shape),))


def quantised(model: bytes, shape: tuple[int, ...], calibration: int, seed: int) -> bytes:
    """Return an ONNX file with 8-bit weights and activations.

    Args:
        model: An ONNX file with one input.
        shape: The shape of that input.
        calibration: How many inputs the ranges of activations are taken from.
        seed: What those inputs, standard normal numbers, are drawn from.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    loaded = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model))
    onnx.helper.set_model_props(loaded, PREPARED)
    for number, node in enumerate(loaded.graph.node):  # nodes are left out by name
        node.name = node.name or f"node{number}"
    (given,) = loaded.graph.input
    dtype = onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    rng = np.random.default_rng(seed)

    class Inputs(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = calibration

        def get_next(self) -> dict[str, Any] | None:
            self.left -= 1
            if self.left < 0:
                return None
            numbers = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
            return {given.name: numbers.astype(dtype)}

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            loaded,
            str(target),
            Inputs(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            nodes_to_exclude=[node.name for node in loaded.graph.node if node.op_type in KEPT],
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return target.read_bytes()
