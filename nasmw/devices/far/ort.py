"""The backend of ONNX Runtime, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(bool)": "bool"}


def describe(options: dict[str, Any]) -> dict[str, Any]:
    """Name the runtime, its version and the precision in use."""
    import onnxruntime

    return {"runtime": "onnxruntime", "version": onnxruntime.__version__, "precision": options["precision"]}


def load(files: dict[str, bytes], options: dict[str, Any]) -> Network:
    """Load ``model.onnx``."""
    return Network(files["model.onnx"], options)


class Network:
    """A session, and its fixed random input."""

    def __init__(self, model: bytes, options: dict[str, Any]) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options["threads"]
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self.session.get_inputs()]
        types = [TYPES[given.type] for given in self.session.get_inputs()]
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal(shape).astype(dtype) for shape, dtype in zip(options["shapes"], types)]
        self.feed = dict(zip(self.names, arrays))

    def __call__(self) -> None:
        """Run it once on the fixed input."""
        self.session.run(None, self.feed)

    def infer(self, inputs: list[Any]) -> list[Any]:
        """Return its outputs on given inputs."""
        return list(self.session.run(None, dict(zip(self.names, inputs))))
