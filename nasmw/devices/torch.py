"""Torch: the device that runs networks in PyTorch itself, on a CPU or a GPU."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal

from nasmw.devices.base import Artifact, Device
from nasmw.errors import DeviceError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Torch"]

MODES = ("eager", "channels_last", "compiled")
DEVICES = ("cpu", "cuda")
COMPILING = 900.0  # seconds; compiling a network takes minutes where a core is shared


class Torch(Device):
    """PyTorch, in single precision (without TF32 on GPUs).

    A network travels as what `torch.fx` makes of it, a list of calls of plain PyTorch layers, so the far side needs
    PyTorch alone; it is checked to compute the same. A network that `torch.fx` cannot trace (its course depends on
    shapes or values, say) travels pickled; the far side must then be able to import its classes, so that works in this
    Python environment only. On a GPU, a run lasts until the GPU has finished.

    Args:
        mode: ``"eager"`` (the network as it is), ``"channels_last"`` (the same, with the channels of a pixel side by
            side in memory) or ``"compiled"`` (by `torch.compile`, which needs a C++ compiler and takes minutes for a
            network).
        device: ``"cpu"`` or ``"cuda"``.
        **common: What every `Device` takes: threads, python, host, core, timeout, name.

    Raises:
        ValueError: If mode or device is unknown, or a number is out of range.

    Example:
        >>> Torch(mode="channels_last")
        <Torch 'torch-channels_last'>
    """

    runtime = "torch"
    extra = ""
    far = "torch_"
    far_packages = ("torch",)

    def __init__(
        self,
        mode: Literal["eager", "channels_last", "compiled"] = "eager",
        device: Literal["cpu", "cuda"] = "cpu",
        **common: Any,
    ) -> None:
        for argument, value, known in (("mode", mode, MODES), ("device", device, DEVICES)):
            if value not in known:
                raise ValueError(f"Torch({argument}=...) is one of {known}, got {value!r}")
        if mode == "compiled":
            common.setdefault("timeout", COMPILING)
        super().__init__(**common)
        self.mode = mode
        self.device = device
        self.on_cpu = device == "cpu"

    @property
    def variant(self) -> str:
        """The mode, and the GPU."""
        return self.mode if self.device == "cpu" else f"{self.mode}-{self.device}"

    @property
    def options(self) -> dict[str, Any]:
        """Mode and device."""
        return {"mode": self.mode, "device": self.device}

    def export(self, model: nn.Module, example: Tensor) -> Artifact:
        """Return ``model.pt``, and the example's ``dtype``; see `Device.export`.

        Raises:
            DeviceError: If the network cannot be traced, and the far side is another environment or host, or it cannot
                be pickled.
        """
        import torch

        from nasmw.devices.networks import check_network
        from nasmw.devices.tracing import evaluating

        check_network(model, example)
        with evaluating(model), torch.random.fork_rng(devices=()):
            try:
                travels = _plain(model, example)
            except Exception as error:  # tracing runs the network's own code on stand-ins for tensors
                if self.python is not None or self.host is not None:
                    raise DeviceError(
                        f"{type(model).__name__} cannot travel to {self!r}: torch.fx cannot trace it "
                        f"({type(error).__name__}: {error}), and its classes are known in this environment only"
                    ) from error
                travels = model
            file = io.BytesIO()
            try:
                torch.save(travels, file)
            except Exception as error:
                raise DeviceError(
                    f"{type(model).__name__} cannot travel to {self!r}: it cannot be pickled "
                    f"({type(error).__name__}: {error})"
                ) from error
        dtype = str(example.dtype).removeprefix("torch.").encode()
        return Artifact({"model.pt": file.getvalue(), "dtype": dtype}, (tuple(example.shape),))


def _plain(model: nn.Module, example: Tensor) -> nn.Module:
    """Return a network made of PyTorch's own layers that computes the same.

    Raises:
        Exception: If there is none, as far as `torch.fx` knows.
    """
    import torch
    from torch.fx import symbolic_trace
    from torch.utils._pytree import tree_leaves

    traced = symbolic_trace(model)
    for node in traced.graph.nodes:
        node.type = None  # annotations that are strings cannot be written as code
    traced.recompile()
    foreign = {type(module).__module__ for module in traced.modules() if not _is_torch(module)}
    if foreign:
        raise TypeError(f"it has layers of {', '.join(sorted(foreign))}")
    with torch.inference_mode():
        pairs = zip(tree_leaves(model(example)), tree_leaves(traced(example)), strict=True)
        for wanted, got in pairs:
            if isinstance(wanted, torch.Tensor):
                torch.testing.assert_close(got, wanted, equal_nan=True)
    return traced


def _is_torch(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "torch"
