"""The backend of ONNX Runtime, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

TYPES = {f"tensor({name})": name for name in ("bool", "int8", "int16", "int32", "int64", "uint8")}
TYPES["tensor(float)"] = "float32"


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
        arrays = [_numbers(rng, shape, dtype) for shape, dtype in zip(options["shapes"], types)]
        self.feed = dict(zip(self.names, arrays))

    def __call__(self) -> None:
        """Run it once on the fixed input."""
        self.session.run(None, self.feed)

    def infer(self, inputs: list[Any]) -> list[Any]:
        """Return its outputs on given inputs."""
        return list(self.session.run(None, dict(zip(self.names, inputs))))


def _numbers(rng: Any, shape: Any, dtype: str) -> Any:
    """Return normal numbers; for whole ones and truth values zeros and ones, which every table has as indices."""
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)
