"""Networks as ONNX, written directly: about a fifth of the time that PyTorch's own exporter takes, the same numbers."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from nasmw.devices.onnx_operators import OPERATORS
from nasmw.devices.tracing import Graph, UnsupportedOperatorError, Value, evaluating, fold_batch_norms, trace
from nasmw.errors import DeviceError, MissingExtraError

__all__ = ["OnnxModel", "Writer", "export_onnx", "to_onnx"]

OPSET = 17
IR_VERSION = 8
logger = logging.getLogger(__name__)


@attrs.frozen
class OnnxModel:
    """A network as ONNX.

    Attributes:
        data: The file's bytes.
        fallback: The operator for which PyTorch's exporter was taken instead of the one here; empty where it was not.
    """

    data: bytes = attrs.field(repr=False)
    fallback: str = ""


def export_onnx(model: nn.Module, example: Tensor | Sequence[Tensor]) -> bytes:
    """Return a network as the bytes of an ONNX file; see `to_onnx`."""
    return to_onnx(model, example).data


def to_onnx(model: nn.Module, example: Tensor | Sequence[Tensor]) -> OnnxModel:
    """Return a network as ONNX of opset 17, for inputs of the example's shapes.

    The network is run once on the example, in evaluation mode, and its operators are written down as they come. Batch
    norms right after a convolution are merged into its weights, others stay; nothing else is rewritten. Where a network
    has an operator that is not known here, PyTorch's exporter based on TorchScript is taken, and a message is logged.

    Inputs are named ``"input"`` (``"input0"``, ``"input1"``, ... where there are several), outputs likewise. All
    shapes, the batch included, are fixed: those of the example.

    Args:
        model: The network; it is left in the mode that it was in.
        example: Its input, or its inputs in order.

    Raises:
        MissingExtraError: If `onnx` is not installed.
        DeviceError: If the network decides by the values of its input what it computes, draws random numbers, or can
            be written by neither exporter.
    """
    if importlib.util.find_spec("onnx") is None:
        raise MissingExtraError("onnx", "onnx")
    try:
        return OnnxModel(_write(fold_batch_norms(trace(model, example, OPERATORS))))
    except UnsupportedOperatorError as error:
        logger.info("%s is exported by PyTorch, for it has the operator %s", type(model).__name__, error)
        return OnnxModel(_torchscript(model, example, error), str(error))


def input_names(number: int) -> list[str]:
    """Return the names of a network's inputs."""
    return _names("input", number)


def _names(stem: str, number: int) -> list[str]:
    return [stem] if number == 1 else [f"{stem}{position}" for position in range(number)]


