"""The backend of OpenVINO, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np


def describe(options: dict[str, Any]) -> dict[str, Any]:
    """Name the runtime, its version, and the precision that a small network really gets on this processor."""
    import openvino

    return {
        "runtime": "openvino",
        "version": openvino.__version__.split("-")[0],
        "precision": _precision(_compiled(_tiny(), options)),
        "capabilities": list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    }


def load(files: dict[str, bytes], options: dict[str, Any]) -> Network:
    """Load ``model.onnx``; refuse where the network would not run at the precision that was asked for."""
    import openvino

    compiled = _compiled(openvino.Core().read_model(files["model.onnx"]), options)
    got = _precision(compiled)
    if got != options["precision"]:
        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        raise RuntimeError(
            f"OpenVINO was asked for {options['precision']} and runs at {got}: this processor offers it "
            f"{', '.join(capabilities)}; measure OpenVino(precision={got!r}) here, or {options['precision']} on a "
            "processor that computes in it"
        )
    return Network(compiled, options)


def _compiled(model: Any, options: dict[str, Any]) -> Any:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": options["precision"],
        "INFERENCE_NUM_THREADS": options["threads"],
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # the runner has pinned the process already
    }
    return openvino.Core().compile_model(model, "CPU", settings)


def _precision(compiled: Any) -> str:
    """Return the precision that a compiled network computes in, as it says itself."""
    kind: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return kind


def _tiny() -> Any:
    import openvino
    from openvino import opset8 as operators

    x = operators.parameter([1, 8], np.float32)
    return openvino.Model([operators.matmul(x, np.ones((8, 8), np.float32), False, False)], [x])


class Network:
    """A compiled network, and its fixed random input."""

    def __init__(self, compiled: Any, options: dict[str, Any]) -> None:
        self.request = compiled.create_infer_request()
        self.outputs = compiled.outputs
        rng = np.random.default_rng(0)
        types = [port.get_element_type().to_dtype() for port in compiled.inputs]
        for number, (shape, dtype) in enumerate(zip(options["shapes"], types)):
            self.request.set_input_tensor(number, _tensor(_numbers(rng, shape, dtype)))

    def __call__(self) -> None:
        """Run it once on the fixed input."""
        self.request.infer()

    def infer(self, inputs: list[Any]) -> list[Any]:
        """Return its outputs on given inputs."""
        results = self.request.infer(dict(enumerate(inputs)))
        return [np.array(results[port]) for port in self.outputs]


def _tensor(array: Any) -> Any:
    import openvino

    return openvino.Tensor(array)


def _numbers(rng: Any, shape: Any, dtype: Any) -> Any:
    """Return normal numbers; for whole ones and truth values zeros and ones, which every table has as indices."""
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)
