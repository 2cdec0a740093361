"""The backend of PyTorch, on the CPU or a GPU of NVIDIA."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch


def describe(options: dict[str, Any]) -> dict[str, Any]:
    """Name the runtime, its version, and the GPU where there is one in use."""
    _set_up(options)
    about = {"runtime": "torch", "version": torch.__version__, "precision": "fp32"}
    if options["device"] == "cuda":
        about["accelerator"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    return about


def load(files: dict[str, bytes], options: dict[str, Any]) -> Network:
    """Load ``model.pt``, a pickled module, and have it compiled where that is wanted."""
    _set_up(options)
    try:
        module = torch.load(io.BytesIO(files["model.pt"]), map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as error:
        raise RuntimeError(
            f"the network cannot be loaded where it is measured: {error}. Its classes have to be importable there, in "
            "a module of a package or on PYTHONPATH, not in a script or notebook; networks that torch.fx can trace "
            "travel without their classes"
        ) from error
    kind = files.get("dtype", b"float32").decode()
    return Network(module.eval().to(options["device"]), options, kind)


def _set_up(options: dict[str, Any]) -> None:
    torch.set_num_threads(options["threads"])
    if options["device"] == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} finds no CUDA device here; measure on device='cpu'")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


class Network:
    """A module, and its fixed random input."""

    def __init__(self, module: torch.nn.Module, options: dict[str, Any], kind: str) -> None:
        self.device = options["device"]
        self.channels_last = options["mode"] == "channels_last"
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module: Any = torch.compile(module) if options["mode"] == "compiled" else module
        rng = np.random.default_rng(0)
        self.inputs = [self._placed(_numbers(rng, shape, kind), kind) for shape in options["shapes"]]
        self()

    def _placed(self, array: Any, kind: str) -> torch.Tensor:
        tensor = torch.from_numpy(np.array(array)).to(self.device, getattr(torch, kind))
        if self.channels_last and tensor.ndim == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def __call__(self) -> None:
        """Run it once on the fixed input, to the end."""
        with torch.inference_mode():
            self.module(*self.inputs)
            if self.device == "cuda":
                torch.cuda.synchronize()

    def infer(self, inputs: list[Any]) -> list[Any]:
        """Return its outputs on given inputs."""
        tensors = [self._placed(array, str(array.dtype)) for array in inputs]
        with torch.inference_mode():
            result = self.module(*tensors)
        leaves = torch.utils._pytree.tree_leaves(result)
        return [leaf.cpu().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _numbers(rng: Any, shape: Any, dtype: str) -> Any:
    """Return normal numbers; for whole ones and truth values zeros and ones, which every table has as indices."""
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)