def _torchscript(model: nn.Module, example: Tensor | Sequence[Tensor], cause: UnsupportedOperatorError) -> bytes:
    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    with (
        evaluating(model),
        torch.no_grad(),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
    ):
        file = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore")  # it announces its successor, which takes a minute for a network
        try:
            torch.onnx.export(
                model,
                inputs,
                str(file),
                input_names=input_names(len(inputs)),
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:
            raise DeviceError(
                f"{type(model).__name__} cannot be exported: nasmw does not know its operator {cause}, and PyTorch's "
                f"exporter failed: {type(error).__name__}: {error}"
            ) from error
        return file.read_bytes()


class Writer:
    """Collects the nodes and constants of an ONNX graph."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._graph = graph
        self._values: dict[Value, str] = {}
        self._tensors: dict[tuple[int, str], str] = {}
        self._kept: list[Tensor] = []
        self._numbers: dict[Any, str] = {}

    def add(
        self, kind: str, inputs: Sequence[Value | Tensor | str | None], *outputs: Value | str, **attributes: Any
    ) -> None:
        """Add an operator that gives some values; an input is a value, a constant tensor, or a name."""
        import onnx.helper

        given = [self.name(item) for item in inputs]
        while given and not given[-1]:
            given.pop()
        self.nodes.append(onnx.helper.make_node(kind, given, [self.name(output) for output in outputs], **attributes))

    def new(self, kind: str, inputs: Sequence[Value | Tensor | str | None], **attributes: Any) -> str:
        """Add an operator with one result that no operator of PyTorch gives, and return its name."""
        name = f"inner{len(self.nodes)}"
        self.add(kind, inputs, name, **attributes)
        return name

    def name(self, item: Value | Tensor | str | None) -> str:
        """Return the name of an item; empty for an input that is left out."""
        if item is None:
            return ""
        if isinstance(item, str):
            return item
        if isinstance(item, Value):
            return self._values.setdefault(item, f"value{item.number}")
        return self.constant(item)

    def rename(self, value: Value, name: str) -> None:
        """Give a value a name of its own, before it is used."""
        self._values[value] = name

    @staticmethod
    def kind(dtype: torch.dtype) -> int:
        """Return ONNX's number of a kind of numbers."""
        import onnx.helper

        kind: int = onnx.helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=dtype).numpy().dtype)
        return kind

    def constant(self, tensor: Tensor, like: Tensor | None = None) -> str:
        """Return the name of a constant; `like` is the parameter that it is made of, and decides on its name."""
        source = tensor if like is None else like
        key = id(source), "" if like is None else "transposed"
        if key not in self._tensors:
            stem = self._graph.names.get(id(source), f"constant{len(self.constants)}")
            name = f"{stem}.{key[1]}" if key[1] else stem
            self._tensors[key] = self._add_constant(name, tensor.detach().cpu().contiguous().numpy())
            self._kept.append(source)
        return self._tensors[key]

    def number(self, value: float, dtype: torch.dtype) -> str:
        """Return the name of a constant without axes."""
        key = value, dtype, type(value)
        if key not in self._numbers:
            array = torch.tensor(value, dtype=dtype).numpy()
            self._numbers[key] = self._add_constant(f"number{len(self._numbers)}", array)
        return self._numbers[key]

    def numbers(self, values: Sequence[int]) -> str:
        """Return the name of a list of whole numbers, such as a shape."""
        key = tuple(values)
        if key not in self._numbers:
            array = np.array(key, dtype=np.int64)
            self._numbers[key] = self._add_constant(f"number{len(self._numbers)}", array)
        return self._numbers[key]

    def _add_constant(self, name: str, array: Any) -> str:
        import onnx.numpy_helper

        name = next(
            free
            for free in itertools.chain([name], (f"{name}.{n}" for n in itertools.count(1)))
            if free not in self.constants
        )
        self.constants[name] = onnx.numpy_helper.from_array(array, name)
        return name


def _write(graph: Graph) -> bytes:
    import onnx.helper

    writer = Writer(graph)
    for value, name in zip(graph.inputs, input_names(len(graph.inputs)), strict=True):
        writer.rename(value, name)
    names = _names("output", len(graph.outputs))
    direct = set()
    for output, name in zip(graph.outputs, names, strict=True):
        if isinstance(output, Value) and output not in graph.inputs and output not in direct:
            writer.rename(output, name)
            direct.add(output)
    for node in graph.nodes:
        OPERATORS[node.operator](writer, node)
    for output, name in zip(graph.outputs, names, strict=True):
        if writer.name(output) != name:
            writer.add("Identity", [output], name)

    def described(name: str, value: Value | Tensor) -> Any:
        return onnx.helper.make_tensor_value_info(name, writer.kind(value.dtype), list(value.shape))

    made = onnx.helper.make_graph(
        writer.nodes,
        "network",
        [described(writer.name(value), value) for value in graph.inputs],
        [described(name, output) for name, output in zip(names, graph.outputs, strict=True)],
        list(writer.constants.values()),
        value_info=[
            described(writer.name(value), value)
            for node in graph.nodes
            for value in node.outputs
            if value not in direct and value not in graph.inputs
        ],
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="nasmw")
    data: bytes = model.SerializeToString()
    return data
