"""OpenVino: the device that runs networks in Intel's runtime, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nasmw.devices.base import Artifact, Device

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["OpenVino"]

PRECISIONS = ("f32", "bf16")


class OpenVino(Device):
    """OpenVINO on a CPU, in single precision or in bfloat16.

    A processor without instructions for bfloat16 (AVX-512 or AMX) silently computes in single precision when OpenVINO
    is asked for bfloat16. Here it is an error when a network is prepared, and the device's `key` and description name
    the precision that OpenVINO reports for what it has compiled.

    Args:
        precision: ``"f32"`` or ``"bf16"``.
        **common: What every `Device` takes: threads, python, host, core, timeout, name.

    Raises:
        ValueError: If the precision is unknown, or a number is out of range.

    Example:
        >>> OpenVino(precision="bf16")
        <OpenVino 'openvino-bf16'>
    """

    runtime = "openvino"
    extra = "openvino"
    far = "openvino_"
    packages = ("onnx",)
    far_packages = ("openvino",)

    def __init__(self, precision: Literal["f32", "bf16"] = "f32", **common: Any) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"OpenVino(precision=...) is one of {PRECISIONS}, got {precision!r}")
        super().__init__(**common)
        self.precision = precision

    @property
    def variant(self) -> str:
        """The precision."""
        return self.precision

    @property
    def options(self) -> dict[str, Any]:
        """The precision."""
        return {"precision": self.precision}

    def export(self, model: nn.Module, example: Tensor) -> Artifact:
        """Return ``model.onnx``; see `Device.export`."""
        from nasmw.devices.networks import check_network
        from nasmw.devices.onnx_export import export_onnx

        self.require()
        check_network(model, example)
        return Artifact({"model.onnx": export_onnx(model, example)}, (tuple(example.shape),))
