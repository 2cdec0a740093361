"""Ncnn: the device that runs networks in ncnn, a runtime for mobile processors, on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nasmw.devices.base import Artifact, Device

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Ncnn"]


class Ncnn(Device):
    """ncnn on a CPU, in single precision.

    Networks are written in ncnn's own format, with batch norms merged into the convolutions before them, and the
    activations after them taken in, as ncnn's tools do it. ncnn knows no batches: inputs have a batch size of 1.

    Args:
        **common: What every `Device` takes: threads, python, host, core, timeout, name.

    Example:
        >>> Ncnn()
        <Ncnn 'ncnn-fp32'>
    """

    runtime = "ncnn"
    extra = "ncnn"
    far = "ncnn_"
    far_packages = ("ncnn",)

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)

    @property
    def variant(self) -> str:
        """The precision."""
        return "fp32"

    def export(self, model: nn.Module, example: Tensor) -> Artifact:
        """Return ``model.param`` and ``model.bin``; see `Device.export`.

        Raises:
            DeviceError: If the batch size is not 1, or an operator cannot be written; names it.
        """
        from nasmw.devices.ncnn_export import export_ncnn
        from nasmw.devices.networks import check_network

        self.require()
        check_network(model, example)
        param, weights = export_ncnn(model, example)
        return Artifact({"model.param": param, "model.bin": weights}, (tuple(example.shape),))
