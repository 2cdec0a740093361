"""The backend of ncnn, on the CPU."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

HALF_PRECISION = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)
"""Settings with which some processors would compute in half precision."""


def describe(options: dict[str, Any]) -> dict[str, Any]:
    """Name the runtime, its version and the precision in use."""
    import ncnn

    return {"runtime": "ncnn", "version": ncnn.__version__, "precision": "fp32"}


def load(files: dict[str, bytes], options: dict[str, Any]) -> Network:
    """Load ``model.param`` and ``model.bin``."""
    return Network(files, options)


class Network:
    """A network, and its fixed random input."""

    def __init__(self, files: dict[str, bytes], options: dict[str, Any]) -> None:
        import ncnn

        self.net = ncnn.Net()
        settings = self.net.opt
        settings.num_threads = options["threads"]
        settings.use_vulkan_compute = False
        for name in HALF_PRECISION:
            if hasattr(settings, name):  # versions differ
                setattr(settings, name, False)
        with tempfile.TemporaryDirectory() as folder:
            paths = {}
            for name in ("model.param", "model.bin"):
                paths[name] = os.path.join(folder, name)
                with open(paths[name], "wb") as file:
                    file.write(files[name])
            if self.net.load_param(paths["model.param"]) or self.net.load_model(paths["model.bin"]):
                raise RuntimeError("ncnn does not load the network; what it says stands on the standard error")
        rng = np.random.default_rng(0)
        self.mats = [_mat(rng.standard_normal(shape[1:])) for shape in options["shapes"]]
        self.inputs = list(self.net.input_names())
        self.outputs = [name for name in self.net.output_names() if name.startswith("output")]
        self()

    def __call__(self) -> None:
        """Run it once on the fixed input."""
        self._run(self.mats)

    def infer(self, inputs: list[Any]) -> list[Any]:
        """Return its outputs on given inputs, whose batch is 1."""
        return [np.array(out)[None] for out in self._run([_mat(array[0]) for array in inputs])]

    def _run(self, mats: list[Any]) -> list[Any]:
        extractor = self.net.create_extractor()
        for name, mat in zip(self.inputs, mats):
            extractor.input(name, mat)
        results = []
        for name in self.outputs:
            code, out = extractor.extract(name)
            if code:
                raise RuntimeError(f"ncnn failed with code {code} to compute {name!r}")
            results.append(out)
        return results


def _mat(array: Any) -> Any:
    """Return an array as ncnn has it, in memory of its own: layers that work in place may write into it otherwise."""
    import ncnn

    return ncnn.Mat(np.ascontiguousarray(array, dtype=np.float32)).clone()
